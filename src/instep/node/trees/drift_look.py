"""One look for drift: its result, its cost, and the paths that this daemon may not read.

Files and directories of mode 0000 cannot be hashed without the capability to ignore modes, so only a stat can show a
change there. One that is as the manifest says is no local change: a revert would lay the same again, for ever.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from instep.core.rescan import ScanCost
from instep.model.manifest.entry import Entry, Kind
from instep.tree.objects.fidelity import Local
from instep.tree.root.beneath import Root
from instep.tree.root.kernel import ignores_modes
from instep.tree.root.place import Place
from instep.tree.scan.compare import Difference
from instep.tree.scan.subtree import is_like

DRIFT_PATHS_MAX = 1_000
_OWNER_READS = {Kind.FILE: 0o400, Kind.DIR: 0o500}


class CostWatch:
    """Measures the cost of a look in the thread that looks; starts when it is made."""

    def __init__(self) -> None:
        self._cpu_ns = time.thread_time_ns()
        self._wall_ns = time.monotonic_ns()

    def cost(self) -> ScanCost:
        cpu_ns, wall_ns = time.thread_time_ns() - self._cpu_ns, time.monotonic_ns() - self._wall_ns
        return ScanCost(cpu_ns // 1_000_000, wall_ns // 1_000_000)


class DriftFound(NamedTuple):
    """The paths that differ, at most ``DRIFT_PATHS_MAX``, and how many there are in all. ``cost`` is of a look at the
    whole tree, None of a look at some paths: at those of ``looked`` alone, and at ``trees`` with all below them."""

    paths: tuple[bytes, ...]
    total: int
    cost: ScanCost | None = None
    differences: tuple[Difference, ...] = ()
    looked: tuple[bytes, ...] = ()
    trees: tuple[bytes, ...] = ()


def drift_in(found: Iterable[Difference], stopping: threading.Event) -> DriftFound:
    """Go through ``found`` until ``stopping`` is set: then no caller waits for the answer."""
    drifted: list[Difference] = []
    total = 0
    for difference in found:
        if stopping.is_set():
            break
        if difference.problem is not None and difference.expected is None:
            continue  # a socket, a pipe or a mount that no manifest has is no drift
        total += 1
        if len(drifted) < DRIFT_PATHS_MAX:
            drifted.append(difference)
    return DriftFound(tuple(each.path for each in drifted), total, differences=tuple(drifted))


def readable(found: Iterable[Difference], place: Place, local: Local) -> Iterator[Difference]:
    """``found`` without the paths that the base itself keeps this daemon out of."""
    for difference in found:
        entry, problem = difference.expected, difference.problem
        is_closed = problem is not None and problem.what == "unreadable"
        if entry is None or not is_closed or not _is_as_expected(place, entry, local):
            yield difference


def _is_as_expected(place: Place, entry: Entry, local: Local) -> bool:
    """Whether the entry's own mode keeps this daemon out, and all that a stat shows is as the entry says."""
    needed = _OWNER_READS.get(entry.kind, 0)
    if entry.mode & needed == needed or ignores_modes():
        return False
    with Root(place.root) as root:
        found = root.stat_or_none(entry.path)
    return found is not None and found.st_uid == os.geteuid() and is_like(found, entry, local)
