"""Renamed files: the archive names them, gives them back, and holds no second copy of a live file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.core.retention import RetentionPolicy, plan_thinning
from instep.errors import UsageError
from instep.tree.archive.archive import Archive
from instep.tree.switch.recover import put_back
from instep.tree.switch.switch import finish, switch
from tests.support.apply_world import START_NS, File, Tree, World

OLD = {b"f%d" % number: b"contents %d" % number for number in range(5)}
NEW = {b"g%d" % number: b"contents %d" % number for number in range(5)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.make(tmp_path)
    world.apply(OLD)
    return world


def archived(world: World) -> list[tuple[bytes, str]]:
    return [(item.path, item.why.value) for item in Archive(world.place).list_items()]


def objects(world: World) -> list[Path]:
    return sorted(world.place.archive.glob("*/o/*"))


def test_a_rename_leaves_nothing_in_the_archive_but_the_names(world: World, tmp_path: Path) -> None:
    world.apply(NEW)
    archive = Archive(world.place)
    assert objects(world) == []
    assert archived(world) == [(path, "moved") for path in OLD]
    assert archive.total_bytes() == 0
    at = archive.restore(b"f3", tmp_path / "found", contents=world.of_tree)
    assert Path(os.fsdecode(at)).read_bytes() == OLD[b"f3"]
    with pytest.raises(UsageError):
        archive.restore(b"f4", tmp_path / "found")


def test_a_generation_that_renamed_files_is_put_back_without_a_partner(world: World) -> None:
    first = world.live
    world.apply(NEW)
    assert first is not None
    assert world.live is not None
    put_back(
        world.place,
        first,
        world.live,
        world.page,
        world.definition,
        local=world.local,
        now_ns=START_NS + 99_000_000,
    )
    assert world.holds(OLD)


def test_a_file_that_is_another_one_now_stays_in_the_archive(world: World) -> None:
    """``f0`` has other bytes behind the same size and time; ``g1`` is written after the switch; ``g2`` has other rights;
    ``f3`` is not renamed, but its contents changed."""
    f0 = world.root / "f0"
    f0.write_bytes(b"CONTENTS 0")
    os.utime(f0, ns=(START_NS, START_NS))
    tree: Tree = {**NEW, b"g2": File(NEW[b"g2"], mode=0o600), b"f3": b"other", b"g3": b"new"}
    journal = world.stage(world.generation(tree), now_ns=START_NS + 9_000_000)
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=9)
    (world.root / "g1").write_bytes(b"by a program")
    finish(world.place, switched.journal)
    assert sorted(path.read_bytes() for path in objects(world)) == [
        b"CONTENTS 0",
        b"contents 1",
        b"contents 2",
        b"contents 3",
    ]


def test_thinning_keeps_the_last_version_of_a_renamed_file(world: World, tmp_path: Path) -> None:
    """Its contents went to the archive under the new name, where later versions would stand for them."""
    hour = 3_600_000
    for minute, contents in enumerate((b"contents 0", b"1", b"2", b"3")):
        world.number = 10 * hour + minute
        world.apply({b"g0": contents})
    world.number = 20 * hour
    world.apply({b"g0": b"4"})
    archive = Archive(world.place)
    policy = RetentionPolicy(keep_last=0, max_bytes=0)
    gone = plan_thinning(archive.batches(), archive.versions(), policy, world.number)
    archive.prune(gone)
    assert len(gone) == 1
    at = archive.restore(b"f0", tmp_path / "found", contents=archive.source())
    assert Path(os.fsdecode(at)).read_bytes() == b"contents 0"
