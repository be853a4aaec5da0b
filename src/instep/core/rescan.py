"""How often a whole tree is looked at: by its cost, and by the gaps of the watch.

With a watch a full scan is for the few changes that no watch sees: a store through a mapping, a lost event. It may cost
a thousandth of a core. Without one it is the only way in which a change is noticed, and may cost a twentieth.
"""

from __future__ import annotations

from typing import NamedTuple

from instep.core.vocabulary import Trouble

WATCHED_LEAST_MS = 30_000
UNWATCHED_LEAST_MS = 2_000
_WATCHED_SHARE = 1_000
_UNWATCHED_SHARE = 20
_IDLE_SHARE = 4
"""A scan that mostly waits, for a disk or a server, still takes a quarter of the time at most."""


class ScanCost(NamedTuple):
    """The cost of one full scan: of a core, and by the clock."""

    cpu_ms: int = 0
    wall_ms: int = 0


def rescan_after_ms(cost: ScanCost, *, is_watched: bool, most_ms: int) -> int:
    """How long after a full scan the next one begins; ``most_ms`` at the latest."""
    share, least = (
        (_WATCHED_SHARE, WATCHED_LEAST_MS) if is_watched else (_UNWATCHED_SHARE, UNWATCHED_LEAST_MS)
    )
    return min(most_ms, max(least, cost.cpu_ms * share, cost.wall_ms * _IDLE_SHARE))


def not_all_watched(trouble: Trouble) -> str:
    """The reason that a standing gives while the watch does not see all changes."""
    return f"changes are found by full scans in short intervals, for the watch does not report all: {trouble.reason}"
