"""A hostile writer and a hostile partner for tests: real keys, real TLS, and whatever they like to say.

``HostileWriter`` takes the place of a node whose daemon was stopped: it serves at its address with its keys, so
that the partners' daemons dial it and get its crafted messages. It signs with the node's own key, unless
the test wants otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from aiohttp import web
from blake3 import blake3

from instep.cli.control import Control
from instep.errors import RefusedError
from instep.model.generation import (
    UNSIGNED,
    EpochBody,
    GenerationBody,
    Signature,
    SignedEpoch,
    SignedGeneration,
)
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, LineId, NodeName, fileset_name, node_name
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import build
from instep.model.manifest.pages import Child, decode_leaf, digest_of, encode_page
from instep.model.paths import sort_key
from instep.net.connections.allow import AllowList
from instep.net.connections.stream import SocketStream
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.replies import CONTENT_TYPE
from instep.net.server import PeerServer
from instep.net.service import PeerStream
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.net.trust.pki import Pki
from instep.store.sqlite import SqliteStore
from tests.support.fleet import Node
from tests.support.hostile_home import HostileHome
from tests.support.pings import Pings
from tests.support.waiting import eventually

__all__ = ["Craft", "HostileWriter", "Looped", "Victim", "directory", "file", "symlink", "wall_ms"]

T = TypeVar("T")
START_NS = 1_700_000_000_000_000_000
ANSWER_S = 60.0
CLOSING_S = 3.0


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def file(path: bytes, data: bytes = b"x", mode: int = 0o644, **fields: Any) -> tuple[Entry, bytes]:
    entry = Entry(path, Kind.FILE, mode, len(data), START_NS, Digest(blake3(data).digest()), 1)
    return msgspec.structs.replace(entry, **fields), data


def directory(path: bytes, mode: int = 0o755) -> tuple[Entry, bytes]:
    return Entry(path, Kind.DIR, mode, 0, START_NS, EMPTY_DIGEST, 1), b""


def symlink(path: bytes, target: bytes) -> tuple[Entry, bytes]:
    return Entry(path, Kind.SYMLINK, 0o777, len(target), START_NS, Digest(blake3(target).digest()), 1), target


def _no_connections() -> bool:
    """Whether every connection of this process's loops has ended: a loop does not say so, and may not be closed
    before."""
    found = (each for each in gc.get_objects() if type(each).__name__ == "TCPTransport")
    return not any("closed=False" in repr(each) for each in found)


class Looped:
    """An event loop in a thread of its own; ``run`` is for the test's thread."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="hostile")
        self._thread.start()

    async def _end_tasks(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def run(self, work: Coroutine[Any, Any, T], timeout: float = ANSWER_S) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self) -> None:
        self.run(self._end_tasks())
        with contextlib.suppress(
            AssertionError
        ):  # the other side may never answer: then it is closed all the same
            eventually(_no_connections, CLOSING_S, patience_s=0)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Craft:
    """A manifest in the making, with the pages and contents that its server gives out."""

    def __init__(self) -> None:
        self.pages: dict[Digest, bytes] = {}
        self.contents: dict[Digest, bytes] = {}

    def honest(self, things: Sequence[tuple[Entry, bytes]]) -> Digest:
        """The manifest that the real builder makes; the entries themselves may be anything it takes."""
        self.give(things)
        entries = sorted((entry for entry, _ in things), key=lambda entry: sort_key(entry.path))
        return build(entries, self.pages.__setitem__)

    def leaf(self, things: Sequence[tuple[Entry, bytes]]) -> Digest:
        """One leaf page with these entries in this order, whatever they are."""
        self.give(things)
        return self.page(0, [entry for entry, _ in things])

    def page(self, level: int, items: Sequence[msgspec.Struct]) -> Digest:
        return self.raw(encode_page(level, items))

    def raw(self, page: bytes) -> Digest:
        digest = digest_of(page)
        self.pages[digest] = page
        return digest

    def inner(self, level: int, below: Sequence[tuple[bytes, Digest]]) -> Digest:
        return self.page(level, [Child(last, digest, 1, 1) for last, digest in below])

    def give(self, things: Sequence[tuple[Entry, bytes]]) -> None:
        self.contents.update((entry.digest, data) for entry, data in things if entry.kind is not Kind.DIR)


class HostileWriter(HostileHome):
    """Serves as ``node``, whose daemon was stopped. Everything public may be changed by the test at any time."""

    def __init__(self, node: Node, fileset: str = "data", version: int = m.VERSIONS.high) -> None:
        self.pki = Pki(node.directory / "pki")
        self.name = self.pki.name
        self.line = LineId(fileset_name(fileset), self.name)
        store = SqliteStore(node.directory / "state" / "node.db")
        try:
            newest = store.generations(self.line, 1)[0]
            self.epochs: tuple[SignedEpoch, ...] = tuple(store.epochs(self.line))
            self.definition = store.get_blob(newest.body().definition) or b""
            self.last = newest
        finally:
            store.close()
        self.number = self.last.body().number
        self.epoch = self.last.body().epoch
        self.craft = Craft()
        self.version = version
        self.head: m.Head | None = None
        self.offer: m.Offer | None = m.Offer(self.line, self.name, "mirror", "metadata")
        self.received: deque[m.StreamMessage] = deque(maxlen=1_000)
        self.asked: deque[str] = deque(maxlen=1_000)
        self.streams: dict[NodeName, PeerStream] = {}
        self._pings = Pings()
        self.on_heads: Callable[[m.HeadsRequest], m.HeadsReply] | None = None
        self.on_pages: Callable[[m.PagesRequest], m.PagesReply] | None = None
        self.on_contents: Callable[[m.ContentsRequest], Iterator[TransferAnswer]] | None = None
        self.on_raw: Callable[[], Iterator[bytes]] | None = None
        self.on_stream: Callable[[PeerStream], Coroutine[Any, Any, None]] | None = None
        self._looped = Looped()
        self._serving = self._looped.run(self._start(node.port))

    async def _start(self, port: int) -> asyncio.Task[None]:
        server = _Server(self, TlsContexts(self.pki), AllowList)
        server.bind("127.0.0.1", port)
        return asyncio.get_running_loop().create_task(server.serve())

    def close(self) -> None:
        async def stop() -> None:
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)

        self._looped.run(stop())
        self._looped.close()

    # Crafting -----------------------------------------------------------------------------------------------

    def generation(
        self,
        root: Digest,
        *,
        number: int | None = None,
        epoch: int | None = None,
        signer: Pki | None = None,
        definition: bytes | None = None,
        line: LineId | None = None,
        entries: int = 1_000,
    ) -> SignedGeneration:
        """A signed generation; the next number by default."""
        if number is None:
            number = self.number = self.number + 1
        line = line or self.line
        body = GenerationBody(
            version=1,
            fileset=line.fileset,
            origin=line.origin,
            epoch=self.epoch if epoch is None else epoch,
            number=number,
            parent=self.last.id,
            root=root,
            definition=Digest(blake3(self.definition if definition is None else definition).digest()),
            author="eve",
            message="",
            time_ms=wall_ms(),
            entries=entries,
            size_bytes=0,
        )
        unsigned = SignedGeneration(body.encoded(), UNSIGNED)
        return SignedGeneration(unsigned.raw, (signer or self.pki).sign(unsigned.id))

    def epoch_record(
        self, epoch: int, writer: str, *, signer: Pki | None = None, by_ca: bool = False, base: bytes = b""
    ) -> SignedEpoch:
        body = EpochBody(
            1,
            self.line.fileset,
            self.line.origin,
            epoch,
            node_name(writer),
            b"k" * 32,
            Digest(base or self.last.id),
        )
        unsigned = SignedEpoch(body.encoded(), UNSIGNED)
        pki = signer or self.pki
        return SignedEpoch(unsigned.raw, pki.sign_as_ca(unsigned.id) if by_ca else pki.sign(unsigned.id))

    def announce(self, signed: SignedGeneration, **fields: Any) -> HeadRef:
        """Make this the head that is sent to every partner, now and when asked."""
        self.announce_raw(signed, **fields)
        return signed.ref()

    def announce_raw(self, signed: SignedGeneration, **fields: Any) -> None:
        """As ``announce``, for a record that cannot be read."""
        fields.setdefault("definition", self.definition)
        fields.setdefault("epochs", self.epochs)
        self.head = m.Head(self.line, signed, writer=self.name, **fields)
        self.push(self.head)

    def publish(self, things: Sequence[tuple[Entry, bytes]]) -> HeadRef:
        """An honest generation."""
        self.on_heads = self.on_pages = self.on_contents = self.on_raw = None
        return self.announce(self.generation(self.craft.honest(things)))

    def push(self, message: m.StreamMessage) -> None:
        """Send to every connected partner."""
        self._looped.run(self._push(message))

    async def _push(self, message: m.StreamMessage) -> None:
        for stream in list(self.streams.values()):
            with contextlib.suppress(Exception):
                await stream.send(message)

    def push_raw(self, raw: bytes, *, times: int = 1, text: bool = False) -> None:
        """Send bytes that need not be a message."""

        async def work() -> None:
            for stream in list(self.streams.values()):
                assert isinstance(stream, SocketStream)
                with contextlib.suppress(Exception):
                    for _ in range(times):
                        await (stream._socket.send_str("x") if text else stream._socket.send_bytes(raw))

        self._looped.run(work())

    def await_streams(self, *names: str, timeout: float = 20.0) -> None:
        """Until these partners are connected and have taken all that was sent to them: each answers a ping. A stream
        that its partner is about to end does not count."""

        def do_answer() -> bool:
            found = [self.streams.get(NodeName(name)) for name in names]
            return all(each and self._looped.run(self._pings.is_answered(each)) for each in found)

        eventually(do_answer, timeout, lambda: f"answers of {names}: {self.streams}")

    # PeerService --------------------------------------------------------------------------------------------

    async def heads(self, who: NodeName, request: m.HeadsRequest) -> m.HeadsReply:
        self.asked.append("heads")
        if self.on_heads is not None:
            return self.on_heads(request)
        return m.HeadsReply((self.head,) if self.head is not None else ())

    async def pages(self, who: NodeName, request: m.PagesRequest) -> m.PagesReply:
        self.asked.append("pages")
        if self.on_pages is not None:
            return self.on_pages(request)
        found = [self.craft.pages[d] for d in request.digests if d in self.craft.pages]
        return m.PagesReply(tuple(found), error=None if found else m.ErrorReply("superseded", "gone"))

    async def chunk_pages(self, who: NodeName, request: m.ChunkPagesRequest) -> m.PagesReply:
        self.asked.append("chunk_pages")
        found = [self.craft.pages[d] for d in request.digests if d in self.craft.pages]
        return m.PagesReply(tuple(found), error=None if found else m.ErrorReply("superseded", "gone"))

    async def contents(self, who: NodeName, request: m.ContentsRequest) -> Iterator[TransferAnswer]:
        self.asked.append("contents")
        return self.on_contents(request) if self.on_contents is not None else self._contents(request)

    def entries_of(self, request: m.ContentsRequest) -> list[Entry]:
        """The entries that a request asks for."""
        return [
            decode_leaf(self.craft.pages[want.page], trusted=True)[position]
            for want in request.wants
            for position in want.positions
        ]

    def _contents(self, request: m.ContentsRequest) -> Iterator[TransferAnswer]:
        for index, entry in enumerate(self.entries_of(request)):
            yield TransferAnswer(index, AnswerStatus.WHOLE, 0, self.craft.contents[entry.digest])

    async def ranges(self, who: NodeName, request: m.RangesRequest) -> Iterator[TransferAnswer]:
        self.asked.append("ranges")
        return (
            TransferAnswer(index, AnswerStatus.PIECE, start, bytes(min(1 << 20, offset + length - start)))
            for index, (offset, length) in enumerate(request.ranges)
            for start in range(offset, offset + length, 1 << 20)
        )

    async def holdings(self, who: NodeName, request: m.HoldingsRequest) -> m.HoldingsReply:
        return m.HoldingsReply(tuple(False for _ in request.generations))

    async def facts(self, who: NodeName, request: m.FactsRequest) -> m.FactsReply:
        return m.FactsReply(())

    async def verify(self, who: NodeName, request: m.VerifyRequest) -> m.VerifyReply:
        raise RefusedError("eve verifies nothing")

    async def join(self, request: m.JoinRequest, address: str) -> m.JoinReply:
        raise RefusedError("eve invites no node")

    async def federate(self, request: m.FederateRequest, address: str) -> m.FederateReply:
        raise RefusedError("eve links no node")

    async def renew(self, who: NodeName, request: m.RenewRequest) -> m.RenewReply:
        raise RefusedError("eve renews nothing")

    async def stream(self, who: NodeName, hello: m.Hello, stream: PeerStream) -> None:
        self.asked.append("stream")
        await stream.send(m.Welcome(self.version, self.name, b"eve", wall_ms()))
        if self.on_stream is not None:
            await self.on_stream(stream)
            return
        if self.offer is not None:
            await stream.send(self.offer)
        if self.head is not None:
            await stream.send(self.head)
        self.streams[who] = stream
        self._pings.begun(stream)
        try:
            while (message := await stream.receive()) is not None:
                self.received.append(message)
                if isinstance(message, m.Ping):
                    await stream.send(m.Pong(message.number))
                elif isinstance(message, m.Pong):
                    self._pings.answered(message.number)
        finally:
            self._pings.ended(stream)
            if self.streams.get(who) is stream:
                del self.streams[who]


class _Server(PeerServer):
    """Writes what the hostile writer wants where an answer with contents belongs."""

    def __init__(self, writer: HostileWriter, *rest: Any) -> None:
        super().__init__(writer, *rest)
        self._writer = writer

    async def _send(
        self, request: web.BaseRequest, answers: Iterator[TransferAnswer], wanted: Any
    ) -> web.StreamResponse:
        raw = self._writer.on_raw
        if raw is None:
            return await super()._send(request, answers, wanted)
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        await response.prepare(request)
        for part in raw():
            await response.write(part)
        await response.write_eof()
        return response


class Victim:
    """A daemon that must come through: asked by its control socket, watched by its process."""

    def __init__(self, node: Node, root: Path, outside: Mapping[Path, object]) -> None:
        self.node = node
        self.root = root
        self.outside = outside
        pid = node.pid
        assert pid is not None
        self.pid = pid
        self.rss_at_first = self.rss_bytes()
        self._control = Control(node.directory / "control.sock")

    def call(self, command: str, **params: Any) -> dict[str, Any]:
        return self._control.call(command, params, timeout_s=60)

    def line(self, fileset: str = "data") -> dict[str, Any]:
        found: dict[str, Any] = next(
            each["lines"][0] for each in self.call("status")["filesets"] if each["name"] == fileset
        )
        return found

    def events(self, since_ms: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("events", since_ms=since_ms)["events"]
        return found

    def codes(self, since_ms: int) -> set[str]:
        """Every code that status or the events log name."""
        found = {str(event["code"]) for event in self.events(since_ms) if event.get("code")}
        found |= {str(event["what"]) for event in self.events(since_ms)}
        line = self.line()
        links = self.call("status").get("links", [])
        return found | {str(line["code"])} | {str(link["code"]) for link in links}

    def await_code(self, since_ms: int, *codes: str, timeout: float = 20.0) -> None:
        """Until one of these codes is named where the operator looks."""
        eventually(
            lambda: not self.codes(since_ms).isdisjoint(codes),
            timeout,
            lambda: f"one of {codes}: {self.line()} {self.events(since_ms)}\n{self.node.log()}",
        )

    def await_live(self, head: HeadRef, timeout: float = 20.0) -> None:
        eventually(
            lambda: (self.line()["live"] or {}).get("id") == head.id.hex(),
            timeout,
            lambda: f"{self.node.name} to serve {head.number}: {self.line()}\n{self.node.log()}",
        )

    def rss_bytes(self) -> int:
        for text in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if text.startswith("VmRSS:"):
                return int(text.split()[1]) * 1024
        raise AssertionError(f"{self.node.name} is gone\n{self.node.log()}")

    def recover(self) -> None:
        """After a test that failed: running again, so that the next test is about itself."""
        if self.node.pid is None:
            self.node.start()
        pid = self.node.pid
        assert pid is not None
        if pid != self.pid:
            self.pid = pid
            self.rss_at_first = self.rss_bytes()

    def assert_unharmed(self) -> None:
        """The same process, nothing changed outside the root, memory within bounds."""
        assert self.node.pid == self.pid, f"{self.node.name} did not stay up\n{self.node.log(60)}"
        for path, wanted in self.outside.items():
            assert look(path) == wanted, f"{path} was changed"
        grown = self.rss_bytes() - self.rss_at_first
        assert grown < 150 << 20, f"{self.node.name} grew by {grown >> 20} MiB"


def look(path: Path) -> object:
    """A tree outside, to be compared later: names, modes, owners, times, links and bytes."""
    found: dict[str, object] = {}
    for each in sorted([path, *path.rglob("*")]):
        about = each.lstat()
        what: object = (
            os.readlink(each) if each.is_symlink() else each.read_bytes() if each.is_file() else None
        )
        found[str(each)] = (about.st_mode, about.st_uid, about.st_mtime_ns, about.st_nlink, what)
    return found


def forged(signature: Signature) -> Signature:
    """The same signature with one bit turned."""
    value = bytes([signature.value[0] ^ 1]) + signature.value[1:]
    return msgspec.structs.replace(signature, value=value)


def frame(kind: int, size: int, stored: int) -> bytes:
    """The header of a frame of contents."""
    return struct.pack(">BII", kind, size, stored)
