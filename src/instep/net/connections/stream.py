"""The stream between partner and sender, over a WebSocket of either end. Section "Stream" of ``docs/spec/wire.md``."""

from __future__ import annotations

import asyncio
import contextlib

import aiohttp
from aiohttp import web

from instep.errors import PeerError, UnavailableError
from instep.net.messages.messages import Goodbye, StreamMessage, decode_stream, encode

HEARTBEAT_S = 8.0
"""A ping goes out after this much silence; half of it later without an answer the connection is dead."""
IDLE_S = 60.0
"""The longest that one message may take to leave."""


class SocketStream:
    """A ``PeerStream`` over aiohttp's server or client WebSocket."""

    def __init__(
        self,
        socket: web.WebSocketResponse | aiohttp.ClientWebSocketResponse[bool],
        peer: str,
        address: str = "",
    ) -> None:
        self.address = address
        self._socket = socket
        self._peer = peer

    async def send(self, message: StreamMessage) -> None:
        try:
            async with asyncio.timeout(IDLE_S):
                await self._socket.send_bytes(encode(message))
        except TimeoutError as error:
            await self._abandon()
            raise UnavailableError(
                f"{self._peer} did not take a message in {IDLE_S:.0f} s", code="timed_out", peer=self._peer
            ) from error
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise self._broken(error) from error

    async def receive(self) -> StreamMessage | None:
        try:
            message = await self._socket.receive()
        except (ConnectionError, RuntimeError, aiohttp.ClientError) as error:
            raise self._broken(error) from error
        if message.type is aiohttp.WSMsgType.BINARY:
            return decode_stream(message.data)
        if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSING, aiohttp.WSMsgType.CLOSED):
            code = self._socket.close_code
            if code in (None, aiohttp.WSCloseCode.ABNORMAL_CLOSURE):
                raise self._broken(self._socket.exception())
            return None
        if message.type is aiohttp.WSMsgType.ERROR:
            if isinstance(message.data, aiohttp.WebSocketError):
                raise PeerError(
                    f"{self._peer} sent bytes that are no message", code="bad_message", why=str(message.data)
                ) from message.data
            raise self._broken(message.data if isinstance(message.data, BaseException) else None)
        raise PeerError(f"{self._peer} sent text where messages are binary", code="bad_message")

    async def close(self, reason: str) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                await self._socket.send_bytes(encode(Goodbye(reason[:200])))
        await self._abandon()

    async def _abandon(self) -> None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(2):
                await self._socket.close()

    def _broken(self, cause: BaseException | None) -> UnavailableError:
        """The library's own text is for the facts: it names sockets and frames, which no operator sees."""
        is_silent = isinstance(cause, TimeoutError)
        what = f"{self._peer} does not answer any more" if is_silent else f"the link to {self._peer} broke"
        code = "timed_out" if is_silent else "stream_broken"
        return UnavailableError(what, code=code, peer=self._peer, why=str(cause or ""))
