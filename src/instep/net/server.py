"""The peer server: HTTP over mutual TLS under ``/peer/v1/``. Implements "Requests" of ``docs/spec/wire.md``.

Everything a peer can do wrong ends in one of our errors with a code; nothing it sends is unbounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from instep.errors import InstepError, NotAllowedError, PeerError, UnavailableError
from instep.model.address import Address
from instep.model.ids import NodeName
from instep.net.connections.allow import AllowList
from instep.net.connections.listener import Limits, Listener, Refusal
from instep.net.connections.stream import HEARTBEAT_S, SocketStream
from instep.net.connections.tls import PeerIdentity, TlsContexts
from instep.net.messages import messages
from instep.net.messages.faults import reply_of_error
from instep.net.replies import CONTENT_TYPE, first_of, refusal, reply, still_at_work, told
from instep.net.service import CALLS, PeerService
from instep.net.task_group import TaskGroup
from instep.net.transfer import TokenBucket, TransferAnswer, error_frame, frames
from instep.net.upload import Upload

_GRACE_S = 3.0
_WRITE_BYTES = 256 << 10
"""Written at once: 1 MiB pieces cost uvloop's TLS twice the CPU."""
_SLICE_BYTES_MIN = 4_096

_log = logging.getLogger("instep.net")
_http_log = logging.getLogger("instep.net.http")
"""aiohttp's own words about malformed requests: kept apart, since any stranger can cause them."""

_UNKNOWN: dict[str, type[msgspec.Struct]] = {
    "join": messages.JoinRequest,
    "federate": messages.FederateRequest,
}
"""Requests of nodes that this one does not know yet: without a client certificate, with a token."""

_Transfer = Callable[[NodeName, Any], Awaitable[Iterator[TransferAnswer]]]


class _Connection:
    """The record of one connection: its peer, and when it last did something."""

    def __init__(self, transport: asyncio.Transport, now_s: float) -> None:
        self.transport = transport
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else "unknown"
        self.since_s = now_s
        self.busy = 0
        self.has_asked = False
        self.identity: PeerIdentity | None = None


class _Http(web.Server):
    """aiohttp's protocol factory, which reports connections to us."""

    def __init__(self, owner: PeerServer, **options: Any) -> None:
        super().__init__(owner._handle, **options)
        self._owner = owner

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._owner._made(handler, transport)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._owner._lost(handler)


class PeerServer:
    """``bind``, then ``serve`` until cancelled. ``tls`` and ``allow`` are read anew for each connection;
    after a change of trust call ``drop_untrusted``."""

    def __init__(
        self,
        service: PeerService,
        tls: TlsContexts,
        allow: Callable[[], AllowList],
        *,
        limits: Limits | None = None,
        rate_bytes_s: Callable[[], int | None] = lambda: None,
        on_refused: Callable[[Refusal], None] = lambda _: None,
    ) -> None:
        self.at: Address | None = None
        """Where it listens, None before that."""
        self._service = service
        self._tls = tls
        self._allow = allow
        self._limits = limits or Limits()
        self._rate = rate_bytes_s
        self._bucket: tuple[int, TokenBucket] | None = None
        self._connections: dict[RequestHandler, _Connection] = {}
        self._streams: set[SocketStream] = set()
        self._transfers: Counter[NodeName] = Counter()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="instep-contents")
        self._http: _Http | None = None
        self._on_refused = on_refused
        self._listener = Listener(self._protocol, lambda: tls.server, allow, self._limits, on_refused)
        self._downloads: dict[str, tuple[type[msgspec.Struct], _Transfer]] = {
            "contents": (messages.ContentsRequest, service.contents),
            "ranges": (messages.RangesRequest, service.ranges),
        }

    def bind(self, host: str, port: int) -> list[tuple[str, int]]:
        """Listen; the addresses that were bound (port 0 picks one). ``ResourceError`` ``cannot_listen``."""
        self.at = Address(host, port)
        return self._listener.bind(host, port)

    async def move(self, at: Address) -> None:
        """Listen there from now on. ``ResourceError`` when that cannot be: it listens where it did."""
        await self._listener.move(at.host, at.port)
        self.at = at

    async def serve(self) -> None:
        """Serve until cancelled, then give what is under way a short grace."""
        self._http = _Http(
            self,
            keepalive_timeout=self._limits.idle_s,
            access_log=None,
            logger=_http_log,
            auto_decompress=False,
            lingering_time=1.0,
        )
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(self._listener.serve())
                tasks.create_task(self._sweep())
        finally:
            self._listener.close()
            async with TaskGroup() as goodbyes:
                for stream in list(self._streams):
                    goodbyes.create_task(stream.close("stopping"))
            await self._http.shutdown(_GRACE_S)
            self._threads.shutdown(wait=False, cancel_futures=True)

    def drop(self, name: NodeName) -> int:
        """Cut the open connections of a node; how many."""
        return self._cut(lambda each: each.identity is not None and each.identity.name == name)

    def drop_untrusted(self) -> int:
        """Cut the connections whose certificate was revoked, has expired or is no longer known."""
        is_good = self._tls.trust.is_good
        return self._cut(lambda each: each.identity is not None and not is_good(each.identity))

    def drop_disallowed(self) -> int:
        """Cut the connections from addresses that the allow list does not name any more."""
        allowed = self._allow()
        return self._cut(lambda each: not allowed.lets(each.address))

    def _cut(self, rule: Callable[[_Connection], bool]) -> int:
        found = [each for each in self._connections.values() if rule(each)]
        for connection in found:
            connection.transport.abort()
        return len(found)

    # Connections --------------------------------------------------------------------------------------------

    def _protocol(self) -> asyncio.Protocol:
        assert self._http is not None
        return self._http()

    def _made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        self._connections[handler] = _Connection(transport, asyncio.get_running_loop().time())

    def _lost(self, handler: RequestHandler) -> None:
        connection = self._connections.pop(handler, None)
        if connection is not None:
            self._listener.connection_lost(connection.address)

    async def _sweep(self) -> None:
        """Cut what is half-open, idle, or no longer trusted."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._limits.sweep_s)
            now_s = loop.time()
            for connection in list(self._connections.values()):
                limit_s = self._limits.idle_s if connection.has_asked else self._limits.first_request_s
                if connection.busy == 0 and now_s - connection.since_s > limit_s:
                    connection.transport.abort()
            self.drop_untrusted()

    def _identify(self, connection: _Connection) -> PeerIdentity:
        if connection.identity is None:
            secure = connection.transport.get_extra_info("ssl_object")
            assert secure is not None, "a peer connection without TLS"
            try:
                connection.identity = self._tls.identify(secure)
            except NotAllowedError as error:
                if error.error_code == "key_changed":
                    self._on_refused(Refusal(connection.address, "key_changed", error.reason))
                raise
        else:
            self._tls.trust.check(connection.identity)
        return connection.identity

    # Requests -----------------------------------------------------------------------------------------------

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = self._connections.get(request.protocol)
        if connection is None:  # lost between parsing and handling
            raise ConnectionResetError("the connection is gone")
        connection.busy += 1
        connection.has_asked = True
        try:
            return await self._dispatch(request, connection)
        except InstepError as error:
            return refusal(error)
        except ConnectionError:
            connection.transport.abort()  # a begun reply cannot be ended in another way
            return web.Response(status=500)
        except Exception as error:  # noqa: BLE001 - the edge: one request must not end the server
            _log.exception("request %s of %s failed", request.path, connection.address)
            return refusal(error)
        finally:
            connection.busy -= 1
            connection.since_s = asyncio.get_running_loop().time()

    async def _dispatch(self, request: web.BaseRequest, connection: _Connection) -> web.StreamResponse:
        what = request.path.removeprefix(messages.PREFIX) if request.path.startswith(messages.PREFIX) else ""
        method = "GET" if what == "stream" else "POST"
        known = what in CALLS or what in self._downloads or what in (*_UNKNOWN, "stream", "submit")
        if not known or request.method != method:
            raise PeerError(f"there is no {request.method} {request.path[:200]}", code="unknown_request")
        theirs = messages.versions_of_header(request.headers.get(messages.VERSION_HEADER))
        messages.agree(messages.VERSIONS, theirs)
        if what in _UNKNOWN:
            call, kind = getattr(self._service, what), _UNKNOWN[what]
            first = messages.decode(await self._body(request, messages.JOIN_BYTES_MAX), kind)
            return reply(await call(first, connection.address))
        who = self._identify(connection)
        if (
            what != "renew"
        ):  # a node whose certificate has expired may ask for a new one, and for nothing else
            self._tls.trust.require_current(who, is_dialled=False)
        if what == "stream":
            return await self._stream(request, who, connection.address)
        if what in CALLS:
            asked = messages.decode(await self._body(request), CALLS[what].request)
            with still_at_work(request, self._limits.works_s):
                return reply(await getattr(self._service, what)(who.name, asked))
        if what == "submit":
            async with self._slot(who.name):
                with still_at_work(request, self._limits.works_s):
                    return await self._submit(request, who.name)
        kind, transfer = self._downloads[what]
        wanted = messages.decode(await self._body(request), kind)
        async with self._slot(who.name):
            return await self._send(request, await transfer(who.name, wanted), wanted)

    async def _body(self, request: web.BaseRequest, limit: int = messages.REQUEST_BYTES_MAX) -> bytes:
        parts = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_s):
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > limit:
                        raise PeerError("the request is too large", code="too_large", limit=limit)
                    parts.append(part)
        except TimeoutError as error:
            raise PeerError("the request came too slowly", code="too_slow") from error
        return b"".join(parts)

    async def _stream(self, request: web.BaseRequest, who: PeerIdentity, address: str) -> web.StreamResponse:
        socket = web.WebSocketResponse(
            heartbeat=HEARTBEAT_S,
            max_msg_size=messages.MESSAGE_BYTES_MAX,
            compress=False,
            timeout=2.0,
        )
        if not socket.can_prepare(request):
            raise PeerError("the stream is a WebSocket", code="unknown_request")
        await socket.prepare(request)
        stream = SocketStream(socket, who.name, address)
        try:
            hello = await first_of(stream)
            if not isinstance(hello, messages.Hello):
                raise PeerError("a stream begins with hello", code="bad_message")
            if hello.name != who.name:
                raise NotAllowedError(
                    f"{who.name} says that it is {hello.name}", code="bad_identity", name=who.name
                )
            messages.agree(messages.VERSIONS, hello.versions)
            self._streams.add(stream)
            await self._service.stream(who.name, hello, stream)
            await stream.close("done")
        except InstepError as error:
            await told(stream, error, error.error_code)
        except Exception as error:  # noqa: BLE001 - the edge: one stream must not end the server
            _log.exception("the stream of %s failed", who.name)
            await told(stream, error, "unexpected")
        finally:
            self._streams.discard(stream)
        return socket

    # Transfers ----------------------------------------------------------------------------------------------

    async def _submit(self, request: web.BaseRequest, who: NodeName) -> web.StreamResponse:
        """Changes that a peer made elsewhere; their contents are read as the service takes them."""
        upload = Upload(request.content, self._limits.body_s, self._limits.write_s)
        submitted = await upload.request()
        answer = reply(await self._service.submit(who, submitted, upload.contents(submitted)))
        if not upload.is_finished:
            answer.force_close()  # the rest of the contents was not wanted
        return answer

    @contextlib.asynccontextmanager
    async def _slot(self, who: NodeName) -> AsyncIterator[None]:
        limits = self._limits
        if self._transfers.total() >= limits.transfers or self._transfers[who] >= limits.transfers_per_peer:
            raise UnavailableError("too many transfers at once", code="busy", hint="it is asked again later")
        self._transfers[who] += 1
        try:
            yield
        finally:
            self._transfers[who] -= 1

    async def _send(
        self, request: web.BaseRequest, answers: Iterator[TransferAnswer], wanted: Any
    ) -> web.StreamResponse:
        """Frames to the peer, each made in a thread while the one before it leaves."""
        loop = asyncio.get_running_loop()
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE})
        packed = frames(answers, may_compress=wanted.may_compress)
        made = loop.run_in_executor(self._threads, next, packed, None)
        try:
            async with asyncio.timeout(self._limits.write_s):
                await response.prepare(request)
            while True:
                try:
                    frame = await made
                except InstepError as error:
                    frame = [error_frame(messages.encode(reply_of_error(error)))]
                    await self._write(response, frame)
                    break
                if frame is None:
                    break
                made = loop.run_in_executor(self._threads, next, packed, None)
                await self._write(response, frame)
            async with asyncio.timeout(self._limits.write_s):
                await response.write_eof()
        except TimeoutError as error:
            raise ConnectionResetError("the peer does not read") from error
        finally:
            if not made.done():
                with contextlib.suppress(Exception):
                    await made
            close = getattr(answers, "close", None)
            if close is not None:
                await loop.run_in_executor(self._threads, close)
        return response

    async def _write(self, response: web.StreamResponse, frame: list[bytes | memoryview]) -> None:
        rate = self._rate()
        for part in frame:
            if not rate:
                view = memoryview(part)
                async with asyncio.timeout(self._limits.write_s):
                    for start in range(0, len(view), _WRITE_BYTES):
                        await response.write(view[start : start + _WRITE_BYTES])
                continue
            step = max(_SLICE_BYTES_MIN, rate // 4)  # small steps: the reader must not think that we died
            view = memoryview(part)
            for start in range(0, len(view), step):
                piece = view[start : start + step]
                await asyncio.sleep(self._throttle(rate, len(piece)))
                async with asyncio.timeout(self._limits.write_s):
                    await response.write(bytes(piece))

    def _throttle(self, rate: int, size_bytes: int) -> float:
        now_s = asyncio.get_running_loop().time()
        if self._bucket is None or self._bucket[0] != rate:
            self._bucket = (rate, TokenBucket(rate, now_s))
        return self._bucket[1].take(size_bytes, now_s)
