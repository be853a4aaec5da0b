"""Answers of the peer server, good and bad. Section "Requests" and "Errors" of ``docs/spec/wire.md``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Iterator

import msgspec
from aiohttp import web
from backports import zstd

from instep.errors import InstepError, PeerError
from instep.net.connections.stream import SocketStream
from instep.net.messages import messages
from instep.net.messages.faults import reply_of_error

CONTENT_TYPE = "application/vnd.instep"
_COMPRESS_OVER = 16 << 10
_HEADER_BYTES_MAX = 4_096
_HELLO_S = 10.0
_AT_WORK = b"HTTP/1.1 102 Processing\r\n\r\n"


async def told(stream: SocketStream, error: BaseException, reason: str) -> None:
    """End a stream with the error that ended it."""
    with contextlib.suppress(InstepError):
        await stream.send(reply_of_error(error))
    await stream.close(reason)


async def first_of(stream: SocketStream) -> messages.StreamMessage | None:
    """The message that must begin a stream, within its deadline."""
    try:
        async with asyncio.timeout(_HELLO_S):
            return await stream.receive()
    except TimeoutError as error:
        raise PeerError(f"no hello came within {_HELLO_S:.0f} s", code="too_slow") from error


@contextlib.contextmanager
def still_at_work(request: web.BaseRequest, every_s: float) -> Iterator[None]:
    """Send ``102 Processing`` now and then until the answer is made: only silence times out at the peer."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def say() -> None:
        nonlocal timer
        transport = request.transport
        if transport is not None and not transport.is_closing():
            transport.write(_AT_WORK)
            timer = loop.call_later(every_s, say)

    timer = loop.call_later(every_s, say)
    try:
        yield
    finally:
        timer.cancel()


def reply(message: msgspec.Struct) -> web.Response:
    """An answer, compressed as a whole where that pays."""
    body = messages.encode(message)
    headers = {"Content-Type": CONTENT_TYPE}
    if len(body) > _COMPRESS_OVER:
        stored = zstd.compress(body, level=1)
        if len(stored) < len(body):
            body = stored
            headers[messages.ZSTD_HEADER] = "1"
    return web.Response(body=body, headers=headers)


_STATUS = {4: 409, 5: 403, 6: 409, 7: 503, 8: 507, 9: 400}


def refusal(error: BaseException) -> web.Response:
    """An error as an answer; connections whose request was not read to its end are closed."""
    told = reply_of_error(error)
    status = 426 if told.code == "version" else _STATUS.get(told.exit_code, 500)
    body = messages.encode(told)
    headers = {"Content-Type": CONTENT_TYPE}
    if len(body) <= _HEADER_BYTES_MAX:
        headers[messages.ERROR_HEADER] = base64.b64encode(body).decode("ascii")
    response = web.Response(status=status, body=body, headers=headers)
    if told.code in ("too_large", "too_slow"):
        response.force_close()
    return response
