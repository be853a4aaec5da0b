"""Full disks, read-only trees, lost rights and lost state: said with reason and next step, and over when the cause
goes."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.crashes import Crasher, Tree, assert_rested, crashers
from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually


def some_tree(root: Path, text: str, files: int = 40) -> None:
    (root / "sub").mkdir(parents=True, exist_ok=True)
    for number in range(files):
        (root / "sub" / f"f{number}").write_text(f"{text} {number}\n" * 20)


def inodes(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_ino for p in (root / "sub").iterdir()}


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
    def says() -> bool:
        return any("rebuilt" in text for text in node.call("status")["warnings"])

    eventually(says, 20, lambda: f"a warning of {node.node.name}\n{node.node.log()}")


@pytest.fixture
def small_disk(fleet: Fleet) -> Iterator[Path]:
    """A file system of 24 MiB of its own as the partner's root; needs root and loop devices."""
    if os.geteuid() != 0 or shutil.which("mkfs.ext4") is None:
        pytest.skip("needs root and mkfs.ext4")
    image, at = fleet.base / "disk.img", fleet.tree("s1")
    at.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(24 << 20)
    subprocess.run(
        ["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", str(image)], check=True, timeout=30
    )
    done = subprocess.run(
        ["mount", "-o", "loop", str(image), str(at)], capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        pytest.skip(f"cannot mount a loop device: {done.stderr.strip()}")
    try:
        yield at
    finally:
        fleet.close()
        subprocess.run(["umount", "-l", str(at)], check=True, timeout=60)


@pytest.mark.timeout(600)
def test_a_full_and_a_read_only_disk(fleet: Fleet, small_disk: Path) -> None:
    """Goal: no space and no writing are said with the next step, the served tree stays whole, and it goes on when the
    cause goes. Method: a small disk filled up by an ignored file, then mounted read-only."""
    tree = fleet.tree("main")
    some_tree(tree, "first")
    fleet.make(1, add=("--settle", "20ms", "--ignore", "*.tmp", "--publish", "manual"))
    with crashers(fleet, "main", "s1") as (main, s1):
        s1.await_in_step(main.publish()["number"])
        whole = without(tree_of(small_disk))
        fill(small_disk / "ballast.tmp")
        for number in range(8):
            (tree / f"large{number}").write_bytes(os.urandom(500_000))
        number = main.publish()["number"]
        assert_in_trouble(s1, "disk_full", "no_space")
        assert without(tree_of(small_disk)) == whole
        (small_disk / "ballast.tmp").unlink()
        s1.await_in_step(number)
        assert without(tree_of(small_disk)) == tree_of(tree)
        assert_rested(fleet, "s1")
        whole = without(tree_of(small_disk))
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True, timeout=60)
        some_tree(tree, "second")
        number = main.publish()["number"]
        assert_in_trouble(s1, "read_only", "stage_unusable")
        assert without(tree_of(small_disk)) == whole
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True, timeout=60)
        s1.await_in_step(number)
        assert without(tree_of(small_disk)) == tree_of(tree)
        assert_rested(fleet, "s1")


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with pytest.raises(OSError, match="No space left") as full:
                while True:
                    file.write(b"x" * size)
            assert full.value.errno == errno.ENOSPC


def without(tree: Tree) -> Tree:
    """The content of a tree: without ignored paths and the directory of mkfs."""
    return {path: what for path, what in tree.items() if not path.endswith(b".tmp") and path != b"lost+found"}


def assert_in_trouble(node: Crasher, *codes: str) -> None:
    """A standing with code, reason and next step."""
    found = node.await_line(lambda line: line["code"] in codes)
    assert found["standing"] in ("failing", "blocked", "held"), found
    assert found["reason"], found
    assert found["next"], found


def assert_noted(node: Crasher, code: str) -> None:
    """The failed switch is among the events, whatever came after it."""

    def events() -> list[Any]:
        found: list[Any] = node.control.call("events", {})["events"]
        return found

    eventually(
        lambda: any(each["what"] == "switch_failed" and each["code"] == code for each in events()),
        30,
        lambda: f"the event of a failed switch: {events()}\n{node.node.log()}",
    )


@pytest.mark.timeout(600)
def test_a_disk_that_fails_in_the_middle(fleet: Fleet) -> None:
    """Goal: an error of the kernel at any step leaves a whole tree, is said, and a restart with a well disk goes on.
    Method: failpoints that fail instead of killing, while staging and while switching."""
    tree = fleet.tree("main")
    some_tree(tree, "first")
    fleet.make(1, add=("--publish", "manual"))
    failures = (
        ("stage.sealing=enospc", "disk_full"),
        ("switch.step.after:7=erofs", "read_only"),
        ("switch.begun=eacces", "no_permission"),
        ("apply.recording=eio", "disk_error"),
    )
    with crashers(fleet, "main", "s1") as (main, s1):
        s1.await_in_step(main.publish()["number"])
        for turn, (failure, code) in enumerate(failures):
            s1.kill()
            old = tree_of(fleet.tree("s1"))
            some_tree(tree, f"turn {turn}")
            number = main.publish()["number"]
            new = tree_of(tree)
            s1.start(failure)
            if failure.startswith("switch.begun"):
                assert_noted(s1, code)  # The recovery right after it goes well: nothing stands for long.
            else:
                assert_in_trouble(s1, code)
            for path, what in tree_of(fleet.tree("s1")).items():
                assert what[0] != "file" or what[2] in (old[path][2], new[path][2]), path
            s1.kill()
            s1.start()
            s1.await_in_step(number)
            assert tree_of(fleet.tree("s1")) == new
            assert_rested(fleet, "s1")


def test_lost_permission_and_a_removed_staging_directory(fleet: Fleet) -> None:
    """Goal: a path that may not be written is named, and the apply goes on by itself once it may; a control folder
    that an operator removed is made again. Method: an immutable file in the way of a switch; ``rm -r`` of stage and
    control folder."""
    tree, mine = fleet.tree("main"), fleet.tree("s1")
    some_tree(tree, "first")
    fleet.make(1, add=("--publish", "manual"))
    with crashers(fleet, "main", "s1") as (main, s1):
        s1.await_in_step(main.publish()["number"])
        for folder in ("stage", ""):
            shutil.rmtree(
                fleet.base / "s1" / ".instep-data" / folder, ignore_errors=True
            )  # it may come back meanwhile
            some_tree(tree, f"without {folder or 'all'}")
            s1.await_in_step(main.publish()["number"])
            assert tree_of(mine) == tree_of(tree)
            assert_rested(fleet, "s1")
        done = subprocess.run(["chattr", "+i", str(mine / "sub" / "f7")], capture_output=True, timeout=60)
        if done.returncode:
            pytest.skip("chattr +i does not work here")
        try:
            old = tree_of(mine)
            some_tree(tree, "past what may not be written")
            number = main.publish()["number"]
            new = tree_of(tree)
            assert_in_trouble(s1, "no_permission")
            for path, what in tree_of(mine).items():
                assert what[0] != "file" or what[2] in (old[path][2], new[path][2]), path
        finally:
            subprocess.run(["chattr", "-i", str(mine / "sub" / "f7")], check=True, timeout=60)
        s1.await_in_step(number)
        assert tree_of(mine) == new
        assert_rested(fleet, "s1")
