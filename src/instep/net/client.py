"""Dialling a peer. Implements the client side of ``docs/spec/wire.md``; mirrors ``PeerService``.

Every call has deadlines: 10 s to connect, 60 s of silence, and a total by the caller, or else one for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from instep.errors import InstepError, NotAllowedError, PeerError, UnavailableError
from instep.model.ids import NodeName
from instep.net.connections.dial import IDLE_S, Line, split_address
from instep.net.connections.presented import trust_fetch
from instep.net.connections.stream import SocketStream
from instep.net.connections.tls import TlsContexts, joining_context, pinning_context
from instep.net.messages import messages
from instep.net.messages.faults import error_of_reply
from instep.net.service import Call
from instep.net.transfer import FRAME_HEADER_BYTES, FrameHeader, FrameReader, TransferAnswer
from instep.net.trust.certs import fingerprint_bytes
from instep.net.trust.tokens import Invitation
from instep.net.upload import upload_body

TOTAL_S = 120.0
SUBMIT_S = 600.0
"""The longest that a home may take to decide about changes whose contents have arrived."""
_FRAME_S = 600.0
"""The longest that one frame of contents may take: a peer that drips bytes holds an apply no longer."""
_UNPACK_IN_THREAD_OVER = 256 << 10

_Q = TypeVar("_Q", bound=msgspec.Struct)
_R = TypeVar("_R", bound=msgspec.Struct)
_Answer = TypeVar("_Answer")


class PeerClient:
    """Calls to one partner. Use within one event loop; ``close`` when done. TLS verifies the name; the
    address is only where to dial."""

    def __init__(self, tls: TlsContexts, name: NodeName, address: str) -> None:
        self.name = name
        self.address = address
        self._tls = tls
        self._line = Line(name, address)

    async def close(self) -> None:
        await self._line.close()

    async def call(self, call: Call[_Q, _R], request: _Q, *, total_s: float = TOTAL_S) -> _R:
        context = self._tls.client_for(self.name)
        reply = await self._line.call(
            call.path, request, call.reply, context, limit=call.bytes_max, total_s=total_s
        )
        return call.checked(self.name, request, reply)

    def contents(
        self, request: messages.ContentsRequest, *, sizes: Sequence[int] | None = None
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        """Answers in batches as they come, about 1 MiB each, memory bounded by one frame. ``sizes`` are the
        entries' sizes: more than that is refused. Close the iterator (``aclosing``) to stop early."""
        spans = None if sizes is None else [(0, size) for size in sizes]
        return self._transfer("contents", request, request.count, spans)

    def ranges(self, request: messages.RangesRequest) -> AsyncGenerator[list[TransferAnswer], None]:
        """Like ``contents``; ``want`` is the range's index and ``offset`` the place in the file."""
        return self._transfer("ranges", request, len(request.ranges), request.ranges)

    async def submit(
        self, request: messages.SubmitRequest, contents: Iterator[TransferAnswer]
    ) -> messages.SubmitReply:
        """Send changes with those contents that the home lacks; the answer comes when the home has decided."""
        context = self._tls.client_for(self.name)
        body = upload_body(request, contents)
        try:
            return await self._line.call(
                "submit",
                request,
                messages.SubmitReply,
                context,
                limit=messages.SUBMIT_BYTES_MAX,
                total_s=None,
                body=body,
                read_s=SUBMIT_S,
            )
        finally:
            # A connection that is cut ends the task that reads the body a moment later: it closes it itself then.
            with contextlib.suppress(RuntimeError):
                await body.aclose()

    async def _transfer(
        self, what: str, request: msgspec.Struct, count: int, spans: Sequence[tuple[int, int]] | None
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        reader = FrameReader(count, spans)
        async with self._line.post(what, request, self._tls.client_for(self.name), None) as response:
            content = response.content
            try:
                while not reader.is_finished:
                    async with asyncio.timeout(_FRAME_S):
                        header = FrameHeader.parse(await content.readexactly(FRAME_HEADER_BYTES))
                        stored = (
                            await content.readexactly(header.stored_bytes) if header.stored_bytes else b""
                        )
                    if header.is_error:
                        raise error_of_reply(messages.decode(stored, messages.ErrorReply), self.name)
                    if header.is_end or header.raw_bytes == header.stored_bytes:
                        answers = reader.take(header, stored)
                    elif header.raw_bytes > _UNPACK_IN_THREAD_OVER:
                        answers = await asyncio.to_thread(reader.take, header, stored)
                    else:
                        answers = reader.take(header, stored)
                    if answers:
                        yield answers
                if await content.readany():  # reading to the end also lets the connection be used again
                    raise PeerError(f"{self.name} sent more than its answer", code="bad_frame")
            except asyncio.IncompleteReadError as error:
                raise UnavailableError(
                    f"{self.name} at {self.address} broke off in the middle of an answer",
                    code="cut_short",
                    address=self.address,
                ) from error

    @contextlib.asynccontextmanager
    async def stream(self, hello: messages.Hello) -> AsyncIterator[tuple[messages.Welcome, SocketStream]]:
        """The long-lived stream: says hello, checks the welcome, and closes on the way out."""
        async with self._line.socket("stream", self._tls.client_for(self.name)) as opened:
            stream = SocketStream(opened, self.name)
            await stream.send(hello)
            try:
                async with asyncio.timeout(IDLE_S):
                    first = await stream.receive()
            except TimeoutError as error:
                raise UnavailableError(f"{self.name} did not welcome us in time", code="timed_out") from error
            if isinstance(first, messages.ErrorReply):
                raise error_of_reply(first, self.name)
            if first is None or isinstance(first, messages.Goodbye):
                raise UnavailableError(f"{self.name} closed the stream", code="stream_broken")
            if not isinstance(first, messages.Welcome) or first.name != self.name:
                raise PeerError(f"{self.name} did not begin its stream with a welcome", code="bad_message")
            if not messages.VERSIONS.low <= first.version <= messages.VERSIONS.high:
                raise PeerError(
                    f"{self.name} chose version {first.version}, which this node does not speak",
                    code="version",
                )
            try:
                yield first, stream
            finally:
                await stream.close("closing")


async def join_cluster(
    invitation: Invitation,
    tls_csr: bytes,
    sign_csr: bytes,
    *,
    address: str = "",
    total_s: float = 60.0,
) -> tuple[messages.JoinReply, str]:
    """Turn a token into certificates: try its addresses in turn, recognise the CA by the token's fingerprint,
    then ask over a connection that this CA vouches for. Also returns the address that answered."""
    request = messages.JoinRequest(
        versions=messages.VERSIONS,
        name=invitation.name,
        token_id=invitation.token_id,
        secret=invitation.secret,
        tls_csr=tls_csr,
        sign_csr=sign_csr,
        address=address,
    )
    return await _first_answer(invitation, lambda tried: _join_at(tried, invitation, request, total_s))


@dataclass(frozen=True, slots=True)
class Federated:
    """The inviting node of another cluster: its answer, its certificates, and the address that answered."""

    reply: messages.FederateReply
    chain: tuple[bytes, ...]
    address: str


async def federate(
    invitation: Invitation, request: messages.FederateRequest, *, total_s: float = 60.0
) -> Federated:
    """Use a token of a node of another cluster: the key that answers must be the one in the token."""
    (reply, chain), tried = await _first_answer(
        invitation, lambda tried: _federate_at(tried, invitation, request, total_s)
    )
    if reply.inviter != invitation.inviter or reply.sign_key != invitation.sign_key:
        raise PeerError(
            f"{invitation.inviter} signs with another key than the one in its token",
            hint=f"make a new token, on {invitation.inviter}: instep invite {invitation.name}",
            code="wrong_key",
            node=invitation.inviter,
        )
    return Federated(reply, chain, tried)


async def _first_answer(
    invitation: Invitation, ask: Callable[[str], Awaitable[_Answer]]
) -> tuple[_Answer, str]:
    """The answer of the first of the token's addresses that has one, and that address."""
    trouble: InstepError | None = None
    for tried in invitation.addresses:
        try:
            return await ask(tried), tried
        except UnavailableError as error:
            trouble = error
        except NotAllowedError as error:
            if not error.error_code.startswith("refused_by_peer"):
                raise
            trouble = error
    assert trouble is not None, "a token without addresses"
    raise trouble


async def _federate_at(
    tried: str, invitation: Invitation, request: messages.FederateRequest, total_s: float
) -> tuple[messages.FederateReply, tuple[bytes, ...]]:
    chain: list[bytes] = []
    context = pinning_context(invitation.pin, lambda seen: chain.extend(seen))
    line = Line(invitation.inviter, tried)
    try:
        kind, limit = messages.FederateReply, messages.REQUEST_BYTES_MAX
        reply = await line.call("federate", request, kind, context, limit=limit, total_s=total_s)
        return reply, tuple(chain)
    finally:
        await line.close()


async def _join_at(
    tried: str, invitation: Invitation, request: messages.JoinRequest, total_s: float
) -> messages.JoinReply:
    host, port = split_address(tried)
    chain = await asyncio.to_thread(trust_fetch, host, port, server_name=invitation.inviter)
    authority = next((c for c in chain.certificates if fingerprint_bytes(c) == invitation.ca), None)
    if authority is None:
        raise NotAllowedError(
            f"{tried} does not belong to the cluster that made this token",
            hint="another program answers at this address, or the cluster was made anew: make a new token",
            code="wrong_cluster",
            address=tried,
        )
    line = Line(invitation.inviter, tried)
    try:
        return await line.call(
            "join",
            request,
            messages.JoinReply,
            joining_context(authority),
            limit=messages.REQUEST_BYTES_MAX,
            total_s=total_s,
        )
    finally:
        await line.close()
