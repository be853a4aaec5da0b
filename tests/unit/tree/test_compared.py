"""Compare and set: a step is taken only where the tree still holds the base, whatever a program does meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from instep.errors import ContentionError, ResourceError
from instep.model.ids import Digest
from instep.model.paths import shown
from instep.tree.archive.archive import Archive
from instep.tree.journal import renames
from instep.tree.journal.journal import Compare, Journal, Why
from instep.tree.journal.plan import object_key
from instep.tree.root import beneath
from instep.tree.root.beneath import RenameUnsupportedError
from instep.tree.switch import compared_steps
from instep.tree.switch.recover import RecoveredKind, recover
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import START_NS, File, Link, Tree, World, expected, seen

OLD: Tree = {
    b"changed": b"one",
    b"chmod": b"mode",
    b"d/deep/x": b"x",
    b"d/y": b"y",
    b"file": b"becomes a directory",
    b"gone": b"gone",
    b"link": Link(b"changed"),
    b"nest/x": b"becomes a file",
    b"same": b"same",
    b"touched": File(b"t" * 100_000),
}
NEW: Tree = {
    b"changed": b"two",
    b"chmod": File(b"mode", 0o600),
    b"file/in": b"in",
    b"fresh/in": b"in",
    b"link": Link(b"same"),
    b"nest": b"now a file",
    b"new": b"new",
    b"same": b"same",
    b"touched": File(b"t" * 100_000, 0o600),
}
UNITS = ("changed", "chmod", "d", "file", "fresh", "gone", "link", "nest", "new", "touched")
SAVED = b"a program wrote this meanwhile"

Act = Callable[[Path], None]


def save(path: Path) -> None:
    """As editors do: a whole new file takes the name; in a directory, a new file."""
    if path.is_dir() and not path.is_symlink():
        (path / "saved").write_bytes(SAVED)
        return
    path.with_name("saved.tmp").write_bytes(SAVED)
    path.with_name("saved.tmp").rename(path)


def write_unseen(path: Path) -> None:
    """In place, of the same length, with the old time put back: nothing but the bytes shows it."""
    while path.is_dir():
        path = next(path.iterdir())
    if path.is_symlink() or not path.exists():
        save(path)
        return
    before = path.stat()
    path.write_bytes(SAVED[: before.st_size].ljust(before.st_size, b"."))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        next(p for p in sorted(path.rglob("*")) if p.is_file()).unlink()
    elif os.path.lexists(path):
        path.unlink()
    else:
        save(path)


def become_directory(path: Path) -> None:
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir()):
        path.unlink()
    path.mkdir(exist_ok=True)
    (path / "saved").write_bytes(SAVED)


ACTS: tuple[Act, ...] = (save, write_unseen, remove, become_directory)


@pytest.fixture(params=["exchange", "link", "neither"])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that exchange, that only link, and that can do neither."""

    def refuse(*_: object) -> None:
        raise RenameUnsupportedError(errno.EINVAL, "no flags here")

    def refuse_link(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if request.param != "exchange":
        for name in ("rename_exchange", "rename_noreplace"):
            monkeypatch.setattr(beneath, name, refuse)
    if request.param == "neither":
        monkeypatch.setattr(os, "link", refuse_link)


def begun(at: Path, compare: Compare = Compare.EACH) -> tuple[World, Journal]:
    at.mkdir(exist_ok=True)
    world = World.make(at)
    world.apply(OLD)
    return world, world.stage(world.generation(NEW), now_ns=START_NS + 9, compare=compare)


def switched(world: World, journal: Journal) -> Journal:
    return switch(world.place, journal, local=world.local, get_page=world.page, now_ms=9).journal


def units(journal: Journal) -> set[str]:
    """The paths that were left as they are."""
    keys = {object_key(name.encode()): name for name in UNITS}
    return {keys[key] for key in journal.outdated}


def part(tree: dict[str, tuple[object, ...]], unit: str) -> dict[str, tuple[object, ...]]:
    """The objects at ``unit`` and below it, less the times of directories."""
    return {
        path: what[:2] if what[0] == "dir" else what
        for path, what in tree.items()
        if path == unit or path.startswith(unit + "/")
    }


@pytest.mark.usefixtures("renaming")
def test_where_nothing_changed_all_is_applied_and_what_it_replaced_is_archived(tmp_path: Path) -> None:
    world, journal = begun(tmp_path / "w")
    done = switched(world, journal)
    assert not done.outdated
    found, wanted = seen(world.root), expected(NEW, world.contents)
    for unit in (*UNITS, "same"):
        assert part(found, unit) == part(wanted, unit)
    why = {shown(item.path): item.why for item in Archive(world.place).list_items()}
    assert why == {
        "changed": Why.REPLACED,
        "chmod": Why.REPLACED,
        "d": Why.REMOVED,
        "file": Why.REPLACED,
        "gone": Why.REMOVED,
        "link": Why.REPLACED,
        "nest": Why.REPLACED,
    } | ({"touched": Why.REPLACED} if "touched" in why else {})
    finish(world.place, done)
    assert not world.place.journal.exists()


@pytest.mark.usefixtures("renaming")
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("parity", [0, 1])
def test_a_path_that_changed_since_the_base_was_seen_keeps_what_it_has(
    tmp_path: Path, parity: int, act: Act
) -> None:
    world, journal = begun(tmp_path / "w")
    touched = UNITS[parity::2]
    for unit in touched:
        act(world.root / unit)
    before = seen(world.root)
    done = switched(world, journal)
    found, wanted = seen(world.root), expected(NEW, world.contents)
    assert units(done) == set(touched)
    for unit in UNITS:
        assert part(found, unit) == part(before if unit in touched else wanted, unit)
    finish(world.place, done)
    items = [item for item in Archive(world.place).list_items() if b"/" not in item.object]
    assert not {item.path.decode() for item in items} & set(touched)
    assert {p.name for p in world.place.archive.glob("*/o/*")} == {i.object.decode() for i in items}


def test_a_directory_of_which_nothing_says_what_was_in_it_stays(tmp_path: Path) -> None:
    """Goal: without the base's pages, as after a sweep, a displaced directory goes back; files need none."""
    world, journal = begun(tmp_path / "w")

    def gone(page: Digest) -> bytes:
        raise KeyError(page)

    done = switch(world.place, journal, local=world.local, get_page=gone, now_ms=9).journal
    assert units(done) == {"d", "nest"}
    assert (world.root / "d" / "y").read_bytes() == b"y"
    assert (world.root / "changed").read_bytes() == b"two"


def test_all_or_nothing(tmp_path: Path) -> None:
    world, journal = begun(tmp_path / "w", Compare.WHOLE)
    save(world.root / "new")
    before = {unit: part(seen(world.root), unit) for unit in UNITS}
    with pytest.raises(ContentionError) as met:
        switched(world, journal)
    assert met.value.error_code == "outdated"
    recovered = recover(world.place, local=world.local, get_page=world.page, now_ms=10)
    assert recovered.kind is RecoveredKind.UNDONE
    assert {unit: part(seen(world.root), unit) for unit in UNITS} == before
    assert not list(Archive(world.place).list_items())


def on_hit(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[str], None]) -> list[str]:
    """Let ``act`` run at that hit of a failpoint of the steps; the names of those that were hit."""
    hits: list[str] = []

    def hit(name: str) -> None:
        hits.append(name)
        if len(hits) == number:
            act(name)

    for module in (compared_steps, renames):
        monkeypatch.setattr(module, "failpoint", hit)
    return hits


class Opened:
    """A program that has a file of the unit open for writing from before the switch."""

    def __init__(self, path: Path) -> None:
        while path.is_dir():
            path = next(path.iterdir())
        self.path = path
        self.fd = os.open(path, os.O_RDWR)

    def write(self) -> None:
        os.pwrite(self.fd, SAVED, 0)

    def is_linked(self) -> bool:
        return os.fstat(self.fd).st_nlink > 0

    def is_live(self) -> bool:
        return self.path.exists() and self.path.stat().st_ino == os.fstat(self.fd).st_ino


@pytest.mark.usefixtures("renaming")
@pytest.mark.parametrize("unit", ["changed", "d", "file", "gone", "nest"])
def test_a_write_through_an_open_descriptor_before_the_look_is_found_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    """The object has left its path, and its program does not know."""
    world, journal = begun(tmp_path / "w")
    opened = Opened(world.root / unit)

    def write(name: str) -> None:
        if not opened.is_live() or name == compared_steps._LINKED:
            opened.write()

    for module in (compared_steps, renames):
        monkeypatch.setattr(module, "failpoint", write)
    done = switched(world, journal)
    assert units(done) == {unit}
    assert opened.is_live()
    assert os.pread(opened.fd, 100, 0).startswith(SAVED)
    finish(world.place, done)
    assert unit.encode() not in {item.path for item in Archive(world.place).list_items()}
    os.close(opened.fd)


@pytest.mark.usefixtures("renaming")
@pytest.mark.parametrize(
    ("act", "is_killed"),
    [(None, True), (save, False), (save, True), (become_directory, False)],
    ids=["a write, and it dies", "a save", "a save, and it dies", "a directory"],
)
def test_whatever_a_program_does_at_any_moment_of_a_step_its_bytes_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: Act | None, is_killed: bool
) -> None:
    """At every moment of every step a program acts at each path; then the switch dies there, or goes on."""
    for number in count(1):
        world, journal = begun(tmp_path / str(number))
        opened = [Opened(world.root / unit) for unit in ("changed", "d", "file", "gone", "nest")]

        def meddle(_: str, world: World = world, opened: list[Opened] = opened) -> None:
            if act is None:
                for each in opened:
                    each.write()
            else:
                for unit in UNITS:
                    act(world.root / unit)
            if is_killed:
                raise OSError(errno.EIO, "dies here")

        with monkeypatch.context() as patched:
            hits = on_hit(patched, number, meddle)
            try:
                done = switched(world, journal)
            except ResourceError:
                assert is_killed
                patched.undo()
                recovered = recover(world.place, local=world.local, get_page=world.page, now_ms=10)
                assert recovered.kind is RecoveredKind.FINISHED
                assert recovered.journal is not None
                done = recovered.journal
        if act is None and len(hits) >= number:
            assert all(each.is_linked() for each in opened), hits[-1]
        elif len(hits) >= number:
            assert all(SAVED in contents(world, unit) for unit in UNITS), hits[-1]
        finish(world.place, done)
        assert not world.place.journal.exists()
        for each in opened:
            os.close(each.fd)
        if len(hits) < number:
            break
    assert number > 5


def contents(world: World, unit: str) -> set[bytes]:
    """The bytes of the files at the unit in the tree, and of the ones that the archive has of it."""
    found = {what[-1] for what in part(seen(world.root), unit).values()}
    for item in Archive(world.place).list_items():
        if item.path.decode() == unit:
            at = world.place.archive / item.batch / "o" / os.fsdecode(item.object)
            found |= {p.read_bytes() for p in (at, *at.rglob("*")) if p.is_file() and not p.is_symlink()}
    return {each for each in found if isinstance(each, bytes)}
