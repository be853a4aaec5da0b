"""Which worker runs which test: the longest first, so that no worker is left with a long one when the others are done.

A file goes to one worker as a whole. The tests of the cluster floor, and those that compute for seconds, go one by one,
but for files whose tests share their nodes.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

__all__ = ["LONGEST", "Spreading", "longest_first", "rank_of", "unit_of"]

LONGEST = (
    "tests/cluster/test_examples.py",
    "tests/cluster/test_crash_random.py",
    "tests/cluster/test_versions.py",
    "tests/cluster/test_crash_writer.py",
    "tests/cluster/test_crash_partner.py",
    "tests/cluster/test_night.py",
    "tests/cluster/test_balanced.py",
    "tests/simulation/test_simulation.py::test_fresh_seeds_break_no_promise",
    "tests/cluster/test_succession_killed.py",
    "tests/contract/test_killed_applies.py",
    "tests/cluster/test_hostile_writer.py",
    "tests/cluster/test_hostile_partner.py",
    "tests/cluster/test_rollouts.py",
    "tests/simulation/test_successions.py::test_fresh_seeds_break_no_promise",
    "tests/cluster/test_succession.py",
    "tests/cluster/test_start.py",
)
"""Files and tests that last longest, the longest first. Before the small ones, the rest goes by floor."""
FLOORS = ("cluster", "simulation", "adversary", "contract", "property", "services")
"""The floors whose tests last longest, in this order; then come all others."""
ONE_BY_ONE = (
    "tests/cluster/",
    "tests/simulation/",
    "tests/adversary/test_swaps.py",
    "tests/contract/test_killed_applies.py",
    "tests/contract/test_power_cuts.py",
)
SHARED = (
    "tests/cluster/test_balanced.py",
    "tests/cluster/test_golden_http.py",
    "tests/cluster/test_hostile_partner.py",
    "tests/cluster/test_hostile_writer.py",
    "tests/cluster/test_hostile_changes.py",
    "tests/cluster/test_http_hook.py",
    "tests/cluster/test_leases.py",
    "tests/cluster/test_shared_root.py",
    "tests/cluster/test_night.py",
    "tests/cluster/test_openapi_fuzz.py",
    "tests/cluster/test_panel_access.py",
    "tests/cluster/test_peers.py",
    "tests/cluster/test_rest_api.py",
    "tests/cluster/test_rollouts.py",
)
"""Of those floors, the files whose tests share nodes, or are too short to go alone."""


def unit_of(nodeid: str) -> str:
    """The tests with the same unit go to the same worker."""
    file = nodeid.partition("::")[0]
    return nodeid if file.startswith(ONE_BY_ONE) and file not in SHARED else file


def rank_of(nodeid: str) -> tuple[int, int]:
    """Where a test comes: the lowest first."""
    for place, begins in enumerate(LONGEST):
        if nodeid.startswith(begins):
            return 0, place
    floor = nodeid.split("/")[1] if nodeid.count("/") > 1 else ""
    return 1, FLOORS.index(floor) if floor in FLOORS else len(FLOORS)


def longest_first(items: list[pytest.Item]) -> None:
    """Order the tests of a worker: within a file they stay in the order in which they are written."""
    items.sort(key=lambda item: rank_of(item.nodeid))


class Spreading(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types
    """Deals the units in the order of the tests, each to the next worker that has almost none left."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)
