"""Homes of one fileset in a simulated network: fresh seeds hold, planted bugs are found, a seed is one run.

``INSTEP_UNION_SECONDS`` sets the time for fresh seeds (default 8).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

import pytest

from instep.testing.cluster import Result
from instep.testing.unions.plants import SCENARIOS, UNION_PLANTS
from instep.testing.unions.simulation import simulate_union

SEEDS_TO_FIND_A_PLANT = 12
KEPT_SEEDS = (41, 5003, 5061, 400015, 305642111, 71000299)
"""Where bugs were found: entries that were withheld for ever after an own commit went past the union without them; a home
with an older state whose own part no node had: it stood still, and took another home's loser for its own; a union that
was made over older live heads, and took a line back; entries that the state did not know were withheld; a commit above
a head that was not laid, with births by which the tree's names would be others."""


def story(result: Result) -> str:
    lines = (f"seed {result.seed}", f"BROKEN {result.broken}", *result.transcript)
    return "\n".join((*lines, f"replay: simulate_union({result.seed})"))


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_seeds_that_once_found_a_bug(seed: int) -> None:
    result = simulate_union(seed)
    assert result.broken is None, story(result)


def test_a_seed_with_offers_that_once_found_a_bug() -> None:
    """A look from before a revert offered the removal again, and the home made it."""
    result = simulate_union(1, options=SCENARIOS["looks_over_a_revert"])
    assert result.broken is None, story(result)


@pytest.mark.timeout(600)
def test_fresh_seeds_break_no_promise(record_property: Callable[[str, object], None]) -> None:
    seconds = float(os.environ.get("INSTEP_UNION_SECONDS", "8"))
    first = random.SystemRandom().randrange(1 << 32)
    began, events, seed = time.monotonic(), 0, first
    while time.monotonic() - began < seconds:
        result = simulate_union(seed)
        assert result.broken is None, story(result)
        events += result.events
        seed += 1
    figure = f"{seed - first} seeds from {first}, {events / (time.monotonic() - began):,.0f} events/s"
    record_property("unions", figure)
    sys.stdout.write(f"\nunions: {figure}\n")


@pytest.mark.parametrize("plant", UNION_PLANTS)
@pytest.mark.timeout(300)
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in range(1, SEEDS_TO_FIND_A_PLANT + 1):
        if simulate_union(seed, plant, SCENARIOS[plant]).broken is not None:
            return
    pytest.fail(f"{plant} was not found in {SEEDS_TO_FIND_A_PLANT} seeds")


def test_the_same_seed_is_the_same_run() -> None:
    assert simulate_union(4).trace == simulate_union(4).trace
