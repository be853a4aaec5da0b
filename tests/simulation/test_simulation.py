"""P1 to P10 in simulated clusters: fresh seeds hold, planted bugs are found, the same seed is the same run.

``INSTEP_SIM_SECONDS`` sets the time for fresh seeds (default 10), ``INSTEP_SIM_SEED`` the first of them.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from instep.testing.cluster import Result
from instep.testing.plants import PLANTS, ROLLOUT_RULES
from instep.testing.simulation import simulate

SEEDS_TO_FIND_A_PLANT = 120
KEPT_SEEDS = (
    5,
    9,
    13,
    17,
    19,
    26,
    32,
    70,
    98,
    125,
    134,
    174,
    181,
    1956,
    2459,
    2693,
    417266888,
    2699641985,
    3794843017,
    991001212,
    1242944493,
    3937998660,
    413707110,
    5000,
    1290046,
    1290132,
    7700351,
    7700547,
)
"""Each found a bug once; they stay."""
KEPT_ROLLOUTS = (
    1,
    4,
    22,
    25,
    40,
    41,
    60,
    96,
    102,
    143,
    154,
    219,
    1050,
    3014,
    3071,
    3078,
    3095,
    5032,
    5079,
    5194,
    5267,
    2145654705,
)
"""The same, with rollouts whatever the seed draws."""
KNOWN_LEFT_OUT = ("leaves_known_out", "hook_writes")
"""How a source answers since then, and a fault: with them the seeds before would be other runs."""
DRAWN_LATER = ("member_every_ms", "work_fails", *KNOWN_LEFT_OUT)
"""Faults that came after these seeds: with them they would be other runs (``./run sim SEED --without OPTION``)."""

KEPT_WITH_MEMBERS = (
    (8800107, False),
    (9400295, True),
    (9700455, False),
    (9800131, False),
    (20000046, False),
    (21500166, True),
)
"""Seeds that found a bug since those faults are drawn (``./run sim SEED --without leaves_known_out``), and whether
every seed has rollouts."""


KEPT_SINCE = (
    (20000005, False),
    (20000174, False),
    (20000331, False),
    (21000153, True),
    (21000174, True),
    (22000355, False),
    (23000059, False),
    (22001058, False),
    (23001075, False),
)
"""The same since sources leave out what the asker names."""


def story(result: Result) -> str:
    lines = (
        f"seed {result.seed}",
        f"options {result.options}",
        f"BROKEN {result.broken}",
        *result.transcript,
    )
    return "\n".join((*lines, f"replay: ./run sim {result.seed}"))


@pytest.mark.parametrize("seed", KEPT_SEEDS)
def test_seeds_that_once_found_a_bug(seed: int) -> None:
    result = simulate(seed, without=DRAWN_LATER)
    assert result.broken is None, story(result)


@pytest.mark.parametrize(("seed", "always_rollouts"), KEPT_WITH_MEMBERS)
def test_seeds_with_membership_changes_that_once_found_a_bug(seed: int, *, always_rollouts: bool) -> None:
    result = simulate(seed, always_rollouts=always_rollouts, without=KNOWN_LEFT_OUT)
    assert result.broken is None, story(result)


@pytest.mark.parametrize(("seed", "always_rollouts"), KEPT_SINCE)
def test_seeds_of_today_that_once_found_a_bug(seed: int, *, always_rollouts: bool) -> None:
    result = simulate(seed, always_rollouts=always_rollouts, without=("hook_writes",))
    assert result.broken is None, story(result)


@pytest.mark.parametrize("seed", KEPT_ROLLOUTS)
def test_rollouts_that_once_found_a_bug(seed: int) -> None:
    result = simulate(seed, always_rollouts=True, without=DRAWN_LATER)
    assert result.broken is None, f"{story(result)} --rollouts"


@pytest.mark.timeout(900)
def test_fresh_seeds_break_no_promise(record_property: Callable[[str, object], None]) -> None:
    seconds = float(os.environ.get("INSTEP_SIM_SECONDS", "10"))
    chosen = os.environ.get("INSTEP_SIM_SEED")
    first = int(chosen) if chosen else random.SystemRandom().randrange(1 << 32)
    began, events, seed = time.monotonic(), 0, first
    while time.monotonic() - began < seconds:
        result = simulate(seed)
        assert result.broken is None, story(result)
        events += result.events
        seed += 1
    wall = time.monotonic() - began
    figure = f"{seed - first} seeds from {first}, {events} events, {events / wall:,.0f} events/s"
    record_property("simulation", figure)
    sys.stdout.write(f"\nsimulation: {figure}\n")


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found(plant: str) -> None:
    for seed in range(1, SEEDS_TO_FIND_A_PLANT + 1):
        result = simulate(seed, plant, always_rollouts=plant in ROLLOUT_RULES, without=DRAWN_LATER)
        if result.broken is not None:
            return
    pytest.fail(f"{plant} was not found in {SEEDS_TO_FIND_A_PLANT} seeds")


def test_the_same_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    code = """if True:
        from instep.testing.changes.simulation import simulate_changes
        from instep.testing.simulation import simulate
        from instep.testing.writer_changes.simulation import simulate_succession
        print([simulate(n).trace for n in (3, 4, 7)], simulate_succession(3, is_split=True).trace)
        print([simulate_changes(n).trace for n in (2, 3, 7)])
    """
    traces = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            timeout=250,
            check=True,
        )
        traces.append(done.stdout)
    assert traces[0] == traces[1]
