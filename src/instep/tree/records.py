"""Files of checksummed records with a detectable torn tail. Implements section 2 of ``docs/spec/journal.md``."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from instep.errors import DamagedError

__all__ = [
    "MAGIC",
    "RecordWriter",
    "append_head",
    "append_record",
    "append_records",
    "framed",
    "read_records",
    "scan_records",
    "whole_length",
    "write_all",
]

MAGIC: Final = b"instep journal 1"
_HEAD = struct.Struct("<II")
_BUFFER = 1 << 18
RECORD_MAX = 16 << 20
"""No writer of ours comes near; a longer length is a damaged one."""


def framed(payload: bytes) -> bytes:
    """``payload`` with its length and checksum before it."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def append_head() -> int:
    """Bytes that stand before each payload."""
    return _HEAD.size


class RecordWriter:
    """Writes a new file of records, buffered; ``sync`` makes all of it durable."""

    def __init__(self, name: bytes, dir_fd: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = os.open(name, flags, 0o600, dir_fd=dir_fd)
        self._parts: list[bytes] = [MAGIC]
        self._held = len(MAGIC)

    def add(self, payload: bytes) -> None:
        self._parts.append(framed(payload))
        self._held += len(payload) + _HEAD.size
        if self._held > _BUFFER:
            self.flush()

    def flush(self) -> None:
        write_all(self._fd, b"".join(self._parts))
        self._parts.clear()
        self._held = 0

    def sync(self) -> None:
        self.flush()
        os.fsync(self._fd)

    def close(self) -> None:
        """Flush and close; without ``sync`` before, nothing is promised after a crash."""
        if self._fd >= 0:
            try:
                self.flush()
            finally:
                os.close(self._fd)
                self._fd = -1

    def abandon(self) -> None:
        """Close without writing what is still held."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write_all(fd: int, data: bytes | memoryview) -> None:
    """``write(2)`` until all of ``data`` is written."""
    written = os.write(fd, data)
    if written < len(data):
        view = memoryview(data)
        while written < len(data):
            written += os.write(fd, view[written:])


def append_record(fd: int, payload: bytes) -> None:
    """Append one record at the end of the whole records of ``fd``, over a torn tail if there is one, and sync."""
    append_records(fd, (payload,))


def append_records(fd: int, payloads: Iterable[bytes]) -> None:
    """``append_record`` for several, with one sync."""
    end = whole_length(fd)
    os.ftruncate(fd, end)
    os.lseek(fd, end, os.SEEK_SET)
    write_all(fd, b"".join(map(framed, payloads)))
    os.fsync(fd)


def whole_length(fd: int) -> int:
    """The length up to which the file is whole records; ``DamagedError`` when it does not even begin as one."""
    end = len(MAGIC)
    for offset, payload in _scan(fd):
        end = offset + _HEAD.size + len(payload)
    return end


def read_records(fd: int) -> Iterator[bytes]:
    """The payloads, in constant memory, until the end or a torn tail. Does not move the descriptor's position."""
    for _, payload in _scan(fd):
        yield payload


def scan_records(fd: int) -> Iterator[tuple[int, bytes]]:
    """``(offset of the record, payload)`` as ``read_records``."""
    return _scan(fd)


def _scan(fd: int) -> Iterator[tuple[int, bytes]]:
    window = os.pread(fd, _BUFFER, 0)
    if window[: len(MAGIC)] != MAGIC:
        raise DamagedError("a file of records does not begin as one", code="journal_damaged")
    base, at = 0, len(MAGIC)
    while True:
        if len(window) - at < _HEAD.size:
            window, base, at = os.pread(fd, _BUFFER, base + at), base + at, 0
            if len(window) < _HEAD.size:
                return
        length, checksum = _HEAD.unpack_from(window, at)
        if length > RECORD_MAX:
            return
        if len(window) - at < _HEAD.size + length:
            window, base, at = os.pread(fd, max(_BUFFER, _HEAD.size + length), base + at), base + at, 0
            if len(window) < _HEAD.size + length:
                return
        payload = window[at + _HEAD.size : at + _HEAD.size + length]
        if zlib.crc32(payload) != checksum:
            return
        yield base + at, payload
        at += _HEAD.size + length
