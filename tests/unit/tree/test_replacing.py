"""Replacing where it is hard: renames without flags, ignored paths in the way, a tree that is another one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from instep.errors import InstepError
from instep.model.definition import Definition
from instep.tree.archive.archive import Archive
from instep.tree.journal import renames
from instep.tree.root import beneath, failpoints
from instep.tree.root.beneath import RenameUnsupportedError
from instep.tree.switch.recover import RecoveredKind, recover
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import START_NS, Link, Tree, World

OLD: Tree = {b"f": b"one", b"g": b"one", b"l": Link(b"f")}
NEW: Tree = {b"f": b"two", b"g": b"two", b"l": Link(b"g"), b"n": b"new"}
SAVED = b"an editor saved this meanwhile"


@pytest.fixture
def without_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RenameUnsupportedError(errno.EINVAL, "no flags here")

    for name in ("rename_exchange", "rename_noreplace"):
        monkeypatch.setattr(beneath, name, refuse)


def save(path: Path) -> None:
    """As editors do: a whole new file takes the name."""
    path.with_name("saved.tmp").write_bytes(SAVED)
    path.with_name("saved.tmp").rename(path)


def kept(world: World) -> bool:
    """Whether the editor's bytes are in the tree or in the archive."""
    places = (world.root, world.place.archive)
    return any(p.read_bytes() == SAVED for place in places for p in place.rglob("*") if p.is_file())


def on_hit(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> list[str]:
    """Let ``act`` run at that hit of a failpoint of the renames; the names of those that were hit."""
    seen: list[str] = []

    def hit(name: str) -> None:
        seen.append(name)
        if len(seen) == number:
            act()

    monkeypatch.setattr(renames, "failpoint", hit)
    return seen


@pytest.mark.usefixtures("without_flags")
@pytest.mark.parametrize("is_killed", [False, True], ids=["goes on", "dies there"])
@pytest.mark.parametrize("path", ["f", "n", "l"])
def test_a_save_by_rename_at_any_moment_of_a_replacement_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, is_killed: bool
) -> None:
    for number in count(1):
        at = tmp_path / str(number)
        at.mkdir()
        world = World.make(at)
        world.apply(OLD)
        journal = world.stage(world.generation(NEW), now_ns=START_NS + 9)

        def act(world: World = world) -> None:
            save(world.root / path)
            if is_killed:
                raise OSError(errno.EIO, "dies here")

        seen = on_hit(monkeypatch, number, act)
        try:
            switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)
        except InstepError:
            assert (
                recover(world.place, local=world.local, get_page=world.page, now_ms=6).kind
                is RecoveredKind.FINISHED
            )
        if len(seen) < number:
            break
        assert kept(world), (number, seen)
        archived = {item.path for item in Archive(world.place).list_items()}
        assert path.encode() in archived or (world.root / path).read_bytes() == SAVED
        for name in ("f", "g", "n"):
            assert (world.root / name).read_bytes() in (b"two", b"new", SAVED), name
    assert number > 4


@pytest.mark.usefixtures("without_flags")
def test_a_new_file_never_replaces_one_that_came_first(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.apply(OLD)
    journal = world.stage(world.generation(NEW), now_ns=START_NS + 9)
    save(world.root / "n")
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)
    assert switched.drifted == [b"n"]
    assert kept(world)
    assert (world.root / "n").read_bytes() == b"new"


DEFINITION = Definition(ignore=("*.local", "*.d/"))
USERS = b"only copy of what users made here"


def ignoring(at: Path, tree: Tree) -> World:
    world = World.make(at, DEFINITION)
    world.apply(tree)
    return world


def make_ignored(directory: Path) -> None:
    (directory / "uploads.local").write_bytes(USERS)
    (directory / "sub.d").mkdir()
    (directory / "sub.d" / "deep").write_bytes(USERS)


def ignored_is_there(directory: Path) -> bool:
    files = (directory / "uploads.local", directory / "sub.d" / "deep")
    return all(path.is_file() and path.read_bytes() == USERS for path in files)


WITH_DIR: Tree = {b"d/x": b"1", b"d/y/z": b"2", b"k": b"k"}
TARGETS: dict[str, Tree] = {
    "becomes a link": {b"d": Link(b"k"), b"k": b"k"},
    "becomes a file": {b"d": b"file", b"k": b"k"},
    "moves": {b"new/x": b"1", b"new/y/z": b"2", b"k": b"k"},
    "is removed": {b"k": b"k"},
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("moment", ["before the seal", "after the seal", "in the last moment"])
def test_ignored_paths_stay_whatever_becomes_of_their_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Tree, moment: str
) -> None:
    world = ignoring(tmp_path, WITH_DIR)
    there = world.root / "d"
    if moment == "before the seal":
        make_ignored(there)
    journal = world.stage(world.generation(target), now_ns=START_NS + 9)
    if moment == "after the seal":
        make_ignored(there)
    if moment == "in the last moment":
        make_at_the_next_rename(monkeypatch, there)
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)
    assert ignored_is_there(there)
    becomes_other = not any(path.startswith(b"new/") for path in target) and b"d" in target
    if becomes_other:
        assert switched.held == [b"d"]
        assert (there / "x").read_bytes() == b"1"
    else:
        assert switched.kept == [b"d"]
        assert not (there / "x").exists()
        assert not (there / "y").exists()
    if b"new/x" in target:
        assert (world.root / "new" / "y" / "z").read_bytes() == b"2"
        assert sorted(os.listdir(world.root / "new")) == ["x", "y"]
    assert all(b"local" not in item.path for item in Archive(world.place).list_items())
    finish(world.place, switched.journal)


def make_at_the_next_rename(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    def before(real: Callable[..., None]) -> Callable[..., None]:
        def renamed(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
            if to_name == b"d" or from_name == b"d":
                monkeypatch.undo()
                make_ignored(directory)
            real(from_fd, from_name, to_fd, to_name)

        return renamed

    for name in ("rename_exchange", "rename_noreplace"):
        monkeypatch.setattr(beneath, name, before(getattr(beneath, name)))


def test_a_tree_that_came_back_file_by_file_in_mid_switch_is_doubted(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    world = World.make(first)
    world.apply(OLD)
    journal = world.stage(world.generation(NEW), now_ns=START_NS + 9)
    failpoints.arm("switch.step.after:1", "eio")
    try:
        with pytest.raises(InstepError):
            switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)
    finally:
        failpoints.disarm_all()
    first.rename(tmp_path / "aside")
    shutil.copytree(tmp_path / "aside", first, symlinks=True)
    found = recover(world.place, local=world.local, get_page=world.page, now_ms=6)
    assert found.is_doubtful
    assert found.switched is not None
    assert {b"f", b"g", b"l"} <= set(found.switched.missed)


def test_a_tree_that_only_a_crash_interrupted_is_not_doubted(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.apply(OLD)
    journal = world.stage(world.generation(NEW), now_ns=START_NS + 9)
    failpoints.arm("switch.step.after:1", "eio")
    try:
        with pytest.raises(InstepError):
            switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)
    finally:
        failpoints.disarm_all()
    found = recover(world.place, local=world.local, get_page=world.page, now_ms=6)
    assert (found.kind, found.is_doubtful) == (RecoveredKind.FINISHED, False)
