"""The peer protocol between nodes of one process: real messages, encoded and decoded, over queues instead of TLS.

``Calls`` is ``PeerCalls`` on one side, the other node's ``PeerService`` the other side. ``cut`` and ``heal`` are what a
test does to a link.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import msgspec

from instep.errors import InstepError, NotAllowedError, PeerError, UnavailableError
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.net.messages.faults import error_of_reply, reply_of_error
from instep.net.service import Call, PeerService
from instep.net.transfer import FRAME_HEADER_BYTES, FrameHeader, FrameReader, TransferAnswer, frames

__all__ = ["Calls", "MemoryNet"]

HERE = "127.0.0.1"
Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


class MemoryNet:
    """Where each node serves, and which links are cut."""

    def __init__(self) -> None:
        self.serving: dict[str, tuple[NodeName, PeerService]] = {}
        self.broken: list[BaseException] = []
        """Errors that are not ours: a test that ends with one fails."""
        self.hosts: dict[NodeName, str] = {}
        """The addresses that connections of nodes come from; by default all are on this machine."""
        self.hung: set[tuple[NodeName, NodeName]] = set()
        """The first node gets no contents from the second, without an error; the stream goes on."""
        self.sent: Counter[frozenset[NodeName]] = Counter()
        """Bytes of calls and contents between two nodes, those of streams not counted."""
        self.heard: Callable[[NodeName, NodeName, bytes], None] = lambda *_: None
        """Called with the receiver, the sender and each message of a stream, answer or frame of contents."""
        self._cut: set[frozenset[NodeName]] = set()
        self._streams: dict[frozenset[NodeName], list[_End]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.pool = ThreadPoolExecutor(2, thread_name_prefix="memory-net")

    def cut(self, one: NodeName, other: NodeName) -> None:
        """End what runs between two nodes, and let neither reach the other."""
        self._cut.add(frozenset((one, other)))
        for end in self._streams.pop(frozenset((one, other)), []):
            end.breaks()

    def heal(self, one: NodeName, other: NodeName) -> None:
        self._cut.discard(frozenset((one, other)))

    def count(self, one: NodeName, other: NodeName, raw: bytes) -> bytes:
        self.sent[frozenset((one, other))] += len(raw)
        return raw

    def service(self, me: NodeName, name: NodeName, address: str) -> PeerService:
        """The partner that answers there; ``UnavailableError`` when none does."""
        found = self.serving.get(address)
        if found is None or frozenset((me, name)) in self._cut:
            raise UnavailableError(
                f"nothing listens at {address}", code="connection_refused", address=address
            )
        if found[0] != name:
            raise PeerError(f"{address} is {found[0]}, not {name}", code="wrong_name", address=address)
        return found[1]

    def pair(self, me: NodeName, name: NodeName) -> tuple[_End, _End]:
        """Both ends of a new stream."""
        ours, theirs = _End(name, self.hosts.get(name, HERE)), _End(me, self.hosts.get(me, HERE))
        ours.other, theirs.other = theirs, ours
        ours.heard = lambda raw: self.heard(name, me, raw)
        theirs.heard = lambda raw: self.heard(me, name, raw)
        ends = self._streams.setdefault(frozenset((me, name)), [])
        ends[:] = [end for end in ends if not end.is_over]
        ends += [ours, theirs]
        return ours, theirs

    def run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for ends in self._streams.values():
            for end in ends:
                end.breaks()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.pool.shutdown()


class _End:
    """One end of a stream, a ``PeerStream``; ``other`` is the peer's."""

    other: _End

    def __init__(self, peer: NodeName, address: str) -> None:
        self.address = address
        self._peer = peer
        self.heard: Callable[[bytes], None] = lambda _: None
        """Called with each message that leaves here."""
        self._arrived: asyncio.Queue[bytes | UnavailableError | None] = asyncio.Queue()
        self.is_over = False

    def breaks(self) -> None:
        """The connection is gone, without a goodbye."""
        self.is_over = True
        self._arrived.put_nowait(
            UnavailableError(f"the stream with {self._peer} broke", code="stream_broken", peer=self._peer)
        )

    async def send(self, message: m.StreamMessage) -> None:
        if self.is_over or self.other.is_over:
            raise UnavailableError(f"the stream with {self._peer} is closed", code="stream_broken")
        raw = m.encode(message)
        self.heard(raw)
        self.other._arrived.put_nowait(raw)
        await asyncio.sleep(0)

    async def receive(self) -> m.StreamMessage | None:
        raw = None if self.is_over and self._arrived.empty() else await self._arrived.get()
        if isinstance(raw, UnavailableError):
            raise raw
        return m.decode_stream(raw) if raw is not None else None

    async def close(self, reason: str) -> None:
        with contextlib.suppress(InstepError):
            await self.send(m.Goodbye(reason[:200]))
        if not self.is_over:
            self.is_over = True
            self._arrived.put_nowait(None)
            self.other._arrived.put_nowait(None)


class Calls:
    """The calls of one node to one partner."""

    def __init__(self, net: MemoryNet, me: NodeName, name: NodeName, address: str) -> None:
        self.name = name
        self.address = address
        self._net = net
        self._me = me

    async def close(self) -> None:
        """Holds nothing."""

    async def call(self, call: Call[Q, R], request: Q, *, total_s: float = 120.0) -> R:
        async with asyncio.timeout(total_s):
            with self._answered():
                reply = await self._asked(call.path, request)
                raw = self._counted(m.encode(reply))
                self._net.heard(self._me, self.name, raw)
                return call.checked(self.name, request, m.decode(raw, call.reply, limit=call.bytes_max))

    def contents(
        self, request: m.ContentsRequest, *, sizes: Sequence[int] | None = None
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        spans = None if sizes is None else [(0, size) for size in sizes]
        return self._transfer("contents", request, FrameReader(request.count, spans))

    def ranges(self, request: m.RangesRequest) -> AsyncGenerator[list[TransferAnswer], None]:
        return self._transfer("ranges", request, FrameReader(len(request.ranges), request.ranges))

    async def submit(self, request: m.SubmitRequest, contents: Iterator[TransferAnswer]) -> m.SubmitReply:
        service = self._net.service(self._me, self.name, self.address)
        asked = m.decode(self._counted(m.encode(request)), m.SubmitRequest, limit=m.SUBMIT_BYTES_MAX)
        with self._answered():
            reply = await service.submit(self._me, asked, self._uploaded(asked, contents))
        return m.decode(m.encode(reply), m.SubmitReply, limit=m.SUBMIT_BYTES_MAX)

    async def _uploaded(
        self, request: m.SubmitRequest, contents: Iterator[TransferAnswer]
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        """Contents as the home reads them, in frames."""
        loop = asyncio.get_running_loop()
        reader = FrameReader(len(request.contents), [(0, size) for _, size in request.contents])
        packed = frames(contents, may_compress=True)
        while not reader.is_finished:
            self._net.service(self._me, self.name, self.address)
            raw = self._counted(b"".join(await loop.run_in_executor(self._net.pool, next, packed)))
            taken = reader.take(FrameHeader.parse(raw[:FRAME_HEADER_BYTES]), raw[FRAME_HEADER_BYTES:])
            if taken:
                yield taken

    async def _asked(self, what: str, request: msgspec.Struct) -> Any:
        service = self._net.service(self._me, self.name, self.address)
        raw = self._counted(m.encode(request))
        return await getattr(service, what)(self._me, m.decode(raw, type(request)))

    def _counted(self, raw: bytes) -> bytes:
        return self._net.count(self._me, self.name, raw)

    @contextlib.contextmanager
    def _answered(self) -> Iterator[None]:
        """An error of the other node as the error reply that the wire carries."""
        try:
            yield
        except InstepError as error:
            raise self._carried(error) from error
        except Exception as error:
            self._net.broken.append(error)
            raise

    def _carried(self, error: InstepError) -> InstepError:
        return error_of_reply(m.decode(m.encode(reply_of_error(error)), m.ErrorReply), self.name)

    async def _transfer(
        self, what: str, request: msgspec.Struct, reader: FrameReader
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        loop = asyncio.get_running_loop()
        with self._answered():
            answers: Iterator[TransferAnswer] = await self._asked(what, request)
        packed = frames(answers, may_compress=True)
        try:
            while not reader.is_finished:
                if (self._me, self.name) in self._net.hung:
                    await asyncio.Event().wait()
                with self._answered():
                    self._net.service(self._me, self.name, self.address)
                    frame = await loop.run_in_executor(self._net.pool, next, packed)
                raw = self._counted(b"".join(frame))
                self._net.heard(self._me, self.name, raw)
                taken = reader.take(FrameHeader.parse(raw[:FRAME_HEADER_BYTES]), raw[FRAME_HEADER_BYTES:])
                if taken:
                    yield taken
        finally:
            close = getattr(answers, "close", None)
            if close is not None:
                await loop.run_in_executor(self._net.pool, close)

    @contextlib.asynccontextmanager
    async def stream(self, hello: m.Hello) -> AsyncIterator[tuple[m.Welcome, _End]]:
        service = self._net.service(self._me, self.name, self.address)
        ours, theirs = self._net.pair(self._me, self.name)
        self._net.run(self._serve(service, theirs))
        await ours.send(hello)
        try:
            first = await ours.receive()
            if isinstance(first, m.ErrorReply):
                raise error_of_reply(first, self.name)
            if not isinstance(first, m.Welcome):
                raise UnavailableError(f"{self.name} closed the stream", code="stream_broken")
            yield first, ours
        finally:
            await ours.close("closing")

    async def _serve(self, service: PeerService, stream: _End) -> None:
        """The server's side, as ``PeerServer`` does it."""
        try:
            hello = await stream.receive()
            assert isinstance(hello, m.Hello)
            if hello.name != self._me:
                raise NotAllowedError(f"{self._me} says that it is {hello.name}", code="bad_identity")
            m.agree(m.VERSIONS, hello.versions)
            await service.stream(self._me, hello, stream)
            await stream.close("done")
        except InstepError as error:
            with contextlib.suppress(InstepError):
                await stream.send(reply_of_error(error))
            await stream.close(error.error_code)
        except Exception as error:  # noqa: BLE001 - the edge: the test sees it at its end
            self._net.broken.append(error)
            await stream.close("unexpected")
