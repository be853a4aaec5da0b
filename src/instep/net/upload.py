"""Contents that travel with a request: a length, the request, then frames. Implements the section "Uploads" of
``docs/spec/wire.md``."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Iterator

from aiohttp import StreamReader

from instep.errors import InstepError, PeerError
from instep.net.messages import messages
from instep.net.messages.faults import error_of_reply, reply_of_error
from instep.net.transfer import (
    FRAME_HEADER_BYTES,
    FrameHeader,
    FrameReader,
    TransferAnswer,
    error_frame,
    frames,
)

_LENGTH = struct.Struct(">I")
_UNPACK_IN_THREAD_OVER = 256 << 10


async def upload_body(
    request: messages.SubmitRequest, contents: Iterator[TransferAnswer]
) -> AsyncGenerator[bytes, None]:
    """The body of a request with contents. An error of ``contents`` is sent in their place, so that the receiver
    learns that they do not come."""
    encoded = messages.encode(request)
    yield _LENGTH.pack(len(encoded)) + encoded
    packed = frames(contents)
    while True:
        try:
            frame = await asyncio.to_thread(next, packed, None)
        except InstepError as error:
            yield error_frame(messages.encode(reply_of_error(error)))
            return
        if frame is None:
            return
        for part in frame:
            yield bytes(part)


class Upload:
    """The receiving side of one request: ``request`` first, then ``contents`` as far as they are wanted."""

    def __init__(self, content: StreamReader, first_s: float, frame_s: float) -> None:
        """``first_s`` bounds the request itself, ``frame_s`` each frame of contents."""
        self._content = content
        self._first_s = first_s
        self._frame_s = frame_s
        self.is_finished = False
        """Whether all contents were read to their end."""

    async def request(self) -> messages.SubmitRequest:
        (size,) = _LENGTH.unpack(await self._exactly(_LENGTH.size, self._first_s))
        limit = messages.SUBMIT_BYTES_MAX
        if size > limit:
            raise PeerError("the request is too large", code="too_large", limit=limit)
        raw = await self._exactly(size, self._first_s)
        return messages.decode(raw, messages.SubmitRequest, limit=limit)

    async def contents(self, request: messages.SubmitRequest) -> AsyncGenerator[list[TransferAnswer], None]:
        """Answers as they come; nothing beyond the sizes that the request names."""
        reader = FrameReader(len(request.contents), [(0, size) for _, size in request.contents])
        while not reader.is_finished:
            header = FrameHeader.parse(await self._exactly(FRAME_HEADER_BYTES, self._frame_s))
            stored = await self._exactly(header.stored_bytes, self._frame_s)
            if header.is_error:
                raise error_of_reply(
                    messages.decode(stored, messages.ErrorReply), "the sender of the changes"
                )
            if header.raw_bytes > _UNPACK_IN_THREAD_OVER and not header.is_end:
                answers = await asyncio.to_thread(reader.take, header, stored)
            else:
                answers = reader.take(header, stored)
            if answers:
                yield answers
        if await self._content.readany():
            raise PeerError("there is something after the contents", code="bad_frame")
        self.is_finished = True

    async def _exactly(self, size: int, within_s: float) -> bytes:
        try:
            async with asyncio.timeout(within_s):
                return await self._content.readexactly(size)
        except TimeoutError as error:
            raise PeerError("the request came too slowly", code="too_slow") from error
        except asyncio.IncompleteReadError as error:
            raise PeerError("the request ended too early", code="bad_message") from error
