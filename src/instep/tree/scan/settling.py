"""When a file that was read may be believed, and when a writer's scan leaves it alone for now.

A scan reads a file's contents at one moment. Two things make that moment a bad one: a program is still writing, or
has the file mapped and may write without the kernel moving a time. This module judges both, from the stat, from the
kernel's answer to ``tree.openness`` and from the watch's events.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping
from types import MappingProxyType
from typing import NamedTuple

from instep.errors import DamagedError, ResourceError
from instep.model.ids import Digest
from instep.tree.objects.digest import digest_fd
from instep.tree.objects.rows import RACY_NS
from instep.tree.scan.listing import Problem
from instep.tree.scan.openness import Openness

MAPPED_NS = 40_000_000_000
"""A store into a page that is dirty already moves no time. The kernel writes dirty pages back after 30 s, found by a
pass every 5 s; from then on the next store moves ``ctime`` again. Measured on ext4: a second store moves neither time,
not even at ``fsync``; a store after the write-back does."""

_GRAIN_NS = 20_000_000
"""The clock of file times lags behind the wall clock by up to two ticks."""


Sink = Callable[[Digest, bytes | None, int], None]
"""Gets each file that was read: its digest, its bytes when small, and its open descriptor."""


def _no_copy(path: bytes, digest: Digest, fd: int) -> None:
    """For a scan that knows of no hot file."""


class Settling(NamedTuple):
    """The waiting times of a writer before it publishes a file. ``settle_ns`` and ``settle_max_ns`` are the fileset's,
    ``written`` the paths that the watch saw written and not closed since. ``opened`` were found open and read before:
    they are read again by the next full scan, not by this one, unless their stat moved. Of ``hot`` files ``copy`` keeps
    the contents; one that is ``cooling`` is read only when it did not change for so many ns."""

    settle_ns: int
    settle_max_ns: int
    written: Container[bytes] = frozenset()
    opened: Container[bytes] = frozenset()
    hot: Container[bytes] = frozenset()
    cooling: Mapping[bytes, int] = MappingProxyType({})
    copy: Callable[[bytes, Digest, int], None] = _no_copy

    def problem(self, path: bytes, found: os.stat_result, openness: Openness, now_ns: int) -> Problem | None:
        """Why the file keeps its last entry for now; None when it may be read. A file that did not change for
        ``settle_max`` is read although a program has it open: a database, an index, a log."""
        age = now_ns - found.st_ctime_ns
        if age >= self.settle_max_ns:
            return None
        quiet_ns = self.cooling.get(path)
        if quiet_ns is not None and age < quiet_ns:
            return Problem(path, "hot", "")
        if openness is Openness.OPEN:
            return Problem(path, "unstable", "a program has it open for writing")
        if openness is Openness.CLOSED:
            return None
        if path in self.written:
            return Problem(path, "unstable", "the watch saw it written and not closed yet")
        if age + _GRAIN_NS < self.settle_ns:
            ms = f"{max(age, 0) // 1_000_000} ms ago, settle is {self.settle_ns // 1_000_000} ms"
            return Problem(path, "unstable", f"it changed {ms}")
        return None


def written(
    settling: Settling | None, path: bytes, found: os.stat_result, openness: Openness, now_ns: int
) -> Problem | None:
    """The problem of a file that a program is writing, where this is a writer's scan."""
    return None if settling is None else settling.problem(path, found, openness, now_ns)


def handed_on(
    sink: Sink | None, settling: Settling | None, path: bytes, digest: Digest, data: bytes | None, fd: int
) -> Problem | None:
    """Give the bytes that were read to ``sink``, and keep a copy of a hot file. A file that moved on meanwhile is a
    problem, and so is one that has no room for a copy: without it the generation would name contents that no node can
    fetch."""
    try:
        if sink is not None:
            sink(digest, data, fd)
        if settling is not None and path in settling.hot:
            settling.copy(path, digest, fd)
    except DamagedError as error:
        if error.error_code != "content_mismatch":
            raise
        return Problem(path, "unstable", "it changed while a copy of it was taken")
    except ResourceError as error:
        if error.error_code != "no_room_for_copy":
            raise
        return Problem(path, "hot", error.reason)
    return None


def is_read_later(settling: Settling | None, path: bytes) -> bool:
    """Whether the file is one that a program has open, and that the next full scan reads again."""
    return settling is not None and path in settling.opened


def is_in_place(fd: int, openness: Openness, digest: Digest) -> bool:
    """Whether a program writes the file through a mapping, which moves no time: then other bytes under the same stat
    are no damage. ``digest`` is of the read before."""
    return openness is Openness.OPEN or digest_fd(fd)[0] != digest


def trusted_at(found: os.stat_result, openness: Openness, now_ns: int, change_ns: int | None) -> int:
    """The moment to note as ``read_at_ns``: ``now_ns``, or the change itself where stores through a mapping may
    follow that move no time. Such a row is not settled, so that every later scan reads the file again.

    ``change_ns`` is the clock of changes (``kernel.change_clock_ns``) before the read. A file that changed before that
    tick is settled at once, for every later change gets another ``ctime``. A whole second may be all that its inode
    has room for; then ``RACY_NS`` stands."""
    changed_ns = found.st_ctime_ns
    if openness is Openness.CLOSED:
        is_past = change_ns is not None and changed_ns < min(change_ns, now_ns)
        return max(now_ns, changed_ns + RACY_NS) if is_past and changed_ns % 1_000_000_000 else now_ns
    if openness is Openness.UNKNOWN and now_ns - changed_ns >= MAPPED_NS:
        return now_ns
    return min(now_ns, changed_ns)
