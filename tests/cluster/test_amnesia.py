"""A writer that lost its memory, in part or wholly, goes on above what its partners hold, and uses no number twice."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.crashes import Crasher, Tree, crashers
from tests.support.fleet import Fleet, tree_of


def number_of(line: dict[str, object], what: str = "head") -> int:
    found = line[what]
    return int(found["number"]) if isinstance(found, dict) else 0


def forget(node: Crasher) -> None:
    for suffix in ("-wal", "-shm", ""):
        Path(f"{node.node.directory / 'state' / 'node.db'}{suffix}").unlink(missing_ok=True)


def test_a_writer_with_amnesia_goes_on_above_its_own_heads(fleet: Fleet) -> None:
    """Goal: design section 5 "A writer with amnesia". Method: yesterday's copy of its node directory, then an empty
    state, then an empty state while no partner answers."""
    tree = fleet.tree("main")
    (tree / "sub").mkdir(parents=True)
    for number in range(20):
        (tree / "sub" / f"f{number}").write_text(f"file {number}")
    fleet.make(1)
    with crashers(fleet, "main", "s1") as (main, s1):
        newest = settled(fleet, main, s1)
        directory, yesterday = main.node.directory, fleet.base / "yesterday"
        main.stop()
        subprocess.run(["cp", "-a", str(directory), str(yesterday)], check=True, timeout=60)
        main.start()
        for turn in range(3):
            (tree / "sub" / f"f{turn}").write_text(f"of today {turn}")
            (tree / f"today-{turn}").write_text("today")
            newest = settled(fleet, main, s1)
        main.stop()
        before = tree_of(tree)
        shutil.rmtree(directory)
        yesterday.rename(directory)
        newest = woken(fleet, main, s1, newest, before)
        main.stop()
        forget(main)
        newest = woken(fleet, main, s1, newest, tree_of(tree))
        # Changed while the state is lost: only an operator can distinguish that from an older tree.
        main.stop()
        forget(main)
        (tree / "while-away").write_text("written while the writer was down")
        (tree / "today-0").unlink()
        main.start()
        newer = said_to_be_right(fleet, main, s1)
        assert newer > newest
        # No partner answers: nothing is published by itself.
        s1.stop()
        main.stop()
        forget(main)
        (tree / "alone").write_text("written while no partner could be asked")
        main.start()
        held = main.await_line(lambda line: line["standing"] == "held")
        assert held["code"], held
        assert held["next"], held
        assert held["head"] is None, "published without knowing its past"
        s1.start()
        assert said_to_be_right(fleet, main, s1) > newer
        assert (fleet.tree("s1") / "alone").exists()


def woken(fleet: Fleet, main: Crasher, s1: Crasher, newest: int, before: Tree) -> int:
    """Start the forgetful writer: it knows its newest head again, and a change becomes a higher one."""
    main.start()
    main.await_line(lambda line: number_of(line) >= newest)
    again = settled(fleet, main, s1)
    assert tree_of(fleet.tree("main")) == before, "the writer's tree is its own"
    (fleet.tree("main") / "sub" / "f9").write_text(f"after {again}")
    higher = settled(fleet, main, s1)
    assert higher > newest
    return higher


def said_to_be_right(fleet: Fleet, main: Crasher, s1: Crasher) -> int:
    """The writer's tree is not its newest generation: it stands held, and goes on when an operator says so."""
    held = main.await_line(lambda line: line["code"] == "restored")
    assert held["standing"] == "held", held
    assert any("--over" in step for step in held["next"]), held
    main.call("publish", over=True)
    return settled(fleet, main, s1)


def settled(fleet: Fleet, main: Crasher, s1: Crasher) -> int:
    waited = main.call("wait", timeout_s=60.0)
    assert waited["reached"], (waited, main.node.log(), s1.node.log())
    number: int = waited["generation"]["number"]
    s1.await_in_step(number)
    assert tree_of(fleet.tree("s1")) == tree_of(fleet.tree("main"))
    for node in (main, s1):
        node.note_numbers()
    return number


def test_a_writer_from_a_snapshot_goes_past_no_partners_generation_unasked(fleet: Fleet) -> None:
    """Goal: it publishes beyond the partner's number before it hears of that one; the partner keeps what it has, also
    across restarts of both, until an operator decides. Method: copies of the writer's node and tree; the partner is
    stopped meanwhile."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "f").write_text("of yesterday")
    fleet.make(1)
    with crashers(fleet, "main", "s1") as (main, s1):
        settled(fleet, main, s1)
        copies = {main.node.directory: fleet.base / "node-copy", tree: fleet.base / "tree-copy"}
        main.stop()
        for place, copy in copies.items():
            subprocess.run(["cp", "-a", str(place), str(copy)], check=True, timeout=60)
        main.start()
        (tree / "lost").write_text("published, and lost by the writer")
        lost = settled(fleet, main, s1)
        s1.stop()
        main.stop()
        for place, copy in copies.items():
            shutil.rmtree(place)
            copy.rename(place)
        main.start()
        for turn in range(3):
            (tree / "f").write_text(f"written after the snapshot {turn}")
            main.call("publish")
        beyond = number_of(main.line())
        assert beyond > lost
        kept = tree_of(fleet.tree("s1"))
        s1.start()
        held = main.await_line(lambda line: line["code"] == "generation_twice")
        assert held["standing"] == "held", held
        main.stop()
        s1.stop()
        main.start()
        held = main.await_line(lambda line: line["code"] == "generation_twice")
        assert any("--over" in step for step in held["next"]), held
        s1.start()
        s1.await_line(lambda line: line["code"] == "reused_number")
        assert tree_of(fleet.tree("s1")) == kept
        main.call("publish", over=True)
        waited = main.call("wait", timeout_s=60.0)
        assert waited["reached"], waited
        assert waited["generation"]["number"] > beyond
        assert tree_of(fleet.tree("s1")) == tree_of(tree)
