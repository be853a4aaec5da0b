"""A node's record of one file that it read: enough to know, by a stat alone, that it need not read again."""

from __future__ import annotations

from typing import NamedTuple


class StatRow(NamedTuple):
    """One row per file. ``ino`` and ``dev`` are unsigned 64-bit, times nanoseconds since 1970, ``digest`` the
    contents' BLAKE3-256, ``chunks`` the root of the chunk list or empty, ``read_at_ns`` the wall clock when the
    reading began (a file younger than two seconds then is read again by the next scan)."""

    path: bytes
    ino: int
    dev: int
    ctime_ns: int
    mtime_ns: int
    size: int
    digest: bytes
    chunks: bytes
    read_at_ns: int
