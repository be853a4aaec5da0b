"""The result of one look for drift, and its cost."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import NamedTuple

from instep.core.rescan import ScanCost
from instep.tree.scan.compare import Difference

__all__ = ["DRIFT_PATHS_MAX", "DriftFound", "drift_in"]

DRIFT_PATHS_MAX = 1_000


class DriftFound(NamedTuple):
    """The paths that differ, at most ``DRIFT_PATHS_MAX``, and how many there are in all. ``cost`` is of a look at the
    whole tree, None of a look at some paths."""

    paths: tuple[bytes, ...]
    total: int
    cost: ScanCost | None = None


def drift_in(found: Iterable[Difference], stopping: threading.Event) -> DriftFound:
    """Go through ``found`` until ``stopping`` is set: then no caller waits for the answer."""
    drifted: list[bytes] = []
    total = 0
    for difference in found:
        if stopping.is_set():
            break
        if difference.problem is not None and difference.expected is None:
            continue  # a socket, a pipe or a mount that no manifest has is no drift
        total += 1
        if len(drifted) < DRIFT_PATHS_MAX:
            drifted.append(difference.path)
    return DriftFound(tuple(drifted), total)
