"""Writer or partner is killed at random moments of publishes of many files, while a reader reads."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.support.crashes import (
    Crasher,
    Reader,
    assert_rested,
    contents_below,
    control_folder,
    crashers,
    told,
)
from tests.support.fleet import Fleet, tree_of

ROUNDS = 8
SOAK_S = float(os.environ.get("INSTEP_SOAK_SECONDS", "0"))
"""So much longer it goes on in the soak."""
FILES = 2_000 if SOAK_S else 600
SEED = int(os.environ.get("INSTEP_SEED", "20260"))


def text_of(turn: int, number: int) -> bytes:
    return b"%06d %06d whole\n" % (turn, number) * 20


def is_whole(data: bytes) -> bool:
    return len(data) == len(text_of(0, 0)) and data == data[:20] * 20


def write(tree: Path, turn: int) -> None:
    """Every file changes; one directory moves; some come and go."""
    for number in range(FILES - 100):
        path = tree / f"d{number % 20}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text_of(turn, number))
    for number in range(FILES - 100, FILES):
        path = tree / f"only-{turn}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text_of(turn, number))
    shutil.rmtree(tree / f"only-{turn - 1}", ignore_errors=True)


@pytest.mark.timeout(1800 + SOAK_S)
@pytest.mark.parametrize("victim", ["main", "s1"])
def test_killed_at_random_moments(fleet: Fleet, victim: str) -> None:
    """Goal: P2, P3, P5 and unique numbers, wherever a death falls. Method: each round changes every file, publishes and
    kills one side (or ends it by SIGTERM) at a moment drawn from the seed; after its restart everything must be in
    step, nothing lost, and the reader on the partner must never have met a missing or half file."""
    rng = random.Random(f"{SEED} {victim}")
    tree, mine = fleet.tree("main"), fleet.tree("s1")
    write(tree, 0)
    fleet.make(1, add=("--publish", "manual"))
    with crashers(fleet, "main", "s1") as (main, s1):
        s1.await_in_step(main.publish(accept_deletions=True)["number"])
        seen: set[str] = set()
        read = [mine / f"d{number % 20}" / f"f{number}" for number in range(0, FILES - 100, 97)]
        begun = time.monotonic()
        write(tree, 1)
        s1.await_in_step(main.publish(accept_deletions=True)["number"])
        lasts_s = time.monotonic() - begun
        archived(fleet, seen)
        with Reader(read, is_whole):
            until = time.monotonic() + SOAK_S
            for turn in itertools.count(2):
                if turn >= ROUNDS + 2 and time.monotonic() >= until:
                    break
                dies = main if victim == "main" else s1
                one_round(fleet, main, s1, dies, turn, rng.uniform(0, lasts_s), rng.random() < 0.2, seen)


def one_round(
    fleet: Fleet,
    main: Crasher,
    s1: Crasher,
    victim: Crasher,
    turn: int,
    after_s: float,
    is_term: bool,
    seen: set[str],
) -> None:
    about = f"seed {SEED}, turn {turn}: {victim.node.name} {'ended' if is_term else 'killed'} after {after_s:.3f} s"
    tree, mine = fleet.tree("main"), fleet.tree("s1")
    old = {what[2] for what in tree_of(mine).values() if what[0] == "file"}
    write(tree, turn)
    asking = threading.Thread(target=lambda: told(lambda: main.publish(accept_deletions=True)))
    asking.start()
    threading.Event().wait(after_s)
    if is_term:
        victim.signal(signal.SIGTERM)
        assert victim.await_end(25) == 0, about
    else:
        victim.kill()
    asking.join(60)
    assert not asking.is_alive(), about
    victim.start()
    number = main.publish(accept_deletions=True)["number"]
    s1.await_in_step(number)
    assert tree_of(mine) == tree_of(tree), about
    assert_rested(fleet, "s1")
    main.note_numbers()
    have = archived(fleet, seen)
    lost = old - have - {what[2] for what in tree_of(mine).values() if what[0] == "file"}
    assert not lost, f"{about}: {len(lost)} contents were lost, as {next(iter(lost))[:20]!r}"


def archived(fleet: Fleet, seen: set[str]) -> set[bytes]:
    """Contents of the archive batches of the partner that were not looked at before."""
    archive = control_folder(fleet, "s1") / "archive"
    new = [path for path in sorted(archive.iterdir()) if path.name not in seen]
    seen.update(path.name for path in new)
    return contents_below(*new)
