"""``python -m instep.testing SEED`` replays one seed; ``--soak --seconds N`` runs fresh ones until time is
up."""

from __future__ import annotations

import argparse
import sys
import time

from instep.testing.cluster import Result
from instep.testing.plants import PLANTS
from instep.testing.simulation import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="instep.testing", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", default=None, help="replay this seed")
    parser.add_argument("--soak", action="store_true", help="run one seed after another")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to soak (default 20)")
    parser.add_argument("--first", type=int, default=1, help="first seed of the soak (default 1)")
    parser.add_argument("--plant", choices=PLANTS, help="plant this bug")
    parser.add_argument(
        "--rollouts", action="store_true", help="every seed has rollouts, not only every other"
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="OPTION",
        help="this option is zero, as in kept seeds",
    )
    chosen = parser.parse_args()
    if chosen.soak:
        return soak(chosen.first, chosen.seconds, chosen.plant, always_rollouts=chosen.rollouts)
    if chosen.seed is None:
        parser.error("give a SEED, or --soak")
    began = time.perf_counter()
    result = simulate(
        chosen.seed, chosen.plant, always_rollouts=chosen.rollouts, without=tuple(chosen.without)
    )
    show(result, time.perf_counter() - began)
    return 0 if result.broken is None else 10


def soak(first: int, seconds: float, plant: str | None, *, always_rollouts: bool = False) -> int:
    began = time.perf_counter()
    seed, events, virtual = first, 0, 0
    while time.perf_counter() - began < seconds:
        result = simulate(seed, plant, always_rollouts=always_rollouts)
        events += result.events
        virtual += result.virtual_ms
        if result.broken is not None:
            show(result, time.perf_counter() - began)
            return 10
        seed += 1
    wall = time.perf_counter() - began
    say(
        f"{seed - first} seeds from {first}, no broken promise: {events} events in {wall:.1f} s "
        f"({events / wall:,.0f} events/s), {virtual / 3_600_000:.1f} simulated hours"
    )
    return 0


def show(result: Result, wall: float) -> None:
    say(f"seed {result.seed}")
    say(f"options {result.options}")
    if result.broken is not None:
        say(f"BROKEN {result.broken}")
        say(f"the last {len(result.transcript)} events:")
        for line in result.transcript:
            say(line)
        say(f"replay: ./run sim {result.seed}")
    else:
        say(f"no broken promise; in step {result.converged_after_ms} ms after the faults stopped")
    say(
        f"{result.events} events, {result.generations} generations, {result.virtual_ms / 1000:.0f} simulated s, "
        f"{result.events / max(wall, 1e-9):,.0f} events/s, trace {result.trace}"
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
