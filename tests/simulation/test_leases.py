"""Leases over a database that fails over and forgets: fresh seeds hold, planted bugs are found.

``INSTEP_SIM_SECONDS`` sets the time for fresh seeds (default 5).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

import pytest

from instep.testing.leases.plants import LEASE_PLANTS
from instep.testing.leases.simulation import LeaseResult, simulate_leases

SEEDS_TO_FIND_A_PLANT = 60
KEPT_SEEDS = (0, 3, 15, 3411917398)
"""Seed 0 found that a promoted server whose clock is behind kept a lease for as long as the clocks differed. In the last
one the database was away for most of the time of peace, which was the simulator's fault."""


def story(result: LeaseResult) -> str:
    return "\n".join(
        (f"seed {result.seed}: {result.broken}", *result.story, f"simulate_leases({result.seed})")
    )


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_seeds_that_once_found_a_bug(seed: int) -> None:
    result = simulate_leases(seed)
    assert result.broken is None, story(result)


@pytest.mark.timeout(600)
def test_fresh_seeds_break_no_promise(record_property: Callable[[str, object], None]) -> None:
    seconds = float(os.environ.get("INSTEP_SIM_SECONDS", "5"))
    first = random.SystemRandom().randrange(1 << 32)
    began, seed, begun, lost = time.monotonic(), first, 0, 0
    while time.monotonic() - began < seconds:
        result = simulate_leases(seed)
        assert result.broken is None, story(result)
        seed, begun, lost = seed + 1, begun + result.begun, lost + result.lost_commits
    figure = f"{seed - first} seeds from {first}, {begun} holders, {lost} forgotten commits"
    record_property("leases", figure)
    sys.stdout.write(f"\nleases: {figure}\n")


@pytest.mark.parametrize("plant", LEASE_PLANTS)
@pytest.mark.timeout(300)
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in range(SEEDS_TO_FIND_A_PLANT):
        if simulate_leases(seed, plant).broken is not None:
            return
    pytest.fail(f"{plant} was not found in {SEEDS_TO_FIND_A_PLANT} seeds")
