"""Full disks, read-only trees, lost rights and lost state: said with reason and next step, and over when the cause goes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.crashes import Crasher, assert_rested, crashers
from tests.support.fleet import Fleet, tree_of


def some_tree(root: Path, text: str, files: int = 40) -> None:
    (root / "sub").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (root / "sub" / f"f{number}").write_text(f"{text} {number}\n" * 20)


def inodes(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_ino for p in (root / "sub").iterdir()}


@pytest.mark.timeout(120)
def test_lost_and_damaged_state_is_rebuilt(fleet: Fleet) -> None:
    """Goal: a partner without its database comes in step again without touching what is right already; the served
    tree stays whole. Method: remove it while stopped, damage it while stopped, remove it while running."""
    some_tree(fleet.tree("main"), "first")
    fleet.make(1)
    mine, theirs = fleet.tree("s1"), fleet.tree("main")
    with crashers(fleet, "main", "s1") as (main, s1):
        s1.await_in_step(main.publish()["number"])
        state = s1.node.directory / "state" / "node.db"
        for how in ("removed", "damaged", "removed while running"):
            before = inodes(mine)
            if how == "removed while running":
                remove_state(state)
            else:
                s1.stop()
                if how == "removed":
                    remove_state(state)
                else:
                    state.write_bytes(os.urandom(100_000))
                s1.start()
            s1.await_line(lambda line: True)
            warned(s1)
            (theirs / "sub" / "f1").write_text(how)
            s1.await_in_step(main.publish()["number"])
            assert tree_of(mine) == tree_of(theirs), how
            assert_rested(fleet, "s1")
            after = inodes(mine)
            assert {p for p in after if after[p] != before[p]} <= {"sub/f1"}, how
        assert list(state.parent.glob("node.db.damaged-*")), "a damaged database is kept"
        events = s1.control.call("events", {})["events"]
        assert any(event["what"] == "state_rebuilt" for event in events)


def remove_state(state: Path) -> None:
    for suffix in ("-wal", "-shm", ""):
        Path(f"{state}{suffix}").unlink(missing_ok=True)


def warned(node: Crasher) -> None:
    from tests.support.waiting import eventually

    def says() -> bool:
        return any("rebuilt" in text for text in node.call("status")["warnings"])

    eventually(says, 20, lambda: f"a warning of {node.node.name}\n{node.node.log()}")
