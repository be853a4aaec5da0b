"""A small cluster on loopback for tests of the peer protocol: real PKI, real TLS, an in-memory service."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from blake3 import blake3

from instep.errors import NotAllowedError
from instep.model.change import ChangeAnswer, change_set_id
from instep.model.ids import Digest, HeadRef, LineId, NodeName, fileset_name, node_name
from instep.model.link import Link
from instep.model.lock import LockDenied, LockEnd, LockEnded, LockOwner
from instep.net.client import PeerClient
from instep.net.connections.allow import AllowList
from instep.net.connections.listener import Limits, Refusal
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.messages.syncing import BasesReply, BasesRequest, DifferenceReply, DifferenceRequest
from instep.net.server import PeerServer
from instep.net.service import PeerStream
from instep.net.task_group import TaskGroup
from instep.net.transfer import PIECE_BYTES, AnswerStatus, TransferAnswer, pieces_of_file
from instep.net.trust.certs import fingerprint_bytes
from instep.net.trust.pki import Pki
from instep.net.trust.tokens import SECRET_BYTES, Invitation, TokenBook

LINE = LineId(fileset_name("catalog"), node_name("main"))
GENERATION = Digest(b"g" * 32)
PAGE = Digest(b"p" * 32)
HEAD = HeadRef(1, 1, GENERATION, Digest(b"r" * 32))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def member(ca: Pki, directory: Path, name: str, life_s: float = 3600) -> Pki:
    """A node's pki directory, as a join would make it."""
    pki = Pki(directory)
    named = node_name(name)
    issued = ca.issue(named, *pki.requests(named), now_ms(), life_s=life_s)
    pki.install(named, ca.authorities_pem(), issued, ca.crl_pem())
    return pki


class Service:
    """Answers from a dict of contents; records the askers."""

    def __init__(self, pki: Pki) -> None:
        self.pki = pki
        self.book = TokenBook(b"k" * 32)
        self.contents_by_position: list[bytes | Path] = []
        self.asked: list[tuple[str, str]] = []
        self.received: list[m.StreamMessage] = []
        self.denied: set[NodeName] = set()
        self.is_endless = False
        self.uploaded: list[Digest] = []

    def invite(self, name: str, *addresses: str, ttl_ms: int = 60_000) -> Invitation:
        invitation = Invitation(
            secrets.token_bytes(8),
            secrets.token_bytes(SECRET_BYTES),
            node_name(name),
            self.pki.name,
            addresses,
            fingerprint_bytes(self.pki.ca()),
            now_ms() + ttl_ms,
        )
        self.book.add(invitation, Link(replicate=True, data=True))
        return invitation

    async def join(self, request: m.JoinRequest, address: str) -> m.JoinReply:
        self.asked.append(("join", address))
        self.book.check(request.token_id, request.secret, request.name, now_ms())
        self.book.use(request.token_id, now_ms(), pin="")
        issued = self.pki.issue(request.name, request.tls_csr, request.sign_csr, now_ms())
        return m.JoinReply(
            1, "c", self.pki.name, "", self.pki.authorities_pem(), issued.tls, issued.sign, self.pki.crl_pem()
        )

    async def federate(self, request: m.FederateRequest, address: str) -> m.FederateReply:
        self.asked.append(("federate", address))
        self.book.check(request.token_id, request.secret, request.name, now_ms())
        self.book.use(request.token_id, now_ms(), pin="")
        return m.FederateReply(self.pki.name, self.pki.sign_key)

    async def renew(self, who: NodeName, request: m.RenewRequest) -> m.RenewReply:
        issued = self.pki.issue(who, request.tls_csr, request.sign_csr, now_ms())
        return m.RenewReply(issued.tls, issued.sign)

    def _allow(self, who: NodeName, what: str) -> None:
        self.asked.append((what, who))
        if who in self.denied:
            raise NotAllowedError(f"the link does not let {who} have this", code="link", fileset="catalog")

    async def heads(self, who: NodeName, request: m.HeadsRequest) -> m.HeadsReply:
        self._allow(who, "heads")
        return m.HeadsReply(())

    async def pages(self, who: NodeName, request: m.PagesRequest) -> m.PagesReply:
        self._allow(who, "pages")
        return m.PagesReply(tuple(b"page" * 10_000 for _ in request.digests))

    async def chunk_pages(self, who: NodeName, request: m.ChunkPagesRequest) -> m.PagesReply:
        return m.PagesReply(tuple(b"chunks" for _ in request.digests))

    async def holdings(self, who: NodeName, request: m.HoldingsRequest) -> m.HoldingsReply:
        return m.HoldingsReply(tuple(True for _ in request.generations))

    async def facts(self, who: NodeName, request: m.FactsRequest) -> m.FactsReply:
        return m.FactsReply((("instep", "0"),))

    async def verify(self, who: NodeName, request: m.VerifyRequest) -> m.VerifyReply:
        raise RuntimeError("a secret that must not travel")

    async def contents(self, who: NodeName, request: m.ContentsRequest) -> Iterator[TransferAnswer]:
        self._allow(who, "contents")
        return self._contents(request)

    def _contents(self, request: m.ContentsRequest) -> Iterator[TransferAnswer]:
        positions = [position for want in request.wants for position in want.positions]
        for want, position in enumerate(positions):
            content = self.contents_by_position[position % len(self.contents_by_position)]
            if isinstance(content, Path):
                descriptor = os.open(content, os.O_RDONLY)
                try:
                    yield from pieces_of_file(want, descriptor, 0, content.stat().st_size)
                finally:
                    os.close(descriptor)
            elif len(content) <= PIECE_BYTES:
                yield TransferAnswer(want, AnswerStatus.WHOLE, 0, content)
        while self.is_endless:
            yield TransferAnswer(0, AnswerStatus.PIECE, 0, bytes(PIECE_BYTES))

    async def ranges(self, who: NodeName, request: m.RangesRequest) -> Iterator[TransferAnswer]:
        return (
            TransferAnswer(want, AnswerStatus.PIECE, offset, b"r" * length)
            for want, (offset, length) in enumerate(request.ranges)
        )

    async def lock(self, who: NodeName, request: m.LockRequest) -> m.LockReply:
        self._allow(who, "lock")
        return m.LockReply(LockDenied(LockOwner(self.pki.name, "ana", "word"), 60_000, 1))

    async def unlock(self, who: NodeName, request: m.UnlockRequest) -> m.LockReply:
        return m.LockReply(LockEnded(request.path, LockEnd.RELEASED))

    async def break_lock(self, who: NodeName, request: m.BreakRequest) -> m.LockReply:
        return m.LockReply(LockEnded(request.path, LockEnd.BROKEN))

    async def locks(self, who: NodeName, request: m.LocksRequest) -> m.LocksReply:
        return m.LocksReply(())

    async def flush(self, who: NodeName, request: m.FlushRequest) -> m.FlushReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync(self, who: NodeName, request: m.SyncRequest) -> m.SyncReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync_profile(self, who: NodeName, request: m.ProfileNotice) -> m.ProfileReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def side_facts(self, who: NodeName, request: m.SideFactsRequest) -> m.SideFactsReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync_marks(self, who: NodeName, request: m.MarksRequest) -> m.MarksReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync_bases(self, who: NodeName, request: BasesRequest) -> BasesReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def difference(self, who: NodeName, request: DifferenceRequest) -> DifferenceReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def submit_have(self, who: NodeName, request: m.SubmitHave) -> m.SubmitHaveReply:
        self._allow(who, "submit_have")
        return m.SubmitHaveReply(tuple(range(len(request.contents))))

    async def submit(
        self, who: NodeName, request: m.SubmitRequest, contents: AsyncIterator[list[TransferAnswer]]
    ) -> m.SubmitReply:
        """Takes the contents and hashes them, or refuses before that."""
        self._allow(who, "submit")
        hashes = [blake3() for _ in request.contents]
        async for batch in contents:
            for answer in batch:
                hashes[answer.want].update(answer.data)
        self.uploaded = [Digest(each.digest()) for each in hashes]
        return m.SubmitReply(ChangeAnswer(change_set_id(request.change_set), ()))

    async def stream(self, who: NodeName, hello: m.Hello, stream: PeerStream) -> None:
        await stream.send(m.Welcome(1, self.pki.name, b"session", now_ms()))
        while (message := await stream.receive()) is not None:
            self.received.append(message)
            if isinstance(message, m.Ping):
                await stream.send(m.Pong(message.number))


class Node:
    """A serving node."""

    def __init__(self, service: Service, server: PeerServer, tls: TlsContexts, address: str) -> None:
        self.service = service
        self.server = server
        self.tls = tls
        self.address = address
        self.allow = AllowList()
        self.refusals: list[Refusal] = []
        self.rate_bytes_s: int | None = None


@contextlib.asynccontextmanager
async def serving(pki: Pki, limits: Limits | None = None) -> AsyncIterator[Node]:
    tls = TlsContexts(pki)
    service = Service(pki)
    holder: list[Node] = []
    server = PeerServer(
        service,
        tls,
        lambda: holder[0].allow,
        limits=limits,
        rate_bytes_s=lambda: holder[0].rate_bytes_s,
        on_refused=lambda refusal: holder[0].refusals.append(refusal),
    )
    host, port = server.bind("127.0.0.1", 0)[0]
    holder.append(Node(service, server, tls, f"{host}:{port}"))
    async with TaskGroup() as tasks:
        task = tasks.create_task(server.serve())
        try:
            yield holder[0]
        finally:
            task.cancel()


@contextlib.asynccontextmanager
async def dialling(pki: Pki, node: Node) -> AsyncIterator[PeerClient]:
    client = PeerClient(TlsContexts(pki), node.service.pki.name, node.address)
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def dialling_later(pki: Pki) -> AsyncIterator[Callable[[Node], PeerClient]]:
    """For clients that outlive the node they dial."""
    async with contextlib.AsyncExitStack() as stack:

        def dial(node: Node) -> PeerClient:
            client = PeerClient(TlsContexts(pki), node.service.pki.name, node.address)
            stack.push_async_callback(client.close)
            return client

        yield dial


def hello(name: str) -> m.Hello:
    return m.Hello(m.VERSIONS, node_name(name), b"session")


def wants(count: int) -> tuple[m.PageWant, ...]:
    """``count`` contents in pages of up to 500."""
    return tuple(m.PageWant(PAGE, tuple(range(min(500, count - start)))) for start in range(0, count, 500))
