"""The runs that are cut: the act of each, and its check after the power came back.

Every run works below one directory, so that its state can be laid there again; its other state (pages, contents of
the partner, the records of the node's store) is kept in memory. Here: the runs that move trees. ``shelf_runs`` has
the rest.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from instep.errors import InstepError
from instep.model.definition import Definition
from instep.model.statrow import StatRow
from instep.tree.archive import history as histories
from instep.tree.archive.archive import Archive
from instep.tree.archive.history import History
from instep.tree.journal.journal import Journal, Why
from instep.tree.objects import laying
from instep.tree.root import beneath, failpoints
from instep.tree.root.beneath import RenameUnsupportedError
from instep.tree.stage import next_tree
from instep.tree.stage.next_tree import Exchange
from instep.tree.stage.stages import clear_stages
from instep.tree.switch import step_work
from instep.tree.switch.recover import RecoveredKind, put_back, recover
from instep.tree.switch.rows import stat_rows
from instep.tree.switch.switch import finish, prepare, switch
from tests.support.apply_world import START_NS, Dir, File, Link, Tree, World, digest, expected, seen

__all__ = ["RECORDED", "TREE_RUNS", "Noted", "Run", "assert_archive_whole", "nothing", "replaced"]

Noted = Callable[[str], None]
RECORDED = "live is recorded"
KILLED = "the daemon was killed"
CARRIED = b"of this node alone"
LATER_NS = START_NS + 1_000_000_000
IGNORED = b"half/cache.tmp"
LARGE = b"t" * 70_000
OLD: Tree = {
    b"a/same": b"same",
    b"a/changed": b"old",
    b"a/removed": b"removed",
    b"becomes-dir": b"file",
    b"becomes-file/x": b"x",
    b"gone/one": b"1",
    b"half/data": b"data",
    b"half/in/deep": b"deep",
    b"link": Link(b"a/same"),
    b"moved/q/r": b"r",
    b"mode": Dir(0o700),
    b"touched": File(LARGE),
}
NEW: Tree = {
    b"a/same": b"same",
    b"a/changed": b"new",
    b"a/added": b"added",
    b"becomes-dir/in": b"in",
    b"becomes-file": b"now a file",
    b"fresh/deep/er": b"fresh",
    b"link": Link(b"a/changed"),
    b"renamed/q/r": b"r",
    b"mode": Dir(0o755, START_NS + 5),
    b"touched": File(LARGE, 0o600),
}
MORE: Tree = {**OLD, b"added": b"added", b"more/of/it": b"more"}


class Run(Protocol):
    """``act`` is recorded; ``check`` recovers what a cut left and asserts."""

    def act(self, note: Noted) -> None: ...

    def check(self, notes: frozenset[str]) -> None: ...


class Apply:
    """A generation with every kind of change is applied to the one before it."""

    past: tuple[Tree, ...] = (OLD,)
    after: Tree = NEW
    carry: tuple[bytes, ...] | None = None
    displaced: tuple[bytes, ...] = (
        b"a/changed", b"a/removed", b"becomes-dir", b"becomes-file/x", b"gone/one", b"half/data", b"half/in/deep",
    )  # fmt: skip
    """Contents that the archive must have in the end."""

    def __init__(self, base: Path) -> None:
        self.world = World.make(base, Definition(ignore=("*.tmp",)))
        for number, tree in enumerate(self.past):
            self.world.apply(tree)
            if number == 0:
                (self.world.root / os.fsdecode(IGNORED)).write_bytes(CARRIED)
        self.before = self.world.live
        if self.carry is not None:
            self.world.exchange = Exchange(carry=self.carry)
        self.target = self.world.generation(self.after)
        self.row = self.row_of_touched()

    def row_of_touched(self) -> StatRow:
        """With it the large file is changed in place."""
        found = (self.world.root / "touched").lstat()
        times = (found.st_ctime_ns, found.st_mtime_ns)
        return StatRow(b"touched", found.st_ino, found.st_dev, *times, found.st_size, digest(LARGE), b"", 0)

    def act(self, note: Noted) -> None:
        self.bring(copy.copy(self.world), note)

    def bring(self, world: World, note: Noted) -> None:
        """As a node does it, with a note where it records live."""
        journal = self.stage(world)
        prepare(world.place, journal, local=world.local)
        switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=9)
        self.close(world, switched.journal, note)

    def stage(self, world: World) -> Journal:
        rows = {self.row.path: self.row}
        return world.stage(self.target, now_ns=LATER_NS, live_row=rows.get)

    def close(self, world: World, journal: Journal, note: Noted) -> None:
        list(stat_rows(world.place, journal))
        note(RECORDED)
        finish(world.place, journal)
        clear_stages(world.place)
        world.end_linger()

    def recover(self, world: World, note: Noted) -> bool:
        """Do the start of a node; return whether that brought the target."""
        recovered = recover(world.place, local=world.local, get_page=world.page, now_ms=10)
        if recovered.kind is RecoveredKind.FINISHED:
            assert recovered.target == self.target, "another generation was finished"
        if recovered.journal is not None:
            self.close(world, recovered.journal, note)
        return recovered.kind is RecoveredKind.FINISHED

    def check(self, notes: frozenset[str]) -> None:
        world = copy.copy(self.world)
        is_there = self.recover(world, nothing) or RECORDED in notes
        self.assert_holds(world, self.after if is_there else self.past[-1])
        assert_archive_whole(world)
        if not is_there:
            self.bring(world, nothing)
            self.assert_holds(world, self.after)
        clear_stages(world.place)
        world.end_linger()
        assert not os.listdir(world.place.stage), "a stage was left"
        assert not world.place.journal.exists(), "a journal was left"
        trees = {path: what for tree in self.past for path, what in tree.items()}
        assert_archive_whole(world)
        assert_kept(world, {path: trees[path] for path in self.displaced})

    def assert_holds(self, world: World, tree: Tree) -> None:
        wanted = {**expected(tree, world.contents), "half": ("dir", "0o755"), "half/cache.tmp": (CARRIED,)}
        found = seen(world.root)
        found["half"] = found.get("half", ())[:2]  # its time is that of the ignored file's arrival
        found["half/cache.tmp"] = found.get("half/cache.tmp", ())[-1:]
        wrong = {
            name: (wanted.get(name, ())[:3], found.get(name, ())[:3])
            for name in wanted.keys() | found.keys()
            if wanted.get(name) != found.get(name)
        }
        assert not wrong, f"the {'new' if tree is self.after else 'old'} generation is there but for {wrong}"


class ApplyByLink(Apply):
    """On a file system that can neither exchange nor rename without replacement."""

    def act(self, note: Noted) -> None:
        with without_renameat2():
            super().act(note)

    def check(self, notes: frozenset[str]) -> None:
        with without_renameat2():
            super().check(notes)


class ApplyAtOnce(Apply):
    """So much changes that the whole file system is synced, not each object."""

    def act(self, note: Noted) -> None:
        with synced_at_once():
            super().act(note)


class Exchanged(Apply):
    """The whole root is exchanged, and the old tree lingers."""

    carry = (IGNORED,)


class ExchangedAtOnce(Exchanged):
    """The same with so many directories that the file system is synced as a whole."""

    def act(self, note: Noted) -> None:
        with replaced((next_tree, "SYNC_SINGLY_MAX", 0)):
            super().act(note)


class Addition(Apply):
    """Only new paths come, so that nothing goes to the archive."""

    after = MORE
    displaced = ()


class Revert(Apply):
    """Drift goes to the archive, and the tree equals its generation."""

    past = (OLD, NEW)
    after = OLD
    displaced = (b"a/changed", b"a/added", b"becomes-dir/in", b"becomes-file", b"fresh/deep/er")

    def stage(self, world: World) -> Journal:
        return world.stage(self.target, LATER_NS, previous=self.target, why=Why.DRIFT)


class PutBack(Revert):
    """The generation before is put back from the archive alone."""

    def bring(self, world: World, note: Noted) -> None:
        assert world.live is not None
        options = {"local": world.local, "now_ns": LATER_NS}
        switched = put_back(
            world.place,
            self.target,
            world.live,
            world.page,
            world.definition,
            **options,  # type: ignore[arg-type]
        )
        self.close(world, switched.journal, note)


class Restore(Revert):
    """An earlier generation comes back to a writer's tree from its history."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        with contextlib.closing(History(self.world.place)) as kept:
            for name, data in self.world.contents.items():
                kept.put(name, data)
            kept.sync()

    def stage(self, world: World) -> Journal:
        with contextlib.closing(History(self.world.place)) as kept:
            found = {name: data for name in kept.digests() if (data := kept.get(name)) is not None}
            writer = dataclasses.replace(world, contents=found)
            return writer.stage(self.target, LATER_NS, sources=(lambda entry: kept.open(entry.digest),))


class Killed(Apply):
    """The daemon is killed in the middle; the next one finishes what it finds, before the power goes."""

    at = "switch.step.after:3"

    def act(self, note: Noted) -> None:
        with killed_at(self.at):
            super().act(note)
        note(KILLED)
        world = copy.copy(self.world)
        if not self.recover(world, note):
            self.bring(world, note)


class KilledExchanged(Killed, Exchanged):
    """The same where the whole root is exchanged."""

    at = "exchange.swapped"


def nothing(_: str) -> None:
    """No note is taken while a recovery is checked."""


def assert_archive_whole(world: World) -> None:
    """Every object that the archive lists is there."""
    for item in Archive(world.place).list_items():
        path = world.place.archive / item.batch / "o" / os.fsdecode(item.object)
        assert os.path.lexists(path), f"{item.path!r} of batch {item.batch} is listed and not there"


def assert_kept(world: World, tree: Tree) -> None:
    """The archive gives every content of ``tree`` back (P5)."""
    to = world.place.root.parent / "restored"
    for path, data in tree.items():
        try:
            where = Archive(world.place).restore(path, to)
        except InstepError as error:
            raise AssertionError(f"{path!r} was lost: {error}") from error
        assert Path(os.fsdecode(where)).read_bytes() == data, f"{path!r} was archived as something else"


@contextlib.contextmanager
def replaced(*values: tuple[object, str, object]) -> Iterator[None]:
    """Attributes of modules have other values meanwhile."""
    kept = [(where, name, getattr(where, name)) for where, name, _ in values]
    try:
        for where, name, value in values:
            setattr(where, name, value)
        yield
    finally:
        for where, name, value in kept:
            setattr(where, name, value)


def without_renameat2() -> contextlib.AbstractContextManager[None]:
    def refuse(*_: object) -> None:
        raise RenameUnsupportedError(errno.ENOSYS, "renameat2 is off")

    return replaced((beneath, "rename_exchange", refuse), (beneath, "rename_noreplace", refuse))


def synced_at_once() -> contextlib.AbstractContextManager[None]:
    modules = (laying, step_work, next_tree, histories)
    return replaced(*((module, "SYNC_SINGLY_MAX", 0) for module in modules))


class Kill(BaseException):
    """Ends a run as a signal would, but for closing what is open."""


@contextlib.contextmanager
def killed_at(failpoint: str) -> Iterator[None]:
    """The process ends at that failpoint."""

    def act(name: str) -> None:
        failpoints.disarm_all()
        raise Kill(name)

    name, _, count = failpoint.partition(":")
    failpoints.arm(name, "kill")
    left = int(count or 1)

    def hit(name: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            act(name)

    with replaced((failpoints, "_act", hit)), contextlib.suppress(Kill):
        yield
        raise AssertionError(f"{failpoint} was not reached")


@contextlib.contextmanager
def killed_at_sync(number: int) -> Iterator[None]:
    """The process ends as it asks for a sync, the ``number``-th."""
    fsync, left = os.fsync, number

    def end(fd: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Kill
        fsync(fd)

    with replaced((os, "fsync", end)), contextlib.suppress(Kill):
        yield
        raise AssertionError(f"there was no sync number {number}")


TREE_RUNS: dict[str, Callable[[Path], Run]] = {
    "apply": Apply,
    "apply by link": ApplyByLink,
    "apply, synced at once": ApplyAtOnce,
    "addition": Addition,
    "exchange": Exchanged,
    "exchange, synced at once": ExchangedAtOnce,
    "revert": Revert,
    "put back": PutBack,
    "restore": Restore,
    "apply after a kill": Killed,
    "exchange after a kill": KilledExchanged,
}
