"""Readers that open the root once see one generation, whatever is switched meanwhile (design, goal 2)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from instep.tree.stage.next_tree import Exchange
from instep.tree.switch.linger import lingering
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import START_NS, Tree, World

SWITCHES = 100
SEEN = 25
"""So many generations each reader must have met: on a busy machine that takes more switches."""
READER = """
import os, sys
root, rounds, disagreed, generations = sys.argv[1], 0, 0, set()
while not os.path.exists(sys.argv[2]):
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = []
        for name in ("first", "below/second"):
            one = os.open(name, os.O_RDONLY, dir_fd=fd)
            found.append(os.read(one, 100))
            os.close(one)
        disagreed += found[0] != found[1]
        if found[0] not in generations:
            generations.add(found[0])
            os.write(1, b".")
        rounds += 1
    finally:
        os.close(fd)
print("", rounds, disagreed, len(generations))
"""


def tree(number: int) -> Tree:
    told = b"generation %d" % number
    return {b"first": told, b"below/second": told, b"stays": b"the same"}


def test_two_files_that_must_agree_never_disagree_for_who_opened_the_root_once(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.apply(tree(0))
    world.exchange = Exchange()
    end = tmp_path / "end"
    with ExitStack() as stack:
        outputs = [tmp_path / f"reader-{number}" for number in range(2)]
        readers = [stack.enter_context(reader(world.root, end, output)) for output in outputs]
        stack.callback(end.touch)  # ends the readers, whatever comes
        switches = switch_until(world, lambda: all(each.read_bytes().count(b".") > SEEN for each in outputs))
        end.touch()
        assert [each.wait(60) for each in readers] == [0, 0], [each.read_text() for each in outputs]
    for output in outputs:
        rounds, disagreed, generations = map(int, output.read_text().lstrip(".").split())
        assert disagreed == 0
        assert rounds >= generations > SEEN
    assert len(lingering(world.place)) == switches
    assert world.end_linger() == 0
    assert (world.root / "first").read_bytes() == b"generation %d" % switches
    assert os.listdir(world.place.stage) == []


def reader(root: Path, end: Path, output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as out:
        return subprocess.Popen([sys.executable, "-c", READER, str(root), str(end)], stdout=out, stderr=out)


def switch_until(world: World, enough: Callable[[], bool]) -> int:
    """Switch at least ``SWITCHES`` times, and on until ``enough``; how often."""
    for number in count(1):
        target = world.generation(tree(number))
        journal = world.stage(target, now_ns=START_NS + number * 1_000_000)
        switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=number)
        finish(world.place, switched.journal)
        world.live = target
        if number >= SWITCHES and enough():
            return number
    raise AssertionError("unreachable")
