"""Cuts a run in one place after another; and as a program, all runs in all places for a while.

``python -m tests.support.power.explore --minutes N [RUN...]`` is ``./run soak power``.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tests.support.power.compared_runs import COMPARED_RUNS
from tests.support.power.cuts import Cut, Recorded
from tests.support.power.recorder import recording
from tests.support.power.runs import TREE_RUNS, Run
from tests.support.power.seat import seated
from tests.support.power.shelf_runs import SHELF_RUNS

__all__ = ["RUNS", "first_failure", "recorded"]

RUNS = {**TREE_RUNS, **COMPARED_RUNS, **SHELF_RUNS}
DRAWN = 200
"""So many cuts are drawn in a turn of the soak, once all of a run were made."""


@contextlib.contextmanager
def recorded(base: Path, name: str) -> Iterator[tuple[Run, Recorded]]:
    """A run below ``base``, which must be empty, and its disk operations."""
    run = RUNS[name](base)
    with recording(base) as recorder:
        run.act(recorder.note)
    yield run, Recorded(recorder.initial, recorder.events)


def first_failure(base: Path, run: Run, whole: Recorded, cuts: Iterable[Cut]) -> str | None:
    """The first of ``cuts`` from which the run does not recover, and the failure; None when it always does."""
    for cut in cuts:
        if (failure := failure_at(base, run, whole, cut)) is not None:
            return failure
    return None


def failure_at(base: Path, run: Run, whole: Recorded, cut: Cut) -> str | None:
    try:
        with seated(base, whole.state(cut)):
            run.check(whole.notes(cut))
    except Exception as error:  # noqa: BLE001  whatever recovery ends with is the finding
        where = " < ".join(
            f"{frame.name}:{frame.lineno}" for frame in reversed(traceback.extract_tb(error.__traceback__))
        )
        return f"{whole.describe(cut)}\n{type(error).__name__}: {error}\n{where}"
    return None


def soak(names: Sequence[str], minutes: float, seed: int) -> int:
    """Every cut with at most one operation lost of every run, then pairs drawn by seed, until the time is over."""
    ends, tried, failed = time.monotonic() + minutes * 60, 0, 0
    logging.disable(logging.CRITICAL)
    for turn in itertools.count():
        for name in names:
            with tempfile.TemporaryDirectory() as folder, recorded(Path(folder), name) as (run, whole):
                rng = random.Random(f"{seed} {turn} {name}")
                cuts: Iterable[Cut] = whole.ones() if turn == 0 else whole.sample(rng, DRAWN)
                for cut in cuts:
                    if time.monotonic() > ends:
                        break
                    tried += 1
                    failure = failure_at(Path(folder), run, whole, cut)
                    if failure is not None:
                        failed += 1
                        sys.stdout.write(f"FAILED {name} (seed {seed}, turn {turn})\n{failure}\n")
            if time.monotonic() > ends or failed > 20:
                sys.stdout.write(f"power: {tried} cuts of {len(names)} runs, {failed} failed, seed {seed}\n")
                return 1 if failed else 0
    return 0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./run soak power")
    parser.add_argument("runs", nargs="*", metavar="RUN", help=f"one of: {', '.join(RUNS)}")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args(arguments)
    unknown = [name for name in options.runs if name not in RUNS]
    if unknown:
        parser.error(f"no such run: {', '.join(unknown)}; there are: {', '.join(RUNS)}")
    return soak(options.runs or list(RUNS), options.minutes, options.seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
