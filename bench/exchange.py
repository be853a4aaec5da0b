"""How long a root of many files is between the permit and being switched, exchanged whole and in place.

``PYTHONPATH=src:. python -m bench.exchange [--files 10000] [--changed 10] [--rounds 100] [--at DIRECTORY]``. What is timed is
the call that the daemon makes when the permit is there, until all of it is durable; building the next tree before
and taking down the old one after are timed apart. Not part of ``./run bench``: no other tool has such a switch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from instep.model.ids import HeadRef
from instep.tree.journal.journal import Journal
from instep.tree.stage.next_tree import Exchange
from instep.tree.switch.switch import finish, prepare, switch
from tests.support.apply_world import START_NS, File, Tree, World

PER_DIRECTORY = 100


def tree_of(files: int, changed: int, number: int) -> Tree:
    """The first ``changed`` files, spread over the directories, differ from one ``number`` to the next."""
    every = max(1, files // max(1, changed))
    made: dict[bytes, File | bytes] = {}
    for index in range(files):
        text = f"file {index} " * 40 + (f"at {number}" if index % every == 0 else "")
        made[b"d%04d/f%03d" % divmod(index, PER_DIRECTORY)] = text.encode()
    return made


def timed(times: list[float], call: Callable[[], object]) -> None:
    began = time.perf_counter()
    call()
    times.append((time.perf_counter() - began) * 1000)


def rounds(world: World, files: int, changed: int, count: int) -> dict[str, list[float]]:
    """Milliseconds of each part, a list entry a switch."""
    times: dict[str, list[float]] = {
        "stage and prepare": [],
        "permit to switched": [],
        "old tree taken down": [],
    }
    for number in range(1, count + 1):
        target = world.generation(tree_of(files, changed, number))

        def build(target: HeadRef = target) -> None:
            nonlocal journal
            journal = world.stage(target, now_ns=START_NS + world.number * 1_000_000)
            prepare(world.place, journal, local=world.local)

        journal: Journal | None = None
        timed(times["stage and prepare"], build)
        assert journal is not None

        def go_live(number: int = number) -> None:
            nonlocal journal
            assert journal is not None
            journal = switch(
                world.place, journal, local=world.local, get_page=world.page, now_ms=number
            ).journal

        timed(times["permit to switched"], go_live)
        finish(world.place, journal)
        world.live = target
        timed(times["old tree taken down"], world.end_linger)
    return times


def shown(times: list[float]) -> str:
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, round(len(ordered) * 0.99))]
    return f"p50 {ordered[len(ordered) // 2]:7.1f} ms   p99 {p99:7.1f} ms   worst {ordered[-1]:7.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--at", type=Path, default=None, help="a directory on the file system to measure")
    asked = parser.parse_args()
    for name, exchange in (("exchange", Exchange()), ("inplace", None)):
        with tempfile.TemporaryDirectory(dir=asked.at) as directory:
            world = World.make(Path(directory))
            world.apply(tree_of(asked.files, asked.changed, 0))
            world.exchange = exchange
            print(f"{name}: {asked.files} files, {asked.changed} changed, {asked.rounds} switches")
            for part, times in rounds(world, asked.files, asked.changed, asked.rounds).items():
                print(f"  {part:22} {shown(times)}")


if __name__ == "__main__":
    main()
