"""Readers that open the root once see one generation, whatever is switched meanwhile (design, goal 2)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instep.tree.linger import lingering
from instep.tree.next_tree import Exchange
from instep.tree.switch import finish, switch
from tests.support.apply_world import START_NS, Tree, World

SWITCHES = 100
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
        generations.add(found[0])
        rounds += 1
    finally:
        os.close(fd)
print(rounds, disagreed, len(generations))
"""


def tree(number: int) -> Tree:
    told = b"generation %d" % number
    return {b"first": told, b"below/second": told, b"stays": b"the same"}


@pytest.mark.timeout(60)
def test_two_files_that_must_agree_never_disagree_for_who_opened_the_root_once(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.apply(tree(0))
    world.exchange = Exchange()
    end = tmp_path / "end"
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, str(world.root), str(end)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for number in range(1, SWITCHES + 1):
        target = world.generation(tree(number))
        journal = world.stage(target, now_ns=START_NS + number * 1_000_000)
        switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=number)
        finish(world.place, switched.journal)
        world.live = target
    end.touch()
    for reader in readers:
        told, trouble = reader.communicate(timeout=20)
        assert trouble == ""
        rounds, disagreed, generations = map(int, told.split())
        assert disagreed == 0
        assert rounds > SWITCHES
        assert generations > SWITCHES // 4, "the reader hardly ran"
    assert len(lingering(world.place)) == SWITCHES
    assert world.end_linger() == 0
    assert (world.root / "first").read_bytes() == b"generation %d" % SWITCHES
    assert os.listdir(world.place.stage) == []
