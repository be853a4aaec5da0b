"""Changes of the writer in simulated clusters: fresh seeds hold, planted bugs are found.

``INSTEP_SUCCESSION_SECONDS`` sets the time for fresh seeds (default 5).
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable

import pytest

from instep.testing.cluster import Result
from instep.testing.writer_changes.plants import SUCCESSION_PLANTS
from instep.testing.writer_changes.simulation import simulate_succession

SEEDS_TO_FIND_A_PLANT = 40
SPLIT = ("first_claim_wins",)
"""Found where two members were promoted that could not hear each other: the scenario makes that."""
KEPT_SEEDS = (1, 10, 40, 41, 86, 872303799, 3965283113)
KEPT_SPLITS = (5000020,)
"""Where bugs were found: a state put back that published below its base, a head only heard of that was taken for the
tree's, a dispute that others had gone past, simulated operators who trusted an old report or overlooked a held writer.
The draws of the older seeds have moved since."""


def story(result: Result) -> str:
    lines = (
        f"seed {result.seed}",
        f"options {result.options}",
        f"BROKEN {result.broken}",
        *result.transcript,
    )
    is_split = result.options.split_at_ms > 0
    return "\n".join((*lines, f"replay: simulate_succession({result.seed}, is_split={is_split})"))


@pytest.mark.parametrize(
    ("seed", "is_split"), [*((seed, False) for seed in KEPT_SEEDS), *((seed, True) for seed in KEPT_SPLITS)]
)
def test_seeds_that_once_found_a_bug(seed: int, is_split: bool) -> None:
    result = simulate_succession(seed, is_split=is_split)
    assert result.broken is None, story(result)


@pytest.mark.timeout(600)
def test_fresh_seeds_break_no_promise(record_property: Callable[[str, object], None]) -> None:
    seconds = float(os.environ.get("INSTEP_SUCCESSION_SECONDS", "5"))
    first = random.SystemRandom().randrange(1 << 32)
    began, seed = time.monotonic(), first
    while time.monotonic() - began < seconds:
        result = simulate_succession(seed, is_split=seed % 4 == 0)
        assert result.broken is None, story(result)
        seed += 1
    figure = f"{seed - first} seeds from {first}"
    record_property("successions", figure)
    sys.stdout.write(f"\nsuccessions: {figure}\n")


@pytest.mark.parametrize("plant", SUCCESSION_PLANTS)
@pytest.mark.timeout(300)
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in range(1, SEEDS_TO_FIND_A_PLANT + 1):
        if simulate_succession(seed, plant, is_split=plant in SPLIT).broken is not None:
            return
    pytest.fail(f"{plant} was not found in {SEEDS_TO_FIND_A_PLANT} seeds")
