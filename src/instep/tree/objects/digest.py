"""BLAKE3-256 of bytes and of files that may change while they are read.

Files are read in windows and never mapped: a mapped file that another program truncates kills the process.
"""

from __future__ import annotations

import mmap
import os
import stat
import threading
from pathlib import Path

from blake3 import blake3

from instep.model.ids import Digest
from instep.tree.root.beneath import Root

SMALL_MAX = 1 << 20
"""Files up to this size are read in one piece."""
READ_TRIES = 3
"""A file that changes while it is read is read so often before it is named."""
_WINDOW = 1 << 20

_local = threading.local()


def digest_bytes(data: bytes | memoryview) -> Digest:
    return Digest(blake3(data).digest())


def window(size_bytes: int = _WINDOW) -> mmap.mmap:
    """This thread's page-aligned buffer of this size."""
    buffers: dict[int, mmap.mmap] = _local.__dict__.setdefault("windows", {})
    if size_bytes not in buffers:
        buffers[size_bytes] = mmap.mmap(-1, size_bytes)
    return buffers[size_bytes]


def digest_fd(fd: int) -> tuple[Digest, int]:
    """Digest and length of what ``fd`` holds now, from offset 0, in constant memory; the position stays."""
    hasher = blake3()
    buffer = window()
    offset = 0
    with memoryview(buffer) as view:
        while count := os.preadv(fd, [view], offset):
            hasher.update(view[:count])
            offset += count
    return Digest(hasher.digest()), offset


def digest_beneath(place: Path, path: bytes) -> Digest | None:
    """Digest of the file or the symlink's target at ``path`` beneath a root, as it lies there now; None where there is
    neither."""
    with Root(place) as root:
        return digest_in(root, path)


def digest_in(root: Root, path: bytes) -> Digest | None:
    """As ``digest_beneath``, for one path of many beneath the same root."""
    found = root.stat_or_none(path)
    if found is None or not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        return None
    if stat.S_ISLNK(found.st_mode):
        return digest_bytes(root.readlink(path))
    fd = root.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return digest_fd(fd)[0]
    finally:
        os.close(fd)


def same_stat(a: os.stat_result, b: os.stat_result) -> bool:
    """Whether two stats are of one unchanged object, as far as the kernel shows."""
    return (
        a.st_ino == b.st_ino
        and a.st_ctime_ns == b.st_ctime_ns
        and a.st_mtime_ns == b.st_mtime_ns
        and a.st_size == b.st_size
        and a.st_dev == b.st_dev
    )


def read_once(fd: int, size: int) -> tuple[Digest, int, bytes | None]:
    """Digest, length read, and the bytes when ``size`` is small; nothing is said about stability."""
    if size > SMALL_MAX:
        return *digest_fd(fd), None
    data = os.pread(fd, size + 1, 0)
    return Digest(blake3(data).digest()), len(data), data
