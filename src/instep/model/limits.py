"""The limits of a manifest: one table, which a writer's scan and a receiver's checks both read.

Implements the numbers of ``docs/spec/manifest.md``. A writer holds back a path that breaks one, so that it never signs
an entry that a receiver refuses.
"""

from __future__ import annotations

from instep.model.counts import sized

PATH_MAX = 4096
"""Bytes of a path that a receiver takes."""
COMPONENT_MAX = 255
DEPTH_MAX = 500
"""Components of a path that a receiver lays down: every level costs a descriptor or a stack frame somewhere."""
SIZE_MAX = (1 << 53) - 1
"""The largest size and time of birth: every JSON reader still counts that far exactly."""
TIME_MIN_NS, TIME_MAX_NS = -(1 << 63), (1 << 63) - 1
"""Nanoseconds since 1970 in 64 bits: from 1677 to 2262."""
SYMLINK_TARGET_MAX = 4095
INLINE_XATTR_MAX = 4096
XATTR_MAX = 65536
XATTR_NAME_MAX = 255
OWNER_NAME_MAX = 255
ENTRY_MAX_BYTES = 256 * 1024
"""The largest encoding of one entry; only extended attributes can come near it."""

Broken = tuple[str, str]
"""Which limit is broken, as the ``what`` of a problem, and both values in words."""


def broken_by_path(path: bytes) -> Broken | None:
    """Which limit a path breaks that a file system can have all the same."""
    if len(path) <= COMPONENT_MAX and path.count(b"/") < DEPTH_MAX:
        return None
    if len(path) > PATH_MAX:
        return "too_long", f"its path is {len(path)} bytes long, the limit is {PATH_MAX}"
    longest = max(map(len, path.split(b"/")))
    if longest > COMPONENT_MAX:
        return "too_long", f"a name in its path is {longest} bytes long, the limit is {COMPONENT_MAX}"
    depth = path.count(b"/") + 1
    if depth > DEPTH_MAX:
        return "too_deep", f"it lies {depth} levels deep, the limit is {DEPTH_MAX}"
    return None


def broken_by_stat(size: int, mtime_ns: int) -> Broken | None:
    """Which limit a file's size or a time breaks."""
    if not TIME_MIN_NS <= mtime_ns <= TIME_MAX_NS:
        year = 1970 + mtime_ns // 31_556_952_000_000_000
        return "bad_time", f"its time is of the year {year}, times from 1677 to 2262 can be carried"
    if size > SIZE_MAX:
        return "too_large", f"it is {sized(size)} large, the limit is {sized(SIZE_MAX)}"
    return None
