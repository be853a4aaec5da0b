"""A home of three is killed at each moment of a switch of all lines and of its own publish: no file changes hands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.model.ids import LineId, fileset_name, node_name
from instep.model.manifest.manifest import iterate
from instep.node.trees.keeping.page_walk import must_have
from instep.store.sqlite import SqliteStore
from tests.support.crashes import Crasher
from tests.support.fleet import Fleet
from tests.support.replicas import HOMES, homes_of, put, texts
from tests.support.waiting import eventually

POINTS = (
    "replica.union_made",
    "switch.begun",
    "switch.step.after:3",
    "switch.switched",
    "replica.laid",
    "follow.live_saved",
    "publish.commit.after",
    "replica.own_committed",
)
VICTIM = "s1"


@pytest.fixture
def victim(fleet: Fleet) -> Iterator[Crasher]:
    homes_of(fleet)
    made = Crasher(fleet[VICTIM]).take_over()
    try:
        yield made
    finally:
        made.kill()


def own_paths(directory: Path) -> set[str]:
    """The paths of the node's own line, by the state of a stopped daemon."""
    store = SqliteStore(directory / "state" / "node.db")
    try:
        line = LineId(fileset_name("data"), node_name(VICTIM))
        newest = next(iter(store.generations(line, 1)), None)
        if newest is None:
            return set()
        root = newest.body().root
        return {os.fsdecode(entry.path) for entry in iterate(root, must_have(store.get_page))}
    finally:
        store.close()


def test_a_home_is_killed_at_each_moment_of_a_switch_of_three_lines(fleet: Fleet, victim: Crasher) -> None:
    """Goal: after the next start all trees are equal, nothing is lost, and only its own files are in its line. Each turn
    the other homes changed, added and removed files while it was away, and it has new ones of its own."""
    expected: dict[str, str] = {}
    for turn, point in enumerate(POINTS):
        for name in HOMES:
            files = {f"{name}/kept": f"{name} at {turn}", f"{name}/new/{turn}": f"{turn}"}
            put(fleet.tree(name), files)
            expected |= files
            if turn:
                (fleet.tree(name) / f"{name}/new/{turn - 1}").unlink()
                del expected[f"{name}/new/{turn - 1}"]
        victim.spawn(point)
        assert victim.await_end() != 0, point
        victim.start()

        alike(fleet, expected, point)
        victim.stop()
        assert {path.split("/")[0] for path in own_paths(victim.node.directory)} == {VICTIM}, point


def alike(fleet: Fleet, expected: dict[str, str], point: str) -> None:
    """Wait until all trees hold just these files."""

    def found() -> dict[str, dict[str, str]]:
        return {name: texts(fleet.tree(name)) for name in HOMES}

    eventually(
        lambda: all(each == expected for each in found().values()),
        60.0,
        lambda: f"after {point}: {found()}",
    )
