"""The root is exchanged whole: shared files, carried paths, late changes, refusals."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from instep.errors import ContentionError, InstepError, RefusedError, ResourceError
from instep.model.definition import Definition
from instep.model.statrow import StatRow
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Why, stage_name
from instep.tree.objects.rows import RACY_NS, is_same, is_settled
from instep.tree.root import failpoints
from instep.tree.root.beneath import Root, rename_exchange
from instep.tree.stage.next_tree import Exchange, Relinked, take_apart
from instep.tree.stage.stages import clear_stages, staged_slot
from instep.tree.switch import exchange as exchanging
from instep.tree.switch.linger import end_linger, lingering
from instep.tree.switch.recover import RecoveredKind, recover
from instep.tree.switch.switch import finish, prepare, switch
from tests.support.apply_world import START_NS, Tree, World, digest

OLD: Tree = {b"same": b"stays", b"dir/same": b"stays too", b"dir/changed": b"old", b"gone/x": b"gone"}
NEW: Tree = {b"same": b"stays", b"dir/same": b"stays too", b"dir/changed": b"new", b"fresh/y": b"fresh"}
LOGS = Definition(ignore=("logs/",))


def world_at(folder: Path, definition: Definition | None = None, *carry: bytes) -> World:
    world = World.make(folder, definition)
    world.apply(OLD)
    world.exchange = Exchange(carry)
    return world


def run_switch(world: World, tree: Tree = NEW) -> None:
    """A switch whose old tree lingers."""
    target = world.generation(tree)
    journal = world.stage(target, now_ns=START_NS + world.number * 1_000_000)
    prepare(world.place, journal, local=world.local)
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    finish(world.place, switched.journal)
    world.live = target


def archived(world: World, to: Path, path: bytes) -> bytes:
    return Path(os.fsdecode(Archive(world.place).restore(path, to))).read_bytes()


def test_who_has_the_old_root_open_sees_the_old_generation_whole_until_its_time_is_over(
    tmp_path: Path,
) -> None:
    world = world_at(tmp_path)
    shared = (world.root / "same").stat().st_ino
    old = os.open(world.root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        run_switch(world)
        assert world.holds(NEW)
        assert (world.root / "same").stat().st_ino == shared
        before = Path(f"/proc/self/fd/{old}")
        assert (before / "dir/changed").read_bytes() == b"old"
        assert (before / "gone/x").read_bytes() == b"gone"
        (batch,) = lingering(world.place)
        Archive(world.place).prune([batch.decode()])
        assert (before / "gone/x").read_bytes() == b"gone", "a lingering tree was pruned"
        stopping = threading.Event()
        stopping.set()
        assert not end_linger(world.place, batch, 5, stopping=stopping).is_done
        assert end_linger(world.place, batch, 5).late == 0
        assert os.listdir(old) == []
    finally:
        os.close(old)
    assert world.holds(NEW)
    assert (world.root / "same").stat().st_nlink == 1
    assert archived(world, tmp_path / "to", b"dir/changed") == b"old"
    assert archived(world, tmp_path / "to", b"gone/x") == b"gone"


def test_an_edit_in_place_shows_in_the_lingering_tree_and_in_nothing_that_is_kept(tmp_path: Path) -> None:
    """Goal: a file of both generations is one inode; the archive has files of the old one alone."""
    world = world_at(tmp_path)
    run_switch(world)
    for path in ("same", "dir/changed"):
        with (world.root / path).open("r+b") as file:
            file.write(b"EDIT")
    (batch,) = lingering(world.place)
    lingers = world.place.archive / os.fsdecode(batch) / "next"
    assert (lingers / "same").read_bytes() == b"EDITs"
    assert (lingers / "dir/changed").read_bytes() == b"old"
    assert end_linger(world.place, batch, 5).late == 0
    assert {item.path for item in Archive(world.place).list_items()} == {b"dir/changed", b"gone"}
    assert archived(world, tmp_path / "to", b"dir/changed") == b"old"


def test_what_is_written_after_the_next_tree_was_built_is_archived_as_drift(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    journal = world.stage(world.generation(NEW))
    prepare(world.place, journal, local=world.local)
    (world.root / "late").write_bytes(b"a new file")
    (world.root / "saved").write_bytes(b"an editor's save")
    os.rename(world.root / "saved", world.root / "dir/same")
    with (world.root / "same").open("r+b") as file:
        file.write(b"STAYS")
    (world.root / "gone/x").unlink()
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    finish(world.place, switched.journal)
    (batch,) = lingering(world.place)
    ended = end_linger(world.place, batch, 5)
    assert sorted(ended.named) == [b"dir/same", b"late"]
    whys = {item.path: item.why for item in Archive(world.place).list_items()}
    assert whys[b"late"] is whys[b"dir/same"] is Why.DRIFT
    assert archived(world, tmp_path / "to", b"late") == b"a new file"
    assert archived(world, tmp_path / "to", b"dir/same") == b"an editor's save"
    assert (world.root / "dir/same").read_bytes() == b"stays too"
    # An edit in place of a shared file is in the live tree, where the check after the switch meets it.
    assert (world.root / "same").read_bytes() == b"STAYS"


def test_rows_of_shared_files_hold_on_through_both_changes_of_their_names(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    rows: dict[bytes, StatRow] = {}
    for path in (b"same", b"dir/same"):
        found = (world.root / os.fsdecode(path)).stat()
        times = (found.st_ctime_ns, found.st_mtime_ns)
        read_at = found.st_ctime_ns + RACY_NS
        rows[path] = StatRow(
            path, found.st_ino, found.st_dev, *times, found.st_size, digest(b"any"), b"", read_at
        )

    def keep(found: object) -> None:
        rows.update({row.path: row for row in found})  # type: ignore[attr-defined]

    def all_hold() -> bool:
        return all(
            is_same(r, (world.root / os.fsdecode(p)).stat()) and is_settled(r) for p, r in rows.items()
        )

    world.exchange = Exchange((), keep)
    target = world.generation(NEW)
    journal = world.stage(target, live_row=rows.get)
    assert all_hold(), "linked"
    take_apart(world.place, journal.stage_name, Relinked(rows.get, keep))
    assert all_hold(), "given up"
    journal = world.stage(target, live_row=rows.get)
    assert all_hold(), "linked again"
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    finish(world.place, switched.journal)
    assert all_hold(), "switched"
    for batch in lingering(world.place):
        end_linger(world.place, batch, 5, live_row=rows.get, keep_rows=keep)
    assert all_hold(), "unlinked"
    assert len(rows) == 2


def test_carried_paths_move_along_and_programs_that_have_them_open_go_on(tmp_path: Path) -> None:
    world = world_at(tmp_path, LOGS, b"logs")
    (world.root / "logs").mkdir(mode=0o750)
    with (world.root / "logs/app.log").open("w") as log:
        inode = (world.root / "logs").stat().st_ino
        for number, tree in enumerate((NEW, OLD, NEW)):
            run_switch(world, tree)
            log.write(f"{number}\n")
            log.flush()
            world.end_linger()
    assert (world.root / "logs/app.log").read_text() == "0\n1\n2\n"
    assert (world.root / "logs").stat().st_ino == inode
    assert [item.path for item in Archive(world.place).list_items() if item.why is Why.DRIFT] == []


def test_the_new_root_and_its_directories_are_dressed_like_the_old_ones(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    for directory in (world.root, world.root / "dir"):
        os.chmod(directory, 0o2751)
        try:
            os.setxattr(directory, "user.purpose", b"served")
        except OSError:
            pytest.skip("a file system without attributes of users")
        if os.geteuid() == 0:
            os.chown(directory, 12_345, 23_456)
    os.mkfifo(world.root / "pipe")

    def dress() -> list[tuple[object, ...]]:
        found: list[tuple[object, ...]] = []
        for directory in (world.root, world.root / "dir"):
            status = directory.stat()
            purpose = os.getxattr(directory, "user.purpose")
            found.append((oct(status.st_mode), status.st_uid, status.st_gid, purpose))
        return found

    before, inode = dress(), world.root.stat().st_ino
    run_switch(world, {**OLD, b"more": b"more"})
    assert world.root.stat().st_ino != inode
    assert dress() == before
    assert (world.root / "pipe").is_fifo()
    assert world.end_linger() == 0


@pytest.mark.parametrize(
    ("carry", "needed", "found"),
    [
        ((), "ignored paths named in carry", "logs"),
        ((b"logs", b"dir"), "only ignored paths in carry", "dir"),
    ],
)
def test_what_cannot_go_along_is_refused_before_anything_moves(
    tmp_path: Path, carry: tuple[bytes, ...], needed: str, found: str
) -> None:
    world = world_at(tmp_path, LOGS, *carry)
    (world.root / "logs").mkdir()
    with pytest.raises(RefusedError) as refused:
        world.stage(world.generation(NEW))
    assert refused.value.error_code == "exchange_refused"
    assert needed in str(refused.value.facts["needed"])
    assert found in str(refused.value.facts["found"])
    clear_stages(world.place)
    (world.root / "logs").rmdir()
    assert world.holds(OLD)


def test_a_prepared_stage_that_is_taken_up_again_fetches_nothing(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    target = world.generation(NEW)
    prepare(world.place, world.stage(target), local=world.local)
    with Root(world.place.stage / os.fsdecode(stage_name(target))) as stage:
        slot = staged_slot(stage, b"dir/changed")
        assert slot is not None
        assert Path(os.fsdecode(stage.path + b"/" + slot)).read_bytes() == b"new", (
            "a validate hook sees the new file"
        )
        assert staged_slot(stage, b"gone/x") is None
    world.fetched.clear()
    journal = world.stage(target)
    assert world.fetched == []
    switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    assert world.holds(NEW)


def test_a_tree_that_is_prepared_is_not_prepared_again(tmp_path: Path) -> None:
    """Hooks and permits lie between the two: a switch with its steps done has only the swap left."""
    world = world_at(tmp_path)
    journal = world.stage(world.generation(NEW))
    prepare(world.place, journal, local=world.local)
    failpoints.arm("exchange.preparing", "eio")
    try:
        prepare(world.place, journal, local=world.local)
        switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    finally:
        failpoints.disarm_all()
    assert world.holds(NEW)


def test_another_root_than_the_staged_one_is_not_exchanged(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    journal = world.stage(world.generation(NEW))
    world.root.rename(tmp_path / "away")
    (world.root / ".instep").mkdir(parents=True)
    (world.root / ".instep/id").write_bytes((tmp_path / "away/.instep/id").read_bytes())
    with pytest.raises(ContentionError) as changed:
        switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    assert changed.value.error_code == "root_changed"


def test_an_exchange_that_the_kernel_refuses_leaves_the_old_generation_and_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = world_at(tmp_path, LOGS, b"logs")
    (world.root / "logs").mkdir()
    (world.root / "logs/app.log").write_bytes(b"here")
    journal = world.stage(world.generation(NEW))

    def refuse(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
        if from_name == b"next":
            raise OSError(errno.EXDEV, "a lower layer", from_name)
        rename_exchange(from_fd, from_name, to_fd, to_name)

    monkeypatch.setattr(exchanging, "rename_exchange", refuse)
    with pytest.raises(ResourceError):
        switch(world.place, journal, local=world.local, get_page=world.page, now_ms=1)
    assert (world.root / "logs/app.log").read_bytes() == b"here"
    assert (world.root / "dir/changed").read_bytes() == b"old"
    found = recover(world.place, local=world.local, get_page=world.page, now_ms=2)
    assert found.kind is RecoveredKind.UNDONE
    monkeypatch.undo()
    world.fetched.clear()
    run_switch(world)
    assert (world.root / "dir/changed").read_bytes() == b"new"
    assert (world.root / "logs/app.log").read_bytes() == b"here"


def test_a_root_that_somebody_replaced_after_a_crash_is_left_alone(tmp_path: Path) -> None:
    world = world_at(tmp_path)
    journal = world.stage(world.generation(NEW))
    prepare(world.place, journal, local=world.local)
    os.rename(world.place.stage / os.fsdecode(journal.stage_name) / "journal", world.place.journal)
    world.root.rename(tmp_path / "away")
    (world.root / ".instep").mkdir(parents=True)
    (world.root / ".instep/id").write_bytes((tmp_path / "away/.instep/id").read_bytes())
    with pytest.raises(InstepError) as replaced:
        recover(world.place, local=world.local, get_page=world.page, now_ms=2)
    assert replaced.value.error_code == "root_replaced"
