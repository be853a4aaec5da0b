"""A large file being staged: its missing ranges, the ranges that the old version gives, and one digest over all of it.

Ranges may come in any order. Bytes that come in order are hashed as they come, so that a plain download is
not read again; a file that was put together from an old version is read once at the end. Nothing counts
before ``finish`` agreed with the entry's digest (P1).
"""

from __future__ import annotations

import bisect
import errno
import fcntl
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice

from blake3 import blake3

from instep.errors import DamagedError, PeerError
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry
from instep.model.paths import shown
from instep.model.statrow import StatRow
from instep.tree.objects.rows import is_same
from instep.tree.root.descriptors import Tolerated
from instep.tree.root.records import write_all

ChunkSpan = tuple[int, int, Digest]
"""``(offset, length, digest)``."""

Recut = Callable[[int], Iterable[ChunkSpan]]
"""Cuts an open local file with the constants of the target's chunk list."""

_FICLONE = 0x40049409
_WINDOW = 4 << 20
_SMALL = 1 << 20
_BLOCK = 4096
_ZEROS = bytes(_BLOCK)
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)


def mismatch(entry: Entry) -> DamagedError:
    """The error when the bytes that arrived for ``entry`` do not match its digest (P1)."""
    path = shown(entry.path)
    return DamagedError(f"the bytes of {path} do not match its digest", code="content_mismatch", path=path)


def digest_of_fd(fd: int) -> Digest:
    """Digest of an open file from offset 0, with as many threads as there are cores."""
    if os.fstat(fd).st_size < _SMALL:
        data = os.pread(fd, _SMALL, 0)
        if len(data) < _SMALL:
            return Digest(blake3(data).digest())
    hasher = blake3(max_threads=blake3.AUTO)
    buffer = mmap.mmap(-1, _WINDOW)
    offset = 0
    with memoryview(buffer) as view:
        while count := os.preadv(fd, [view], offset):
            hasher.update(view[:count])
            offset += count
    buffer.close()
    return Digest(hasher.digest())


def copy_whole(source: int, to: int, size_bytes: int, *, is_sparse: bool) -> None:
    """Make ``to`` (empty) a copy of the first ``size_bytes`` of ``source``: reflink, else a copy in the kernel."""
    with Tolerated(*_UNSUPPORTED):
        fcntl.ioctl(to, _FICLONE, source)
        os.ftruncate(to, size_bytes)
        return
    length = min(size_bytes, os.fstat(source).st_size)
    if not is_sparse:
        copy_range(source, 0, to, 0, length)
        os.ftruncate(to, size_bytes)
        return
    os.ftruncate(to, size_bytes)
    at = 0
    while at < length:
        try:
            begin = os.lseek(source, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = min(os.lseek(source, begin, os.SEEK_HOLE), length)
        if begin < at:
            copy_range(source, begin, to, begin, at - begin)


def copy_range(source: int, source_offset: int, to: int, to_offset: int, length: int) -> None:
    """Copy bytes between files in the kernel, with a plain copy where it cannot; stops early at the source's end."""
    while length > 0:
        try:
            count = os.copy_file_range(source, to, length, source_offset, to_offset)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            piece = os.pread(source, min(length, _WINDOW), source_offset)
            count = os.pwrite(to, piece, to_offset) if piece else 0
        if count == 0:
            return
        length -= count
        source_offset += count
        to_offset += count


class LargeFile:
    """One file at its place in the stage, open for writing; ``done`` is called once, when it is whole."""

    def __init__(
        self,
        fd: int,
        entry: Entry,
        done: Callable[[int], None],
        *,
        old_fd: int | None = None,
        old_row: StatRow | None = None,
        recut: Recut | None = None,
        is_sparse: bool = False,
        is_resumed: bool = False,
        named: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``named`` translates the ``OSError`` of ``use_chunks``, ``write`` and ``finish``."""
        self.entry = entry
        self._named = named
        self._fd = fd
        self._done = done
        self._old_fd = old_fd
        self._old_row = old_row
        self._recut = recut
        self._is_sparse = is_sparse
        self._is_resumed = is_resumed
        self._may_skip_zeros = is_sparse and not is_resumed
        self._chunks: Sequence[ChunkSpan] = ()
        self._set_missing([(0, entry.size)])
        with named():
            if not is_resumed:
                os.ftruncate(fd, entry.size)

    def _set_missing(self, ranges: Iterable[tuple[int, int]]) -> None:
        merged: list[tuple[int, int]] = []
        for offset, length in ranges:
            if merged and merged[-1][0] + merged[-1][1] == offset:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            elif length:
                merged.append((offset, length))
        self._starts = [offset for offset, _ in merged]
        self._ends = [offset + length for offset, length in merged]
        self._is_in_order = merged == [(0, self.entry.size)]
        self._hasher = blake3()
        self._hashed = 0

    def use_chunks(self, chunks: Iterable[ChunkSpan], old_chunks: Iterable[ChunkSpan] | None = None) -> None:
        """Take what this machine has already: equal chunks of the old version and of an earlier attempt.

        ``chunks`` is the target's list, in order and without gaps, else ``PeerError``. ``old_chunks`` spares
        cutting the old version again; if it lies, ``finish`` finds out and names the wrong chunks as missing.
        """
        self._chunks = list(chunks)
        self._check_chunks()
        with self._named():
            self._use(old_chunks)

    def _use(self, old_chunks: Iterable[ChunkSpan] | None) -> None:
        if self._is_resumed and os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, self.entry.size)
            self._set_missing(self._wrong_chunks())
            if self._old_fd is None or sum(self._ends) - sum(self._starts) < self.entry.size // 2:
                return
        if self._old_fd is None:
            os.ftruncate(self._fd, self.entry.size)
            return
        if old_chunks is None:
            if self._recut is None:
                return
            old_chunks = self._recut(self._old_fd)
        self._take(self._old_fd, old_chunks)

    def _check_chunks(self) -> None:
        at = 0
        for offset, length, _ in self._chunks:
            if offset != at or length <= 0:
                break
            at += length
        if at != self.entry.size:
            path = shown(self.entry.path)
            raise PeerError(
                f"the chunk list of {path} does not cover the file", code="bad_chunk_list", path=path
            )

    def _take(self, old_fd: int, old_chunks: Iterable[ChunkSpan]) -> None:
        have: dict[Digest, int] = {}
        at_place: set[tuple[int, Digest]] = set()
        wanted = {digest for _, _, digest in self._chunks}
        for offset, _, digest in old_chunks:
            if digest in wanted:
                have.setdefault(digest, offset)
                at_place.add((offset, digest))
        runs: list[list[int]] = []
        missing: list[tuple[int, int]] = []
        stable = 0
        for offset, length, digest in self._chunks:
            source = offset if (offset, digest) in at_place else have.get(digest)
            if source is None:
                missing.append((offset, length))
                continue
            stable += length if source == offset else 0
            if runs and runs[-1][0] + runs[-1][2] == offset and runs[-1][1] + runs[-1][2] == source:
                runs[-1][2] += length
            else:
                runs.append([offset, source, length])
        os.ftruncate(self._fd, 0)
        keeps_place = stable * 2 > self.entry.size
        if keeps_place:
            self._may_skip_zeros = False
            copy_whole(old_fd, self._fd, self.entry.size, is_sparse=self._is_sparse)
        else:
            os.ftruncate(self._fd, self.entry.size)
        for offset, source, length in runs:
            if not keeps_place or source != offset:
                copy_range(old_fd, source, self._fd, offset, length)
        self._set_missing(missing)

    def _wrong_chunks(self) -> Iterator[tuple[int, int]]:
        for offset, length, digest in self._chunks:
            if blake3(os.pread(self._fd, length, offset)).digest() != digest:
                yield offset, length

    def missing(self, limit: int = 1 << 20) -> list[tuple[int, int]]:
        """``(offset, length)`` of the ranges that must come from outside, in order, at most ``limit`` of them."""
        ranges = zip(self._starts, self._ends, strict=True)
        return list(islice(((start, end - start) for start, end in ranges if start < end), limit))

    @property
    def wants_chunks(self) -> bool:
        """Whether a chunk list could spare anything: there is an old version or an earlier attempt here."""
        return self._old_fd is not None or self._is_resumed

    @property
    def old_fd(self) -> int | None:
        """The old version, lent."""
        return self._old_fd

    @property
    def old_list(self) -> Digest | None:
        """Root of the old version's chunk list, while the file is as its row says."""
        row = self._old_row
        is_recorded = row is not None and self._old_fd is not None and is_same(row, os.fstat(self._old_fd))
        return Digest(row.chunks) if row is not None and is_recorded and row.chunks else None

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write a range that ``missing`` named, or a part of one; anything else is a peer's mistake."""
        end = offset + len(data)
        at = bisect.bisect_right(self._starts, offset) - 1
        if at < 0 or end > self._ends[at] or not len(data):
            path = shown(self.entry.path)
            raise PeerError(f"bytes of {path} came that were not asked for", code="unasked_bytes", path=path)
        with self._named():
            self._write(offset, data)
        if self._is_in_order and offset == self._hashed:
            self._hasher.update(data)
            self._hashed = end
        start, old_end = self._starts[at], self._ends[at]
        if offset == start:
            self._starts[at] = end
        elif end == old_end:
            self._ends[at] = offset
        else:
            self._ends[at] = offset
            self._starts.insert(at + 1, end)
            self._ends.insert(at + 1, old_end)

    def _write(self, offset: int, data: bytes | memoryview) -> None:
        if self._may_skip_zeros and not offset % _BLOCK:
            write_around_holes(self._fd, offset, memoryview(data))
            return
        os.lseek(self._fd, offset, os.SEEK_SET)
        write_all(self._fd, data)

    def finish(self) -> None:
        """Check the whole digest, give the file its metadata, and close it.

        ``DamagedError`` ``content_mismatch``: nothing was kept for certain, ``missing`` names what to fetch anew.
        """
        assert not self.missing(1), "finish needs all ranges"
        with self._named():
            self._finish()

    def _finish(self) -> None:
        if self._hashed == self.entry.size and self._is_in_order:
            digest = Digest(self._hasher.digest())
        else:
            digest = digest_of_fd(self._fd)
        if digest != self.entry.digest:
            self._may_skip_zeros = False
            wrong = list(self._wrong_chunks())
            self._set_missing(wrong or [(0, self.entry.size)])
            raise mismatch(self.entry)
        self._done(self._fd)
        self.close()

    def close(self) -> None:
        """Close; written ranges stay for a later attempt."""
        for fd in (self._fd, self._old_fd):
            if fd is not None and fd >= 0:
                os.close(fd)
        self._fd, self._old_fd = -1, None


def write_around_holes(fd: int, offset: int, data: memoryview) -> None:
    """Write all but blocks of zeros, which are holes already in a file that was truncated to its size."""
    begin = 0
    for at in range(0, len(data) + _BLOCK, _BLOCK):
        block = data[at : at + _BLOCK]
        if at < len(data) and block != _ZEROS[: len(block)]:
            continue
        if begin < at:
            os.lseek(fd, offset + begin, os.SEEK_SET)
            write_all(fd, data[begin : min(at, len(data))])
        begin = at + _BLOCK
