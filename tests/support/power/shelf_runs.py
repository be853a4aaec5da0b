"""Runs that are cut and move no live tree: history, archive, lingering trees, control folder and marker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from instep.errors import InstepError
from instep.model.ids import NodeName
from instep.tree.archive import history as histories
from instep.tree.archive.archive import Archive
from instep.tree.archive.history import History
from instep.tree.root.beneath import rename_exchange
from instep.tree.root.marker import create_marker, read_marker
from instep.tree.root.place import prepare_place, resolve_place
from instep.tree.stage.next_tree import NEXT
from instep.tree.switch import exchange as exchanges
from instep.tree.switch.linger import end_linger, lingering
from instep.tree.switch.switch import finish, prepare, switch
from tests.support.apply_world import FILESET, Dir, Tree, World, digest
from tests.support.power.runs import (
    KILLED,
    Exchanged,
    Noted,
    Run,
    assert_archive_whole,
    assert_kept,
    killed_at_sync,
    replaced,
    synced_at_once,
)

__all__ = ["SHELF_RUNS"]

FIRST = (b"one", b"two" * 400, b"3" * 70_000)
SECOND = (b"four" * 100, b"5" * 70_001, b"six")
THIRD = (b"seven" * 200, b"eight")


class Publish:
    """Contents of two generations go to the history; each is recorded once they are synced."""

    def __init__(self, base: Path) -> None:
        self.world = World.make(base)
        put(self.world, FIRST)

    def act(self, note: Noted) -> None:
        put(self.world, SECOND)
        note("second")
        put(self.world, THIRD)
        note("third")

    def check(self, notes: frozenset[str]) -> None:
        named = [*FIRST, *(SECOND if "second" in notes else ()), *(THIRD if "third" in notes else ())]
        assert_has(self.world, named)
        put(self.world, (*SECOND, *THIRD))
        assert_has(self.world, (*FIRST, *SECOND, *THIRD))


class PublishFirst(Publish):
    """The same where the node has no history yet, and its packs are short."""

    def __init__(self, base: Path) -> None:
        self.world = World.make(base)

    def act(self, note: Noted) -> None:
        with replaced((histories, "PACK_MAX", 600)):
            put(self.world, FIRST)
            note("first")
            super().act(note)

    def check(self, notes: frozenset[str]) -> None:
        if "first" in notes:
            super().check(notes)
        put(self.world, FIRST)
        assert_has(self.world, FIRST)


class PublishAtOnce(PublishFirst):
    """The same with a sync of the whole file system."""

    def act(self, note: Noted) -> None:
        with synced_at_once():
            super().act(note)


class PublishAfterKill(Publish):
    """The daemon is killed at one of its syncs; the next one finds contents there, and records them."""

    def __init__(self, base: Path, sync: int) -> None:
        super().__init__(base)
        self.sync = sync

    def act(self, note: Noted) -> None:
        with killed_at_sync(self.sync):
            put(self.world, SECOND)
        note(KILLED)
        super().act(note)


class Collect:
    """Contents that no generation names leave the history, and packs are written anew."""

    def __init__(self, base: Path) -> None:
        self.world = World.make(base)
        with replaced((histories, "PACK_MAX", 600)):
            put(self.world, (*FIRST, *SECOND, *THIRD))
        self.live = {digest(data): data for data in (FIRST[0], FIRST[2], SECOND[2])}

    def act(self, note: Noted) -> None:
        with replaced((histories, "PACK_MAX", 10)), contextlib.closing(History(self.world.place)) as kept:
            kept.collect(self.live.__contains__)
        note("collected")

    def check(self, notes: frozenset[str]) -> None:
        assert_has(self.world, self.live.values())
        with contextlib.closing(History(self.world.place)) as kept:
            kept.collect(self.live.__contains__)
        assert_has(self.world, self.live.values())


class Prune:
    """Two of three batches leave the archive: each is listed whole, or not at all."""

    trees: tuple[Tree, ...] = (
        {b"a/one": b"1", b"a/b/two": b"2", b"three": b"3"},
        {b"three": b"33", b"a/four": b"4"},
        {b"three": b"333", b"c/five": b"5"},
        {b"six": b"6"},
    )

    def __init__(self, base: Path) -> None:
        self.world = World.make(base)
        for tree in self.trees:
            self.world.apply(tree)
        self.batches = [batch.name for batch in Archive(self.world.place).batches()]
        assert len(self.batches) == 3

    def act(self, note: Noted) -> None:
        Archive(self.world.place).prune(self.batches[:2])
        note("pruned")

    def check(self, notes: frozenset[str]) -> None:
        archive = Archive(self.world.place)
        assert_archive_whole(self.world)
        left = [batch.name for batch in archive.batches()]
        assert "pruned" not in notes or left == self.batches[2:], "a pruned batch is there again"
        archive.prune(self.batches[:2])
        assert [batch.name for batch in archive.batches()] == self.batches[2:]
        assert_kept(self.world, {b"three": b"333", b"c/five": b"5"})


class RestoreOut:
    """A directory is copied out of the archive: it is there whole, or not at all."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.world = World.make(base)
        self.world.apply({b"d/e/one": b"1", b"d/e/f/two": b"2" * 5000, b"d/g": Dir(0o750), b"x": b"x"})
        self.world.apply({b"x": b"x"})

    def act(self, note: Noted) -> None:
        Archive(self.world.place).restore(b"d/e", self.base / "new" / "out")
        note("restored")

    def check(self, notes: frozenset[str]) -> None:
        where = self.base / "new" / "out" / "d" / "e"
        assert where.exists() or "restored" not in notes, "the restored directory is gone"
        if not where.exists():
            Archive(self.world.place).restore(b"d/e", self.base / "new" / "out")
        assert (where / "one").read_bytes() == b"1"
        assert (where / "f" / "two").read_bytes() == b"2" * 5000


class Linger(Exchanged):
    """The old tree of an exchange is taken down; late changes in it go to the archive."""

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        world = self.world
        journal = self.stage(world)
        prepare(world.place, journal, local=world.local)
        switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=9)
        finish(world.place, switched.journal)
        (batch,) = lingering(world.place)
        self.old = world.place.archive / os.fsdecode(batch) / os.fsdecode(NEXT)
        (self.old / "a" / "late").write_bytes(b"late")
        (self.old / "later").write_bytes(b"later")
        self.batch = batch

    def act(self, note: Noted) -> None:
        end_linger(self.world.place, self.batch, 1)
        note("ended")

    def check(self, notes: frozenset[str]) -> None:
        place = self.world.place
        self.assert_holds(self.world, self.after)
        assert "ended" not in notes or not lingering(place), "the old tree is there again"
        if lingering(place):
            end_linger(place, self.batch, 1)
        assert_archive_whole(self.world)
        old = {path: self.past[0][path] for path in self.displaced}
        assert_kept(self.world, {**old, b"a/late": b"late", b"later": b"later"})


class Withdrawn(Exchanged):
    """The kernel refuses to exchange the root: the old generation stays, and carried paths go back."""

    def act(self, note: Noted) -> None:
        def refuse(from_fd: int, name: bytes, to_fd: int, to_name: bytes) -> None:
            if name == NEXT:
                raise OSError(16, "device or resource busy")
            rename_exchange(from_fd, name, to_fd, to_name)

        with replaced((exchanges, "rename_exchange", refuse)), contextlib.suppress(InstepError):
            super().act(note)
        note("withdrawn")


class Joined:
    """A fileset gets its marker and its control folder."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.root.mkdir()

    def act(self, note: Noted) -> None:
        create_marker(self.root, FILESET, NodeName("s1"))
        note("marked")
        prepare_place(resolve_place(self.root, FILESET))
        note("prepared")

    def check(self, notes: frozenset[str]) -> None:
        marker = read_marker(self.root)
        if marker is None:
            assert "marked" not in notes, "the marker is gone"
            create_marker(self.root, FILESET, NodeName("s1"))
        place = resolve_place(self.root, FILESET)
        assert not place.is_control_inside, "the control folder is taken for another's"
        assert place.control.exists() or "prepared" not in notes, "the control folder is gone"
        prepare_place(place)
        World(place).apply({b"a": b"a"})


def put(world: World, contents: Iterable[bytes]) -> None:
    """As a writer does it: after ``sync`` a generation names them."""
    with contextlib.closing(History(world.place)) as kept:
        for data in contents:
            if not kept.has(digest(data)):
                kept.put(digest(data), data)
        kept.sync()


def assert_has(world: World, contents: Iterable[bytes]) -> None:
    with contextlib.closing(History(world.place)) as kept:
        for data in contents:
            assert kept.get(digest(data)) == data, f"{data[:10]!r} of {len(data)} bytes is gone"


SHELF_RUNS: dict[str, Callable[[Path], Run]] = {
    "publish": Publish,
    "first publish": PublishFirst,
    "first publish, synced at once": PublishAtOnce,
    "publish after a kill before its second sync": lambda base: PublishAfterKill(base, 2),
    "publish after a kill before its third sync": lambda base: PublishAfterKill(base, 3),
    "publish after a kill before its fourth sync": lambda base: PublishAfterKill(base, 4),
    "collect": Collect,
    "prune": Prune,
    "restore out of the archive": RestoreOut,
    "linger": Linger,
    "withdrawn exchange": Withdrawn,
    "join": Joined,
}
