"""One HTTP session to one node: where to dial, which name TLS verifies, and the meaning of every failure.

Implements the client side of "Requests" and "Errors" of ``docs/spec/wire.md``. Every exception of the libraries
below becomes one of ours here, saying which address, and for refusals, which side refused.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self, TypeVar

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from backports import zstd

from instep.errors import InstepError, PeerError, UsageError
from instep.model.ids import NodeName
from instep.net.connections.stream import HEARTBEAT_S
from instep.net.connections.tls_errors import translated_tls_error
from instep.net.messages import messages
from instep.net.messages.faults import error_of_reply
from instep.net.transfer import decompressed

CONNECT_S = 10.0
IDLE_S = 60.0
ANSWER_S = 3_900.0
"""The longest that a request without a total waits for its answer, however often the other side says that it is at
work: a home decides about changes within an hour."""
PIECE_S = 600.0
"""The longest that one piece of a body may take to be made and sent."""
_READ_BYTES = 1 << 20
_ERROR_BYTES_MAX = 64 << 10

_R = TypeVar("_R", bound=msgspec.Struct)


def split_address(text: str) -> tuple[str, int]:
    """``host:port``, IPv6 in brackets; ``UsageError`` ``bad_address`` otherwise."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise UsageError(f"{text!r} is not HOST:PORT", code="bad_address", address=text)
    return host, int(port)


class _Fixed(AbstractResolver):
    """Resolves a node's name to the address by which it is dialled, so that TLS verifies the name."""

    def __init__(self, host: str) -> None:
        self._host = host

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(
            self._host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Holds nothing."""


class _Patience:
    """Waits for an answer: so long after its last step, and no longer. None waits as long as others allow."""

    def __init__(self, answer_s: float | None) -> None:
        self._answer_s = answer_s
        self._limit = asyncio.timeout(answer_s)
        self._is_waiting = False

    async def __aenter__(self) -> Self:
        await self._limit.__aenter__()
        self._is_waiting = True
        return self

    async def __aexit__(self, *error: Any) -> None:
        self._is_waiting = False  # the answer may come before the body is sent
        await self._limit.__aexit__(*error)

    def stepped(self, *, is_last: bool) -> None:
        """A piece of the body is due, or the body has ended."""
        if self._is_waiting and self._answer_s is not None and not self._limit.expired():
            within_s = self._answer_s if is_last else PIECE_S
            self._limit.reschedule(asyncio.get_running_loop().time() + within_s)


class _Watched:
    """A body whose every step counts."""

    def __init__(self, body: AsyncIterator[bytes], patience: _Patience) -> None:
        self._body, self._patience = body, patience

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self._patience.stepped(is_last=False)
        try:
            return await anext(self._body)
        except StopAsyncIteration:
            self._patience.stepped(is_last=True)
            raise


class Line:
    """One HTTP session to one node at one address."""

    def __init__(self, name: NodeName, address: str) -> None:
        self.name = name
        self.address = address
        host, self._port = split_address(address)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=_Fixed(host), limit=16, keepalive_timeout=60.0, use_dns_cache=False
            ),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={messages.VERSION_HEADER: str(messages.VERSIONS)},
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept"),
            read_bufsize=_READ_BYTES,
            trust_env=False,
        )

    def url(self, what: str) -> str:
        return f"https://{self.name}:{self._port}{messages.PREFIX}{what}"

    @contextlib.asynccontextmanager
    async def post(
        self,
        what: str,
        message: msgspec.Struct,
        context: ssl.SSLContext,
        total_s: float | None,
        *,
        body: AsyncIterator[bytes] | None = None,
        read_s: float = IDLE_S,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, headers read; a refusal is raised as the error that the peer sent. ``body`` is sent instead of
        the message alone; ``read_s`` bounds the silence before the answer and in it. Without ``total_s`` the answer
        begins within ``ANSWER_S`` after the body."""
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S, sock_read=read_s)
        with self.translated(what):
            async with _Patience(None if total_s is not None else ANSWER_S) as patience:
                response = await self._session.post(
                    self.url(what),
                    data=_Watched(body, patience) if body is not None else _body(messages.encode(message)),
                    ssl=context,
                    timeout=timeout,
                    allow_redirects=False,
                )
            async with response:
                if response.status != 200:
                    raise await self._refusal(response)
                yield response

    async def call(
        self,
        what: str,
        message: msgspec.Struct,
        kind: type[_R],
        context: ssl.SSLContext,
        *,
        limit: int,
        total_s: float | None,
        body: AsyncIterator[bytes] | None = None,
        read_s: float = IDLE_S,
    ) -> _R:
        async with self.post(what, message, context, total_s, body=body, read_s=read_s) as response:
            async with asyncio.timeout(None if total_s is not None else ANSWER_S):
                raw = await _bounded(response, limit)
            if response.headers.get(messages.ZSTD_HEADER) == "1":
                raw = self._unpacked(raw, limit)
            return messages.decode(raw, kind, limit=limit)

    def _unpacked(self, stored: bytes, limit: int) -> bytes:
        try:
            raw = decompressed(stored, limit)
        except zstd.ZstdError as error:
            raise PeerError(f"the answer does not decompress: {error}", code="bad_message") from error
        if raw is None:
            raise PeerError("the answer does not decompress to its limit", code="too_large", limit=limit)
        return raw

    @contextlib.asynccontextmanager
    async def socket(
        self, what: str, context: ssl.SSLContext
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse[bool]]:
        with self.translated(what):
            async with asyncio.timeout(CONNECT_S + IDLE_S):
                opened = await self._session.ws_connect(
                    self.url(what),
                    ssl=context,
                    heartbeat=HEARTBEAT_S,
                    max_msg_size=messages.MESSAGE_BYTES_MAX,
                    compress=0,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        try:
            yield opened
        finally:
            await opened.close()

    async def close(self) -> None:
        await self._session.close()

    async def _refusal(self, response: aiohttp.ClientResponse) -> InstepError:
        try:
            reply = messages.decode(await _bounded(response, _ERROR_BYTES_MAX), messages.ErrorReply)
        except PeerError:
            return PeerError(
                f"{self.name} at {self.address} answered {response.status}: is that an instep node?",
                code="bad_answer",
                address=self.address,
                status=response.status,
            )
        return error_of_reply(reply, self.name)

    @contextlib.contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Library exceptions as ours."""
        try:
            yield
        except InstepError:
            raise
        except aiohttp.WSServerHandshakeError as error:
            told = _told(error, self.name)
            if told is not None:
                raise told from error
            raise PeerError(
                f"{self.name} at {self.address} refused the stream (status {error.status})",
                code="stream_refused",
                address=self.address,
                status=error.status,
            ) from error
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise translated_tls_error(_cause(error), f"{self.name} at {self.address}", what) from error


def _told(error: aiohttp.WSServerHandshakeError, name: str) -> InstepError | None:
    """The error that the other side sent when it refused the stream."""
    text = error.headers.get(messages.ERROR_HEADER) if error.headers is not None else None
    if text is None:
        return None
    try:
        return error_of_reply(messages.decode(base64.b64decode(text), messages.ErrorReply), name)
    except (PeerError, ValueError):
        return None


def _cause(error: BaseException) -> BaseException:
    """The TLS or socket error below aiohttp's wrapping, when there is one."""
    seen: BaseException | None = error
    best = error
    for _ in range(8):
        if seen is None:
            break
        if isinstance(seen, aiohttp.ClientConnectorCertificateError):
            return seen.certificate_error
        if isinstance(seen, aiohttp.ClientConnectorDNSError):
            return socket.gaierror(str(seen))
        if isinstance(seen, aiohttp.ClientConnectorError):
            best = seen.os_error
        elif isinstance(seen, ssl.SSLError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return best


def _body(raw: bytes) -> bytes | io.BytesIO:
    return raw if len(raw) < _READ_BYTES else io.BytesIO(raw)  # aiohttp sends large ones piece by piece


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    parts = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise PeerError("the answer is too large", code="too_large", limit=limit)
        parts.append(part)
    return b"".join(parts)
