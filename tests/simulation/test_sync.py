"""Sync runs between two simulated homes: fresh seeds hold, planted bugs are found, a seed is one run.

``INSTEP_SYNC_SECONDS`` sets the time for fresh seeds (default 4).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

import pytest

from instep.testing.cluster import Result
from instep.testing.sync.options import SyncOptions
from instep.testing.sync.plants import SYNC_PLANTS
from instep.testing.sync.simulation import simulate_sync

SEEDS_TO_FIND_A_PLANT = 60
RESTORES = SyncOptions(edit_every_ms=500, run_every_ms=500, step_ms=20, restore_every_ms=3_000)
SLOW_RUNS = SyncOptions(edit_every_ms=1_000, run_every_ms=2_000, step_ms=800)
DEATHS = SyncOptions(
    edit_every_ms=500,
    run_every_ms=700,
    crash_every_ms=2_000,
    crash_at_step=0.02,
    answer_lost=0.1,
    cut_every_ms=3_000,
)
SCENARIOS = {
    "base_of_one_home": RESTORES,
    "done_when_made": SLOW_RUNS,
    "sent_is_forgotten": DEATHS,
    "sent_counts": DEATHS,
}
"""The options of a plant that a swarm meets too seldom."""


def story(result: Result) -> str:
    lines = (f"seed {result.seed}", f"BROKEN {result.broken}", *result.transcript)
    return "\n".join((*lines, f"replay: simulate_sync({result.seed})"))


@pytest.mark.timeout(600)
def test_fresh_seeds_break_no_promise(record_property: Callable[[str, object], None]) -> None:
    seconds = float(os.environ.get("INSTEP_SYNC_SECONDS", "4"))
    first = random.SystemRandom().randrange(1 << 32)
    began, seed = time.monotonic(), first
    while time.monotonic() - began < seconds:
        result = simulate_sync(seed)
        assert result.broken is None, story(result)
        seed += 1
    figure = f"{seed - first} seeds from {first}"
    record_property("sync", figure)
    sys.stdout.write(f"\nsync: {figure}\n")


@pytest.mark.parametrize("plant", SYNC_PLANTS)
@pytest.mark.timeout(300)
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in range(1, SEEDS_TO_FIND_A_PLANT + 1):
        if simulate_sync(seed, plant, SCENARIOS.get(plant)).broken is not None:
            return
    pytest.fail(f"{plant} was not found in {SEEDS_TO_FIND_A_PLANT} seeds")


@pytest.mark.parametrize("options", [RESTORES, SLOW_RUNS, DEATHS], ids=["restores", "slow runs", "deaths"])
def test_the_scenarios_of_plants_hold_without_them(options: SyncOptions) -> None:
    for seed in range(1, 6):
        result = simulate_sync(seed, None, options)
        assert result.broken is None, story(result)


@pytest.mark.parametrize("seed", [836835193, 2541635280])
def test_what_a_restored_home_lost_may_be_in_the_archive_of_the_other_one(seed: int) -> None:
    """A run had brought it there, the right home was restored to before it, and its next file went over it."""
    result = simulate_sync(seed)
    assert result.broken is None, story(result)


@pytest.mark.parametrize("seed", [31000234, 31000377])
def test_a_change_that_waits_is_had_by_both_only_once_its_home_is_not_as_before(seed: int) -> None:
    """The home had an edit of its own there: its head was never the base, and the next run took that for the change."""
    result = simulate_sync(seed)
    assert result.broken is None, story(result)


def test_of_a_home_that_came_back_from_a_copy_no_unfinished_run_is_believed() -> None:
    """Its contents of before were taken for an edit upon what the run had seen there, and replaced it at the other home."""
    result = simulate_sync(214)
    assert result.broken is None, story(result)


def test_the_same_seed_is_the_same_run() -> None:
    assert simulate_sync(4).trace == simulate_sync(4).trace
