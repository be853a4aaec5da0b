"""A partner whose state is older than its tree waits for its own past, and takes nothing back (P4)."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from typing import Any

import pytest

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def with_state_of(node: Node, copy: str) -> None:
    shutil.rmtree(node.directory / "state")
    shutil.copytree(node.directory / copy, node.directory / "state")


def await_held(node: Node) -> None:
    eventually(
        lambda: node.line()["code"] == "state_older_than_tree",
        30,
        lambda: f"{node.name} stands {node.line()}",
    )


def with_an_older_copy(fleet: Fleet) -> dict[bytes, tuple[Any, ...]]:
    """A partner whose directory ``copy`` is its state from before the newest generation; returns the contents of the
    writer's tree."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "a").write_text("one")
    (tree / "gone").write_text("one")
    fleet.make(1)
    fleet.wait()
    s1 = fleet["s1"]
    s1.stop()
    shutil.copytree(s1.directory / "state", s1.directory / "copy")
    s1.start()
    first = fleet.main.line()["head"]["number"]
    (tree / "a").write_text("two")
    (tree / "new").write_text("two")
    (tree / "gone").unlink()
    eventually(
        lambda: "new" in {p.name for p in fleet.tree("s1").iterdir()} and not (fleet.tree("s1") / "gone").exists(),
        30, "the change arrives",
    )  # fmt: skip
    fleet.wait()
    assert fleet.main.line()["head"]["number"] > first
    return tree_of(tree)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("is_lost", [False, True])
def test_the_tree_outlives_the_state(fleet: Fleet, is_lost: bool) -> None:
    newest = with_an_older_copy(fleet)
    tree, s1 = fleet.tree("main"), fleet["s1"]
    fleet.main.stop()
    s1.stop()
    if is_lost:
        shutil.rmtree(s1.directory / "state")
    else:
        with_state_of(s1, "copy")
    s1.start()
    await_held(s1)
    held = s1.line()
    assert held["standing"] == "held"
    assert "generation" in held["reason"]
    assert held["next"]
    s1.stop()
    s1.start()
    await_held(s1)
    assert tree_of(fleet.tree("s1")) == newest, "nothing was taken back"
    fleet.main.start()
    s1.await_standing("in_step")
    assert tree_of(fleet.tree("s1")) == newest
    (tree / "a").write_text("three")
    eventually(lambda: (fleet.tree("s1") / "a").read_text() == "three", 30, "it follows on")


@pytest.mark.timeout(180)
def test_a_damaged_record_of_what_the_tree_holds_takes_nothing_back(fleet: Fleet) -> None:
    """The state is older than the tree, and the record that would say so cannot be read: the node waits for an
    operator."""
    newest = with_an_older_copy(fleet)
    s1 = fleet["s1"]
    fleet.main.stop()
    s1.stop()
    with_state_of(s1, "copy")
    (record,) = fleet.tree("s1").parent.glob(".instep-*/holds")
    record.write_bytes(bytes(record.stat().st_size))
    s1.start()
    s1.await_standing("damaged")
    line = s1.line()
    assert line["code"] == "holds_damaged"
    assert str(record) in line["reason"]
    fleet.main.start()
    eventually(
        lambda: s1.line()["head"] == fleet.main.line()["head"],
        30,
        "the partner hears of the newest generation",
    )
    assert s1.standing() == "damaged"
    assert tree_of(fleet.tree("s1")) == newest, "nothing was taken back"
    (step,) = line["next"]
    remove, retry = step.partition("then: ")[2].split(" && ")
    subprocess.run(shlex.split(remove), check=True, timeout=20)
    s1.run(*shlex.split(retry)[1:])
    s1.await_standing("in_step")
    assert tree_of(fleet.tree("s1")) == newest
