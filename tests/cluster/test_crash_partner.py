"""The partner is killed at every failpoint of the apply: recovered to exactly one generation, nothing lost (P2, P3, P5)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import instep.daemon.process  # noqa: F401  registers every failpoint
from instep.tree.root.failpoints import registered
from tests.support.crashes import Crasher, Tree, assert_nothing_lost, assert_rested, carried, crashers, tables
from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually

HERE = ("apply", "archive", "follow", "journal", "recover", "stage", "switch")
"""Failpoints of the apply; the writer's are in ``test_crash_writer``."""

NOT_HIT = {
    "archive.pruning": "killed in test_housekeeping",
    "journal.outdated": "only for changes from elsewhere: tests/cluster/test_crash_home.py",
    "switch.dropping": "only where a compared switch left a path: tests/contract/test_killed_applies.py",
    "switch.linked": "only where renameat2 is missing: tests/contract/test_killed_applies.py --no-renameat2",
}
TWICE = {"recover.recovering": "switch.step.before:3"}
"""Reached only by a restart after another death: that one comes first."""
SECOND_HITS = ("stage.laid:7", "switch.step.before:4", "switch.step.after:5", "switch.exchanged:3")
LARGE = 2 << 20


def ignored(path: bytes) -> bool:
    return path.endswith(b".tmp")


class Workload:
    """Each ``turn`` changes the writer's tree in every way that an apply knows; contents never repeat."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        self.number = 0
        for number in range(20):
            self._write(f"same/{number}", f"same {number}")
        for number in range(5):
            self._write(f"moved-0/deep/{number}", f"moves {number}")
        self._write("moved-0/deep/large", "m" * 1_500_000)
        for number in range(3):
            self._write(f"renamed/{number}-0", f"renamed {number}")
        (tree / "meta").mkdir()
        self._write("meta/small", "stays")
        self._write("meta/big", "stays" * 20_000)
        (tree / "large").write_bytes(os.urandom(LARGE))
        self._write("turns-0", "a file")
        self._write("turns-1/inside", "in a directory")
        self._write("drift", "as published 0")
        self._write("removed-0/a", "removed 0 a")
        self._write("removed-0/sub/b", "removed 0 b")
        self._write("removed-0/sub/c", "removed 0 c")
        self._write("half-0/data", "half 0")
        self._write("half-0/more", "more 0")
        for number in range(8):
            self._write(f"changed/{number}", f"changed {number} at 0 " * 50)
        os.symlink("same/0", tree / "link")

    def _write(self, name: str, text: str) -> None:
        path = self.tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def turn(self) -> None:
        old, new = self.number, self.number + 1
        self.number = new
        tree = self.tree
        for number in range(8):
            self._write(f"changed/{number}", f"changed {number} at {new} " * 50)
        self._write(f"added-{new}/deep/file", f"added {new}")
        self._write(f"added-{new}/deep/large", f"{new}" * 700_000)
        for place in (f"added-{old}", f"removed-{old}", f"half-{old}"):
            if (tree / place).exists():
                for directory, folders, names in os.walk(tree / place, topdown=False):
                    for name in names:
                        os.unlink(os.path.join(directory, name))
                    for name in folders:
                        os.rmdir(os.path.join(directory, name))
                (tree / place).rmdir()
        for name in ("a", "sub/b", "sub/c"):
            self._write(f"removed-{new}/{name}", f"removed {new} {name}")
        self._write(f"half-{new}/data", f"half {new}")
        self._write(f"half-{new}/more", f"more {new}")
        os.rename(tree / f"moved-{old}", tree / f"moved-{new}")
        for number in range(3):
            os.rename(tree / f"renamed/{number}-{old}", tree / f"renamed/{number}-{new}")
        is_odd = new % 2
        os.chmod(tree / "meta/small", 0o600 if is_odd else 0o644)
        os.chmod(tree / "meta/big", 0o600 if is_odd else 0o644)
        os.chmod(tree / "meta", 0o700 if is_odd else 0o755)
        with (tree / "large").open("r+b") as file:
            for offset in (1_000, LARGE // 2, LARGE - 1_000):
                file.seek(offset)
                file.write(f"changed at {new}".encode())
        for name, is_file in (("turns-0", not is_odd), ("turns-1", is_odd)):
            if is_file:
                (tree / name / "inside").unlink()
                (tree / name).rmdir()
                self._write(name, f"a file at {new}")
            else:
                (tree / name).unlink()
                self._write(f"{name}/inside", f"in a directory at {new}")
        self._write("drift", f"as published {new}")
        (tree / "link").unlink()
        os.symlink(f"same/{new % 20}", tree / "link")


def specs() -> list[str]:
    names = [name for name in registered() if name.split(".")[0] in HERE and name not in NOT_HIT]
    return [*names, *SECOND_HITS]


@pytest.mark.timeout(600)
def test_killed_at_every_failpoint_of_the_apply(fleet: Fleet) -> None:
    """Goal: P2, P3, P5 and hooks at least once with a real daemon. Method: one fleet; for each failpoint a publish with
    every kind of change and a drifted file meets a partner armed to die there; restarted while the writer is
    frozen, its tree must be exactly old or new; then it comes in step, and everything is looked at."""
    workload = Workload(fleet.tree("main"))
    fleet.make(1, add=("--settle", "20ms", "--ignore", "*.tmp", "--publish", "manual"))
    reloads = fleet.base / "reloads"
    partner_setup(fleet, reloads)
    with crashers(fleet, "main", "s1") as (main, s1):
        first = main.publish()
        s1.await_in_step(first["number"])
        for spec in specs():
            one_death(fleet, main, s1, workload, spec, reloads)
        main.note_numbers()


def partner_setup(fleet: Fleet, reloads: Path) -> None:
    node = fleet["s1"]
    node.run("fileset", "set", "data", 'drift="keep"')
    tables(
        node,
        "[filesets.data.hooks.reload]\n"
        f'run = ["/bin/sh", "-c", "echo $INSTEP_GENERATION >> {reloads}"]\n'
        '[filesets.data.hooks.probe]\nrun = ["/bin/true"]\n',
    )


def one_death(fleet: Fleet, main: Crasher, s1: Crasher, workload: Workload, spec: str, reloads: Path) -> None:
    mine, theirs = fleet.tree("s1"), fleet.tree("main")
    s1.kill()
    (mine / f"half-{workload.number}" / "cache.tmp").write_text("never carried")
    (mine / "drift").write_text(f"a local edit before {workload.number + 1}")
    old = tree_of(mine)
    workload.turn()
    number = main.publish()["number"]
    new = tree_of(theirs)
    name = spec.partition(":")[0]
    for deadly in filter(None, (TWICE.get(name), spec)):
        s1.spawn(deadly)
        assert s1.await_end() == -signal.SIGKILL, f"{deadly}: the partner ended otherwise"
        assert_both_there(mine, old, new, spec)
    with main.frozen():
        s1.start()
        s1.await_recovered()
        eventually(
            lambda: is_exactly_one(mine, old, new), 30, lambda: f"{spec}: {difference(mine, old, new)}"
        )
    s1.await_in_step(number)
    found = tree_of(mine)
    assert carried(found, ignored) == carried(new | leftovers(found), ignored), (
        f"{spec}: {difference(mine, old, new)}"
    )
    assert_rested(fleet, "s1")
    assert_nothing_lost(fleet, "s1", old, new)
    assert str(number) in reloads.read_text().split(), f"{spec}: no reload for {number}"
    for left in mine.glob("half-*/cache.tmp"):
        if left.parent.name != f"half-{workload.number}":
            left.unlink()
            left.parent.rmdir()


def leftovers(found: Tree) -> Tree:
    """Ignored files and the directories that they keep on the partner."""
    kept = {path: what for path, what in found.items() if ignored(path)}
    parents = {path.rpartition(b"/")[0] for path in kept}
    return kept | {path: found[path] for path in parents if path in found}


def is_exactly_one(root: Path, old: Tree, new: Tree) -> bool:
    found = tree_of(root)
    return found == old or carried(found, ignored) == carried(new | leftovers(found), ignored)


def assert_both_there(root: Path, old: Tree, new: Tree, spec: str) -> None:
    """P2 right after the death: a file of both generations is there, whole, as one of the two."""
    found = tree_of(root)
    for path in old.keys() & new.keys():
        if old[path][0] == new[path][0] == "file":
            assert path in found, f"{spec}: {path!r} is missing"
            assert found[path][2] in (old[path][2], new[path][2]), f"{spec}: {path!r} is neither old nor new"


def difference(root: Path, old: Tree, new: Tree) -> str:
    found = tree_of(root)
    lines = []
    for name, tree in (("old", old), ("new", new)):
        for path in sorted({*tree, *found}):
            a: Any = tree.get(path)
            b: Any = found.get(path)
            if a != b:
                lines.append(f"  {path!r} {name}: {repr(a)[:90]} found: {repr(b)[:90]}")
    return "\n".join(lines[:60])
