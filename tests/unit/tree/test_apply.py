"""The work of an apply on a tree: every kind of change, drift, ignored paths, hostile trees, put back."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from instep.errors import (
    ContentionError,
    DamagedError,
    InstepError,
    PeerError,
    RefusedError,
    UnavailableError,
)
from instep.model.definition import Definition, Preserve
from instep.model.manifest.entry import Extra
from instep.model.statrow import StatRow
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Op, Phase, Why
from instep.tree.objects.fidelity import Local
from instep.tree.root import failpoints
from instep.tree.stage.stages import list_stages
from instep.tree.switch.recover import RecoveredKind, put_back, recover
from instep.tree.switch.rows import GoneRow, stat_rows
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import START_NS, Dir, File, Link, Tree, World, digest

BASE: Tree = {
    b"a/x": b"1",
    b"a/y": b"2",
    b"dir/one": b"one",
    b"dir/sub/two": b"two",
    b"top": File(b"t", 0o640),
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


def without(tree: Tree, *paths: bytes) -> dict[bytes, File | Dir | Link | bytes]:
    return {path: what for path, what in tree.items() if path not in paths}


def whys(world: World) -> dict[bytes, Why]:
    return {item.path: item.why for item in Archive(world.place).list_items()}


def test_kinds_change_into_each_other(world: World) -> None:
    first: Tree = {
        b"p": b"file",
        b"q/in": b"dir",
        b"r": Link(b"p"),
        b"odd \n\xff'": Link(b"\xfe"),
        b"e": Dir(0o711),
    }
    second: Tree = {
        b"p/in": b"dir",
        b"q": Link(b"nowhere"),
        b"r": b"file",
        b"odd \n\xff'": b"now",
        b"e": Dir(0o755, 7),
    }
    for tree in (first, second, first):
        world.apply(tree)
        assert world.holds(tree)
    assert list_stages(world.place) == []
    assert not world.place.journal.exists()


def test_a_directory_that_only_moved_is_one_rename_and_nothing_is_fetched(world: World) -> None:
    world.apply(BASE)
    moved = {path.replace(b"dir/", b"moved/"): what for path, what in BASE.items()}
    world.fetched.clear()
    inode = (world.root / "dir/sub/two").stat().st_ino
    journal = world.stage(world.generation(moved))
    assert [step.op for step in journal.steps() if step.op is not Op.TIME] == [Op.MOVE]
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    rows = [row for row in stat_rows(world.place, switched.journal) if isinstance(row, StatRow)]
    assert {row.path for row in rows} == {b"moved/one", b"moved/sub/two"}
    assert world.holds(moved)
    assert (world.root / "moved/sub/two").stat().st_ino == inode
    assert world.fetched == []


def test_a_moved_directory_with_drift_in_it_does_not_move_as_one(world: World) -> None:
    world.apply(BASE)
    (world.root / "dir/stranger").write_bytes(b"local")
    moved = {path.replace(b"dir/", b"moved/"): what for path, what in BASE.items()}
    world.fetched.clear()
    world.apply(moved)
    assert world.holds(moved)
    assert world.fetched == []
    assert whys(world)[b"dir/stranger"] is Why.DRIFT


def test_a_moved_or_copied_file_comes_from_the_live_tree(world: World) -> None:
    world.apply(BASE)
    tree = {**without(BASE, b"top"), b"elsewhere/top2": File(b"t", 0o600)}
    world.fetched.clear()
    world.apply(tree)
    assert world.holds(tree)
    assert world.fetched == []


def test_drift_is_archived_and_named(world: World) -> None:
    world.apply(BASE)
    (world.root / "a/x").write_bytes(b"edited here")
    (world.root / "new").write_bytes(b"made here")
    (world.root / "a/y").unlink()
    switched = world.apply({**BASE, b"a/x": b"11", b"a/y": b"22", b"new": b"theirs"})
    assert world.holds({**BASE, b"a/x": b"11", b"a/y": b"22", b"new": b"theirs"})
    assert sorted(switched.drifted) == [b"a/x", b"a/y", b"new"]
    assert whys(world) == {b"a/x": Why.DRIFT, b"new": Why.DRIFT}


def test_a_revert_stages_against_the_drifted_tree(world: World) -> None:
    world.apply(BASE)
    live = world.live
    assert live is not None
    (world.root / "a/x").write_bytes(b"edited here")
    os.utime(world.root / "a/x", ns=(START_NS, START_NS + 1))
    (world.root / "extra").write_bytes(b"e")
    os.utime(world.root / "extra", ns=(START_NS, START_NS))
    drifted = world.generation({**BASE, b"a/x": File(b"edited here", 0o644, START_NS + 1), b"extra": b"e"})
    world.live = drifted
    journal = world.stage(live, why=Why.DRIFT)
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)
    finish(world.place, switched.journal)
    assert world.holds(BASE)
    assert whys(world) == {b"a/x": Why.DRIFT, b"extra": Why.DRIFT}


def test_ignored_paths_stay_and_hold_their_directory(tmp_path: Path) -> None:
    world = World.make(tmp_path, Definition(ignore=("*.log", "cache/")))
    world.apply(BASE)
    (world.root / "dir/sub/run.log").write_bytes(b"log")
    (world.root / "cache").mkdir()
    switched = world.apply({b"a/x": b"1"})
    assert switched.kept == [b"dir"]
    assert (world.root / "dir/sub/run.log").read_bytes() == b"log"
    assert sorted(os.listdir(world.root / "dir/sub")) == ["run.log"]
    assert sorted(os.listdir(world.root)) == [".instep", "a", "cache", "dir"]
    world.apply(BASE)  # the remainder is merged with, not replaced
    assert (world.root / "dir/sub/run.log").read_bytes() == b"log"
    assert (world.root / "dir/sub/two").read_bytes() == b"two"


def test_a_path_that_becomes_ignored_is_released_untouched(world: World) -> None:
    world.apply(BASE)
    world.definition = Definition(ignore=("dir/", "top"))
    world.apply({b"a/x": b"1", b"a/y": b"2"})
    assert (world.root / "dir/sub/two").read_bytes() == b"two"
    assert (world.root / "top").read_bytes() == b"t"
    assert list(Archive(world.place).list_items()) == []


def test_taking_over_a_tree_keeps_what_is_ignored_and_archives_the_rest(tmp_path: Path) -> None:
    world = World.make(tmp_path, Definition(ignore=("*.log",)))
    (world.root / "a").mkdir()
    (world.root / "a/x").write_bytes(b"1")
    (world.root / "a/keep.log").write_bytes(b"log")
    (world.root / "a/other").write_bytes(b"other")
    (world.root / "strange/deep").mkdir(parents=True)
    world.apply(BASE)
    assert b"a/x" not in world.fetched
    assert (world.root / "a/keep.log").read_bytes() == b"log"
    assert not (world.root / "strange").exists()
    assert not (world.root / "a/other").exists()
    assert whys(world) == {b"a/x": Why.REPLACED, b"a/other": Why.REMOVED, b"strange": Why.REMOVED}


def test_a_symlink_planted_for_a_directory_leads_nowhere(world: World, tmp_path: Path) -> None:
    world.apply(BASE)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"precious")
    os.rename(world.root / "a", world.root / "a-moved")
    os.symlink(outside, world.root / "a")
    switched = world.apply({**BASE, b"a/x": b"evil", b"a/new": b"evil"})
    assert b"a" in switched.missed
    assert sorted(os.listdir(outside)) == ["x"]
    assert (outside / "x").read_bytes() == b"precious"


def test_a_symlink_planted_between_stage_and_switch_leads_nowhere(world: World, tmp_path: Path) -> None:
    world.apply(BASE)
    outside = tmp_path / "outside"
    outside.mkdir()
    target = world.generation({**without(BASE, b"a/y", b"dir/sub/two"), b"a/x": b"evil", b"a/new": b"evil"})
    journal = world.stage(target)
    for name in ("a", "dir"):
        os.rename(world.root / name, world.root / f"{name}-moved")
        os.symlink(outside, world.root / name)
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    assert os.listdir(outside) == []
    assert b"a" in switched.missed


def test_entries_below_what_is_no_directory_are_refused(world: World, tmp_path: Path) -> None:
    target = world.generation({b"d/link": Link(b"/etc")})
    hostile = world.generation({b"d/link/passwd": b"x"})
    # A manifest with both a symlink and an entry below it, which no builder of ours makes.
    from instep.model.manifest.manifest import build, iterate

    entries = {e.path: e for root in (hostile.root, target.root) for e in iterate(root, world.page)}
    root = build([entries[p] for p in sorted(entries)], lambda page, raw: world.pages.__setitem__(page, raw))
    with pytest.raises(PeerError) as caught:
        world.stage(type(target)(1, 9, digest(b"9"), root))
    assert caught.value.error_code == "bad_tree"
    assert os.listdir(world.root) == [".instep"]


def test_wrong_bytes_are_refused(world: World) -> None:
    stage = world.open(world.generation({b"f": b"right", b"l": Link(b"to")}))
    wants = stage.wants()
    for want in wants:
        with pytest.raises(DamagedError) as caught:
            stage.lay(want, b"x" * want.entry.size)
        assert caught.value.error_code == "content_mismatch"
    assert stage.unanswered() == wants
    stage.lay_many(wants, [world.fetch(want) for want in wants])
    assert stage.is_complete is False or stage.wants() == []
    stage.close()


def test_a_stage_is_resumed_and_not_trusted(world: World) -> None:
    tree: Tree = {b"d/%d" % i: b"content %d" % i for i in range(6)}
    target = world.generation(tree)
    stage = world.open(target)
    wants = stage.wants(limit_entries=4)
    stage.lay_many(wants, [world.fetch(want) for want in wants])
    stage.close()
    spoiled = os.path.join(stage.path, wants[0].slot)
    size = os.stat(spoiled).st_size
    os.truncate(spoiled, 0)
    os.truncate(spoiled, size)
    world.fetched.clear()
    journal = world.stage(target)
    assert world.fetched == [wants[0].entry.path, b"d/4", b"d/5"]
    switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    assert world.holds(tree)


def test_a_newer_target_adopts_what_was_staged_for_an_older_one(world: World) -> None:
    tree: dict[bytes, bytes] = {b"d/%d" % i: b"content %d" % i for i in range(6)}
    world.stage(world.generation(tree))
    world.fetched.clear()
    newer = {**tree, b"d/3": b"newer", b"e/f": b"more"}
    del newer[b"d/5"]
    world.apply(newer)
    assert world.holds(newer)
    assert sorted(world.fetched) == [b"d/3", b"e/f"]


def test_put_back_needs_nobody(world: World) -> None:
    world.apply({**BASE, b"l": Link(b"old"), b"big": b"b" * 1_100_000})
    first = world.live
    world.apply({b"a/x": b"2", b"l": Link(b"new"), b"big": b"c" * 1_100_000})
    second = world.live
    assert first is not None
    assert second is not None
    switched = put_back(
        world.place, first, second, world.page, world.definition, local=world.local, now_ns=START_NS + 10**9
    )
    finish(world.place, switched.journal)
    assert world.holds({**BASE, b"l": Link(b"old"), b"big": b"b" * 1_100_000})


def test_put_back_names_what_is_nowhere(world: World) -> None:
    world.apply(BASE)
    first = world.live
    world.apply({b"a/x": b"2"})
    assert first is not None
    assert world.live is not None
    archive = Archive(world.place)
    archive.prune([batch.name for batch in archive.batches()])
    with pytest.raises(UnavailableError) as caught:
        put_back(
            world.place,
            first,
            world.live,
            world.page,
            world.definition,
            local=world.local,
            now_ns=START_NS * 2,
        )
    assert caught.value.error_code == "contents_missing"
    assert world.holds({b"a/x": b"2"})


def test_hooks_stay_due_until_they_are_marked(world: World) -> None:
    journal = world.stage(world.generation(BASE))
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    assert not switched.journal.has(Phase.RELOADED)
    switched.journal.mark(Phase.RELOADED, 2)
    again = recover(world.place, local=world.local, get_page=world.page, now_ms=3).journal
    assert again is not None
    assert (again.has(Phase.RELOADED), again.has(Phase.PROBED)) == (True, False)
    with world.place.journal.open("ab") as torn:
        torn.write(b"\x40\0\0\0torn")
    assert again.mark(Phase.PROBED, 4).has(Phase.PROBED)


def test_a_missing_marker_refuses_stage_and_switch(world: World) -> None:
    target = world.generation(BASE)
    journal = world.stage(target)
    (world.root / ".instep/id").unlink()
    with pytest.raises(RefusedError):
        switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    with pytest.raises(RefusedError):
        world.open(target)


def test_nothing_is_staged_over_an_interrupted_switch(world: World) -> None:
    journal = world.stage(world.generation(BASE))
    failpoints.arm("switch.step.before:2", "enospc")
    try:
        with pytest.raises(InstepError) as caught:
            switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    finally:
        failpoints.disarm_all()
    assert caught.value.error_code == "disk_full"
    with pytest.raises(ContentionError):
        world.open(world.generation({b"other": b"x"}))
    recovered = recover(world.place, local=world.local, get_page=world.page, now_ms=2)
    assert recovered.kind is RecoveredKind.FINISHED
    assert world.holds(BASE)


def test_a_large_file_of_which_only_the_mode_changed_stays_the_same_inode(world: World) -> None:
    world.apply({b"large": b"L" * 200_000})
    path = world.root / "large"
    found = path.lstat()
    row = StatRow(
        b"large", found.st_ino, found.st_dev, found.st_ctime_ns, found.st_mtime_ns, found.st_size,
        digest(b"L" * 200_000), b"", 0,
    )  # fmt: skip
    tree: Tree = {b"large": File(b"L" * 200_000, 0o600, START_NS + 1)}
    world.fetched.clear()
    world.apply(tree, live_row={b"large": row}.get)
    assert world.holds(tree)
    assert path.lstat().st_ino == found.st_ino
    assert world.fetched == []


def test_hard_links_are_made_again(tmp_path: Path) -> None:
    world = World.make(tmp_path, Definition(preserve=(Preserve.HARDLINKS,)))
    world.local = Local(frozenset((Preserve.HARDLINKS,)))
    group = Extra(link_group=b"a/one")
    linked = {b"a/one": File(b"same", extra=group), b"b/two": File(b"same", extra=group)}
    world.apply(linked)
    assert (world.root / "a/one").samefile(world.root / "b/two")
    world.apply({**linked, b"c": File(b"same", extra=group)})
    assert (world.root / "a/one").samefile(world.root / "c")
    assert world.fetched == [b"a/one"]


def test_setuid_is_planted_only_where_it_is_allowed(world: World) -> None:
    world.apply({b"d/f": File(b"x", 0o4755)})
    assert stat.S_IMODE((world.root / "d/f").stat().st_mode) == 0o755


def test_stat_rows_are_those_of_the_tree(world: World) -> None:
    journal = world.stage(world.generation(BASE), now_ns=START_NS * 2)
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    rows = {row.path: row for row in stat_rows(world.place, switched.journal) if isinstance(row, StatRow)}
    assert sorted(rows) == sorted(BASE)
    for path, row in rows.items():
        found = os.lstat(os.path.join(os.fsencode(world.root), path))
        assert (row.ino, row.ctime_ns, row.mtime_ns, row.size) == (
            found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size,
        )  # fmt: skip
    assert rows[b"dir/one"].read_at_ns - rows[b"dir/one"].ctime_ns >= 2_000_000_000
    finish(world.place, switched.journal)
    world.live = switched.journal.header.target
    journal = world.stage(world.generation({b"a/x": b"1"}))
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    assert {row.path for row in stat_rows(world.place, switched.journal) if isinstance(row, GoneRow)} == {
        b"a/y", b"dir", b"top",
    }  # fmt: skip


def test_the_archive_gives_back_and_never_overwrites(world: World, tmp_path: Path) -> None:
    world.apply({**BASE, b"dir/sub/l": Link(b"two")})
    world.apply({b"a/x": b"1"})
    archive = Archive(world.place)
    to = tmp_path / "to"
    assert archive.restore(b"dir/sub", to) == os.fsencode(to / "dir/sub")
    assert (to / "dir/sub/two").read_bytes() == b"two"
    assert os.readlink(to / "dir/sub/l") == "two"
    assert archive.restore(b"top", to, generation=1)
    assert stat.S_IMODE((to / "top").stat().st_mode) == 0o640
    with pytest.raises(RefusedError):
        archive.restore(b"top", to)
    with pytest.raises(InstepError) as caught:
        archive.restore(b"top", to, generation=2)
    assert caught.value.error_code == "not_archived"
    sizes = [batch.size_bytes for batch in archive.batches()]
    assert archive.prune([archive.batches()[0].name], dry_run=True) == sizes[0]
    assert len(archive.batches()) == 1


def test_what_the_archive_gives_back_is_compared_with_what_it_was(world: World, tmp_path: Path) -> None:
    """Goal: an archived file that the disk changed is given back, and named."""
    world.apply({b"top": b"first"})
    world.apply({b"top": b"second"})
    changed: list[bytes] = []
    archive = Archive(world.place)
    archive.restore(b"top", tmp_path / "right", on_changed=lambda item: changed.append(item.path))
    assert changed == []
    (archived,) = (file for file in world.place.archive.glob("*/o/*") if file.read_bytes() == b"first")
    archived.chmod(0o600)
    archived.write_bytes(b"_irst")
    archive.restore(b"top", tmp_path / "rotten", on_changed=lambda item: changed.append(item.path))
    assert changed == [b"top"]


def test_a_directory_that_became_a_symlink_leads_no_step_outside(tmp_path: Path) -> None:
    """The switch ends, changes nothing outside, and names what the repair of the drift must look at."""
    outside = tmp_path / "outside"
    (outside / "d").mkdir(parents=True)
    (outside / "keep").write_bytes(b"keep")
    world = World.make(tmp_path)
    world.apply({b"a": b"1", b"dir/keep": b"k", b"dir/old": b"o", b"dir/d/x": b"x", b"gone/x": b"x"})
    os.rename(world.root / "dir", tmp_path / "moved")
    os.symlink(outside, world.root / "dir")
    os.unlink(world.root / "gone" / "x")
    os.rmdir(world.root / "gone")
    before = sorted((str(p), p.is_file() and p.read_bytes()) for p in outside.rglob("*"))
    tree = {
        b"a": b"2",
        b"dir/keep": b"changed",
        b"dir/new": b"n",
        b"dir/d/y": b"y",
        b"gone/x": b"x",
        b"gone/y": b"y",
    }
    switched = world.apply(tree)
    assert sorted((str(p), p.is_file() and p.read_bytes()) for p in outside.rglob("*")) == before
    assert (world.root / "a").read_bytes() == b"2"
    assert {b"dir", b"gone"} <= set(switched.missed)
