"""Changes from elsewhere in simulated homes and editors: fresh seeds hold, planted bugs are found, a seed is one run.

``INSTEP_CHANGES_SECONDS`` sets the time for fresh seeds (default 5).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

import pytest

from instep.testing.changes.options import ChangeOptions
from instep.testing.changes.plants import CHANGE_PLANTS
from instep.testing.changes.simulation import simulate_changes
from instep.testing.cluster import Result

SEEDS_TO_FIND_A_PLANT = 40
KEPT_SEEDS = (73, 110, 178, 247, 443, 454, 60677, 70154, 72398, 1215856629)
"""Where bugs were found: an old file that a stolen lock, a late grant, a late look or a generation that was not laid made
look like an edit."""
LOCKS_AND_CRASHES = ChangeOptions(
    editors=2, files=1, edit_every_ms=1_000, lock_every_ms=500, ttl_ms=6_000, crash_every_ms=2_000,
    crash_at_effect=0.01,
)  # fmt: skip
WITHHELD = ChangeOptions(
    editors=2, files=3, edit_every_ms=500, removes=0.4, home_edit_every_ms=500, withheld=0.5
)
REMOVALS = ChangeOptions(editors=3, files=5, edit_every_ms=500, removes=0.4, held_back=0.3, max_deletions=1)
SCENARIOS: dict[str, ChangeOptions] = {
    "locks_not_persisted": LOCKS_AND_CRASHES,
    "fence_not_compared": LOCKS_AND_CRASHES,
    "unlaid_delete_offered": WITHHELD,
    "losses_counted_alone": REMOVALS,
}
"""The options of a plant that a swarm meets too seldom."""


def story(result: Result) -> str:
    lines = (f"seed {result.seed}", f"BROKEN {result.broken}", *result.transcript)
    return "\n".join((*lines, f"replay: simulate_changes({result.seed})"))


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_seeds_that_once_found_a_bug(seed: int) -> None:
    result = simulate_changes(seed)
    assert result.broken is None, story(result)


@pytest.mark.timeout(600)
def test_fresh_seeds_break_no_promise(record_property: Callable[[str, object], None]) -> None:
    seconds = float(os.environ.get("INSTEP_CHANGES_SECONDS", "5"))
    first = random.SystemRandom().randrange(1 << 32)
    began, events, seed = time.monotonic(), 0, first
    while time.monotonic() - began < seconds:
        result = simulate_changes(seed)
        assert result.broken is None, story(result)
        events += result.events
        seed += 1
    figure = f"{seed - first} seeds from {first}, {events / (time.monotonic() - began):,.0f} events/s"
    record_property("changes", figure)
    sys.stdout.write(f"\nchanges: {figure}\n")


@pytest.mark.parametrize("plant", CHANGE_PLANTS)
@pytest.mark.timeout(300)
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in range(1, SEEDS_TO_FIND_A_PLANT + 1):
        if simulate_changes(seed, plant, SCENARIOS.get(plant)).broken is not None:
            return
    pytest.fail(f"{plant} was not found in {SEEDS_TO_FIND_A_PLANT} seeds")


@pytest.mark.parametrize(
    "options", [LOCKS_AND_CRASHES, WITHHELD, REMOVALS], ids=["locks", "withheld", "removals"]
)
def test_the_scenarios_of_plants_hold_without_them(options: ChangeOptions) -> None:
    for seed in range(1, 11):
        result = simulate_changes(seed, None, options)
        assert result.broken is None, story(result)


def test_the_same_seed_is_the_same_run() -> None:
    assert simulate_changes(4).trace == simulate_changes(4).trace
