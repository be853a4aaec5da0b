"""Files of checksummed records that survive a bad one. Implements section 2 of ``docs/spec/journal.md``.

A reader that meets bytes which are no record looks for the next record behind them. Where one follows, the disk
changed synced bytes: that is ``Damage`` in the middle, and every other record is still read. Where none follows,
the bytes are a torn tail. Only a torn tail is ever cut, by the next append, and the cut bytes are kept in a
file beside.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, Self, TypeVar

from instep.errors import DamagedError, ResourceError
from instep.tree.root.descriptors import CREATE, REPLACE, Tolerated, closing_fd

log = logging.getLogger(__name__)

MAGIC: Final = b"instep journal 1"
_HEAD = struct.Struct("<II")
HEAD_BYTES: Final = _HEAD.size
"""They stand before each payload."""
_BUFFER = 1 << 18
RECORD_MAX = 16 << 20
"""No writer of ours comes near; a longer length is a damaged one."""
SEARCHED_MAX = 64 << 20
"""Checksums over this many bytes, and over 64 times the file, are taken at most to find records behind bad bytes."""
ASIDE_MAX = 1000
_BLOCK = 4096
_CANDIDATE = re.compile(rb"(?s)(?<=[\x00\x01]....)[\x90-\x9f][\x00-\x7f]")
"""How a payload begins: an array whose first item is the type, behind a length of at most 16 MiB and a checksum."""


class Damage(NamedTuple):
    """Bytes of a file that are no record. ``is_tail``: no record follows them, as after a torn write."""

    offset: int
    length: int
    is_tail: bool


_Made = TypeVar("_Made")
OnDamage = Callable[[Damage], None]


def framed(payload: bytes) -> bytes:
    """``payload`` with its length and checksum before it."""
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


class RecordWriter:
    """Writes a new file of records, buffered; ``sync`` makes all of it durable."""

    def __init__(self, name: bytes, dir_fd: int) -> None:
        self._fd = os.open(name, REPLACE, 0o600, dir_fd=dir_fd)
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

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


def append_records(name: bytes, dir_fd: int, payloads: Iterable[bytes]) -> None:
    """Append behind the last whole record of the file ``name``, and sync. A torn tail is kept aside and cut."""
    with closing_fd(os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)) as fd:
        end = whole_length(fd)
        cut_tail(fd, end, name, dir_fd)
        mend_beginning(fd)
        os.lseek(fd, end, os.SEEK_SET)
        write_all(fd, b"".join(map(framed, payloads)))
        os.fsync(fd)


def mend_beginning(fd: int) -> None:
    """Write the constant bytes with which each file begins, where the disk changed them and nothing else is there."""
    if _read_at(fd, len(MAGIC), 0) == MAGIC:
        return
    first = next(scan_records(fd), None)
    if first is None or first[0] >= len(MAGIC):
        os.pwrite(fd, MAGIC, 0)


def cut_tail(fd: int, end: int, name: bytes, dir_fd: int) -> bytes | None:
    """Cut the open file ``name`` at ``end``. The bytes behind are synced to ``<name>.torn-<n>`` first. Returns that
    name, None when there were none."""
    size = os.fstat(fd).st_size
    if size <= end:
        return None
    aside, to = _beside(name + b".torn", lambda free: os.open(free, CREATE, 0o600, dir_fd=dir_fd))
    with closing_fd(to):
        at = end
        while at < size:
            piece = _read_at(fd, min(_BUFFER, size - at), at)
            if not piece:
                break
            write_all(to, piece)
            at += len(piece)
        os.fsync(to)
    sync_dir(dir_fd)
    os.ftruncate(fd, end)
    return aside


def sync_dir(dir_fd: int) -> None:
    """Sync the directory, of which ``dir_fd`` may be a mere reference."""
    with closing_fd(os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)) as directory:
        os.fsync(directory)


def file_beside(name: bytes, suffix: bytes, dir_fd: int) -> bytes:
    """Give the file ``name`` a second name ``<name><suffix>-<n>``, under which it stays when ``name`` is replaced."""

    def link(aside: bytes) -> None:
        os.link(name, aside, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    return _beside(name + suffix, link)[0]


def _beside(name: bytes, make: Callable[[bytes], _Made]) -> tuple[bytes, _Made]:
    """The first free name ``<name>-<n>``, and what ``make`` made under it."""
    for number in range(1, ASIDE_MAX):
        with contextlib.suppress(FileExistsError):
            aside = name + b"-%d" % number
            return aside, make(aside)
    text = os.fsdecode(name)
    raise ResourceError(
        f"{ASIDE_MAX - 1} files {text}-<n> are kept already",
        hint="look at them, then move them away: each is the rest of a file that a crash or the disk damaged",
        code="kept_aside_full",
        file=text,
    )


def whole_length(fd: int) -> int:
    """Where an append goes: behind the last whole record, and behind bad bytes that are not known for a torn tail."""
    end = len(MAGIC)

    def note(damage: Damage) -> None:
        nonlocal end
        if not damage.is_tail:
            end = damage.offset + damage.length

    for offset, payload in scan_records(fd, note):
        end = offset + _HEAD.size + len(payload)
    return end


def read_records(fd: int, on_damage: OnDamage | None = None) -> Iterator[bytes]:
    """The payloads, in constant memory. Does not move the descriptor's position.

    Without ``on_damage`` a bad record in the middle is a ``DamagedError`` ``journal_damaged``, and a torn tail ends
    the file. With it, ``on_damage`` is called for both, and reading goes on behind.
    """
    for _, payload in scan_records(fd, on_damage or _refuse):
        yield payload


def named_damage(name: bytes) -> OnDamage:
    """Writes a line of the log for each bad stretch of the file ``name``, where what it held is derived anew."""

    def log_it(damage: Damage) -> None:
        text = "is cut off at" if damage.is_tail else "has bytes that are no record at"
        log.warning("%s %s %d (%d bytes)", os.fsdecode(name), text, damage.offset, damage.length)

    return log_it


def read_whole(fd: int) -> Iterator[bytes]:
    """The payloads of a file that this process has just written: a torn tail is damage, too."""
    return read_records(fd, _refuse_any)


def _refuse_any(damage: Damage) -> None:
    _refuse(damage._replace(is_tail=False))


def _refuse(damage: Damage) -> None:
    if not damage.is_tail:
        raise DamagedError(
            f"{damage.length} bytes at {damage.offset} are no record",
            hint="the disk changed synced bytes; look at the kernel log",
            code="journal_damaged",
            offset=damage.offset,
        )


def scan_records(
    fd: int, on_damage: OnDamage | None = None, longest_bytes: int = RECORD_MAX
) -> Iterator[tuple[int, bytes]]:
    """``(offset of the record, payload)`` of every record that is whole, whatever lies between them.

    ``longest_bytes``: no record of this file has a longer payload. Memory is bounded by it, whatever a damaged
    length says.
    """
    size = os.fstat(fd).st_size
    searched = _Search(fd, size, longest_bytes)
    at = 0
    if _read_at(fd, len(MAGIC), 0) == MAGIC:
        at = len(MAGIC)
    elif on_damage in (_refuse, _refuse_any):
        raise DamagedError("a file of records does not begin as one", code="journal_damaged")
    window = _Window(fd)
    while at < size:
        payload = None if at == 0 else window.record(at, size, longest_bytes)
        if payload is None:
            found = searched.next_from(at + 1)
            if on_damage is not None:
                end = size if found is None else found
                on_damage(Damage(at, end - at, found is None and not searched.is_exhausted))
            if found is None:
                return
            at = found
            continue
        yield at, payload
        at += _HEAD.size + len(payload)


class _Window:
    """Reads records one after another through one buffer."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._bytes = b""
        self._base = 0

    def record(self, at: int, size: int, longest_bytes: int) -> bytes | None:
        """The payload of the record at ``at``, None when none is there."""
        if size - at < _HEAD.size:
            return None
        start = self._reach(at, _HEAD.size)
        if len(self._bytes) - start < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack_from(self._bytes, start)
        # Zeros, as a crash leaves behind a file that grew, would be a record of no bytes.
        if length == 0 or length > longest_bytes or at + _HEAD.size + length > size:
            return None
        start = self._reach(at, _HEAD.size + length) + _HEAD.size
        payload = self._bytes[start : start + length]
        return payload if len(payload) == length and zlib.crc32(payload) == checksum else None

    def _reach(self, at: int, length: int) -> int:
        """Where in the buffer ``at`` is, with ``length`` bytes from there on, as far as the file has them."""
        start = at - self._base
        if start < 0 or start + length > len(self._bytes):
            self._bytes, self._base, start = _read_at(self._fd, max(_BUFFER, length), at), at, 0
        return start


class _Search:
    """Looks for the next record behind bad bytes. The work is bounded: contents may be made to look like records."""

    def __init__(self, fd: int, size: int, longest_bytes: int) -> None:
        self._fd = fd
        self._size = size
        self._longest = longest_bytes
        self._left = max(SEARCHED_MAX, 64 * size)
        self.is_exhausted = False
        """True: the search was given up, so the bytes behind are not known to be a torn tail."""

    def next_from(self, at: int) -> int | None:
        """The first offset from ``at`` on where a whole record lies."""
        window = _Window(self._fd)
        overlap = _HEAD.size + 2
        while at < self._size:
            piece = _read_at(self._fd, _BUFFER + overlap, at)
            for match in _CANDIDATE.finditer(piece):
                start = match.start() - _HEAD.size
                if not 0 <= start < _BUFFER:
                    continue
                length = _HEAD.unpack_from(piece, start)[0]
                self._left -= min(length, self._longest)
                if self._left < 0:
                    self.is_exhausted = True
                    return None
                if window.record(at + start, self._size, self._longest) is not None:
                    return at + start
            at += _BUFFER
        return None


def _read_at(fd: int, length: int, at: int) -> bytes:
    """``pread``; zeros where the disk cannot read a block, so that the blocks around it are still read."""
    with Tolerated(errno.EIO):
        return os.pread(fd, length, at)
    parts: list[bytes] = []
    end = min(at + length, os.fstat(fd).st_size)
    while at < end:
        step = min(_BLOCK - at % _BLOCK, end - at)
        piece = bytes(step)
        with Tolerated(errno.EIO):
            piece = os.pread(fd, step, at)
        if not piece:
            break
        parts.append(piece)
        at += len(piece)
    return b"".join(parts)
