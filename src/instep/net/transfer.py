"""Contents on the wire: records packed into frames. Implements the section "Batches" of ``docs/spec/wire.md``.

One request answers thousands of wants, so the cost of a small file is a header in a buffer, not a request.
A record is a whole content, a piece of a large one, or why there is none; a frame is a run of records,
compressed as one when that shrinks it. Nothing here waits or does I/O except ``pieces_of_file``.
"""

from __future__ import annotations

import enum
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from backports import zstd

from instep.errors import DamagedError, PeerError

PIECE_BYTES = 1 << 20
"""Contents above this travel as pieces of at most this size."""
_FRAME_TARGET = 1 << 20
"""A frame is closed once it holds this much."""
FRAME_BYTES_MAX = 4 << 20
"""The most that a receiver takes, raw and stored."""
_COMPRESSED_OVER = 256
"""Bytes of a frame below which compressing it cannot pay."""
_COPIED_BELOW = 65_536
"""Bytes of a content below which a copy costs less than a view of its frame, which keeps the frame in memory."""
_SHRINKS = 0.9
"""A compressed frame must be below this share of the raw one."""
_TRY_AGAIN_AFTER = 16
"""Frames sent uncompressed after one that did not shrink."""

_FRAME = struct.Struct(">BII")
_RECORD = struct.Struct(">IBQI")
FRAME_HEADER_BYTES = _FRAME.size

_RAW, _ZSTD, _ERROR, _END = 0, 1, 254, 255


class AnswerStatus(enum.IntEnum):
    """The kind of a record."""

    WHOLE = 0
    PIECE = 1
    SUPERSEDED = 2
    MISSING = 3
    DENIED = 4
    DAMAGED = 5


class TransferAnswer(NamedTuple):
    """One record: ``want`` counts the request's wants (or ranges); ``offset`` is the place of a piece in
    its file. The pieces of one index come in order."""

    want: int
    status: AnswerStatus
    offset: int = 0
    data: bytes | memoryview = b""


_STATUS = {int(status): status for status in AnswerStatus}
_MAY_HAVE_DATA = frozenset({AnswerStatus.WHOLE, AnswerStatus.PIECE})


# Sending ----------------------------------------------------------------------------------------------------


def frames(
    answers: Iterable[TransferAnswer], *, may_compress: bool = True
) -> Iterator[list[bytes | memoryview]]:
    """Frames ready to be written, each as buffers to be sent one after the other; the last one is the end
    frame. Pull it in a worker thread: reading and compressing happen inside."""
    packer = _Packer(may_compress)
    pack = _RECORD.pack
    parts: list[bytes | memoryview] = []
    size = 0
    count = 0
    for index, status, offset, data in answers:
        length = len(data)
        assert length <= PIECE_BYTES, "a piece is too large"
        count += 1
        if size and size + length > _FRAME_TARGET:
            yield packer.frame(parts, size)
            parts, size = [], 0
        parts.append(pack(index, status, offset, length))
        if length:
            parts.append(data)
        size += length + 17
    if parts:
        yield packer.frame(parts, size)
    yield [_FRAME.pack(_END, count, 0)]


def error_frame(encoded: bytes) -> bytes:
    """Ends an answer early, with the reason."""
    return _FRAME.pack(_ERROR, len(encoded), len(encoded)) + encoded


class _Packer:
    """Compresses where it pays, and stops trying for a while where it does not."""

    def __init__(self, may_compress: bool) -> None:
        self._may_compress = may_compress
        self._skip = 0

    def frame(self, parts: list[bytes | memoryview], size: int) -> list[bytes | memoryview]:
        if self._may_compress and size > _COMPRESSED_OVER:
            if self._skip:
                self._skip -= 1
            else:
                stored = zstd.compress(b"".join(parts), level=1)
                if len(stored) < size * _SHRINKS:
                    return [_FRAME.pack(_ZSTD, size, len(stored)), stored]
                self._skip = _TRY_AGAIN_AFTER
        header = _FRAME.pack(_RAW, size, size)
        if len(parts) == 2 and size > 65_536:
            return [header + bytes(parts[0]), parts[1]]
        return [b"".join((header, *parts))]


def pieces_of_file(index: int, descriptor: int, offset: int, length: int) -> Iterator[TransferAnswer]:
    """A range of a file as pieces. ``DamagedError`` ``short_file`` when it ends early: the caller answers
    *superseded*."""
    end = offset + length
    while offset < end:
        data = os.pread(descriptor, min(PIECE_BYTES, end - offset), offset)
        if not data:
            raise DamagedError("the file ended while it was sent", code="short_file", offset=offset)
        yield TransferAnswer(index, AnswerStatus.PIECE, offset, data)
        offset += len(data)


# Receiving --------------------------------------------------------------------------------------------------


class FrameHeader(NamedTuple):
    kind: int
    raw_bytes: int
    stored_bytes: int

    @property
    def is_end(self) -> bool:
        return self.kind == _END

    @property
    def is_error(self) -> bool:
        """Whether what follows is an encoded ``ErrorReply``, after which nothing comes."""
        return self.kind == _ERROR

    @classmethod
    def parse(cls, raw: bytes) -> FrameHeader:
        """A frame's header with its limits checked, or ``PeerError`` ``bad_frame``."""
        kind, size, stored = _FRAME.unpack(raw)
        if kind == _END:
            if stored:
                raise _bad("an end frame holds nothing")
        elif kind not in (_RAW, _ZSTD, _ERROR):
            raise _bad(f"unknown kind {kind}")
        elif not 0 < size <= FRAME_BYTES_MAX or not 0 < stored <= FRAME_BYTES_MAX:
            raise _bad(f"it is {size} bytes ({stored} stored), the limit is {FRAME_BYTES_MAX}")
        elif kind != _ZSTD and size != stored:
            raise _bad("raw and stored size of an uncompressed frame differ")
        return cls(kind, size, stored)


def unpack_frame(header: FrameHeader, stored: bytes) -> bytes:
    """The records of a frame. Never allocates more than the header's bounded size."""
    if len(stored) != header.stored_bytes:
        raise _bad("it is shorter than it says")
    if header.kind == _RAW:
        return stored
    try:
        raw = decompressed(stored, header.raw_bytes)
    except zstd.ZstdError as error:
        raise _bad(f"zstd: {error}") from error
    if raw is None or len(raw) != header.raw_bytes:
        raise _bad("it does not decompress to the size it says")
    return raw


def decompressed(stored: bytes, most: int) -> bytes | None:
    """All of it; None where it is more than ``most`` bytes, or not one whole frame of zstd. ``zstd.ZstdError``."""
    decompressor = zstd.ZstdDecompressor()
    raw = decompressor.decompress(stored, max_length=most + 1)
    is_whole = len(raw) <= most and decompressor.eof and not decompressor.unused_data
    return raw if is_whole else None


def parse_records(raw: bytes, count: int) -> list[TransferAnswer]:
    """The records of a frame; ``count`` is how many wants there were. Data of small records are copies,
    data of large ones are views of ``raw``."""
    answers: list[TransferAnswer] = []
    append = answers.append
    unpack = _RECORD.unpack_from
    make = TransferAnswer._make
    statuses = _STATUS
    position, end = 0, len(raw)
    view = memoryview(raw)
    while position < end:
        if end - position < 17:
            raise _bad("it ends within a record")
        index, number, offset, length = unpack(raw, position)
        position += 17
        status = statuses.get(number)
        if status is None:
            raise _bad(f"unknown status {number}")
        if index >= count:
            raise _bad(f"it answers want {index} of {count}")
        if length > end - position or length > PIECE_BYTES:
            raise _bad("a record is longer than its frame")
        if length and status not in _MAY_HAVE_DATA:
            raise _bad("a refusal carries data")
        stop = position + length
        data = raw[position:stop] if length < _COPIED_BELOW else view[position:stop]
        append(make((index, status, offset, data)))
        position = stop
    return answers


class FrameReader:
    """Follows one answer: counts records against the end frame and keeps pieces in order."""

    def __init__(self, count: int, spans: Sequence[tuple[int, int]] | None = None) -> None:
        """``spans`` are the (offset, length) that each want may cover, where the asker knows them."""
        self._count = count
        self._spans = spans
        self._records = 0
        self._next_offset: dict[int, int] = {}
        self._done = bytearray(count)
        self.is_finished = False

    def take(self, header: FrameHeader, stored: bytes) -> list[TransferAnswer]:
        """The answers in a frame, or ``PeerError``; an end frame finishes."""
        if self.is_finished:
            raise _bad("there is something after the end")
        if header.is_end:
            if header.raw_bytes != self._records:
                raise _bad(f"{self._records} records came, {header.raw_bytes} were sent")
            self.is_finished = True
            return []
        answers = parse_records(unpack_frame(header, stored), self._count)
        self._records += len(answers)
        done = self._done
        for index, status, offset, data in answers:
            if done[index]:
                raise _bad(f"want {index} is answered twice")
            if self._spans is not None and data:
                start, length = self._spans[index]
                if offset < start or offset + len(data) > start + length:
                    raise _bad(f"more bytes than requested came for want {index}")
            if status is AnswerStatus.PIECE:
                begin = offset if self._spans is None else self._spans[index][0]
                expected = self._next_offset.get(index, begin)
                if offset != expected or not data:
                    raise _bad(f"the pieces of want {index} are not in order")
                self._next_offset[index] = offset + len(data)
            else:
                done[index] = 1
        return answers


def _bad(why: str) -> PeerError:
    return PeerError(f"a frame of contents was refused: {why}", code="bad_frame", why=why)


# Rate limit -------------------------------------------------------------------------------------------------


class TokenBucket:
    """Bytes per second with a burst of one second; pure, time in seconds of a monotonic clock is handed in."""

    def __init__(self, bytes_per_s: int, now_s: float) -> None:
        assert bytes_per_s > 0
        self._rate = bytes_per_s
        self._level = float(bytes_per_s)
        self._at = now_s

    def take(self, size_bytes: int, now_s: float) -> float:
        """Take this much and say how many seconds to wait before sending it."""
        self._level = min(float(self._rate), self._level + (now_s - self._at) * self._rate)
        self._at = now_s
        self._level -= size_bytes
        return 0.0 if self._level >= 0 else -self._level / self._rate
