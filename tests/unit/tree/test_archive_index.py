"""A bad byte in the index of an archive batch costs at most one line of it, and that line is found again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from instep.tree.archive.archive import Archive
from instep.tree.archive.index import damaged_batches, mend_index
from instep.tree.journal.journal import Journal, Phase
from instep.tree.journal.plan import object_key
from tests.support.apply_world import World

PATHS = [b"file-%d" % number for number in range(6)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.make(tmp_path)
    world.apply({path: b"old " + path for path in PATHS})
    world.apply({path: b"new " + path for path in PATHS})
    return world


def index_of(world: World) -> Path:
    (index,) = world.place.archive.glob("*/index")
    return index


def paths_of(keys: frozenset[bytes]) -> Mapping[bytes, bytes]:
    return {object_key(path): path for path in PATHS if object_key(path) in keys}


def test_every_byte_may_be_hit(world: World, tmp_path: Path) -> None:
    index = index_of(world)
    whole = index.read_bytes()
    archive = Archive(world.place)
    (batch,) = archive.batches()
    for at in range(0, len(whole), 7):
        index.write_bytes(whole[:at] + bytes([whole[at] ^ 8]) + whole[at + 1 :])
        listed = {item.path for item in archive.list_items()}
        assert len(listed) >= len(PATHS) - 1
        assert archive.total_bytes() >= batch.size_bytes * (len(PATHS) - 1) // len(PATHS)
        for path in set(PATHS) - listed:
            to = tmp_path / f"restored-{at}"
            to.mkdir()
            archive.restore(path, to)
            assert (to / path.decode()).read_bytes() == b"old " + path
        if listed == set(PATHS) and not list(damaged_batches(world.place.archive)):
            continue  # the beginning, which is constant
        mend_index(bytes(index.parent), paths_of)
        assert not list(damaged_batches(world.place.archive))
        assert {item.path for item in archive.list_items()} == set(PATHS)
        assert archive.batches()[0].size_bytes == batch.size_bytes


def test_an_index_that_ends_early_or_is_gone_hides_no_batch(world: World) -> None:
    index = index_of(world)
    whole = index.read_bytes()
    archive = Archive(world.place)
    for kept in (0, 9, 16, 40, len(whole) - 1):
        index.write_bytes(whole[:kept])
        assert [path for path, _ in damaged_batches(world.place.archive)] == [bytes(index.parent)]
        assert len(archive.batches()) == 1
        mend_index(bytes(index.parent), lambda _: {})
        # Their paths are unknown: the objects are listed by their keys, and can be restored by these.
        assert len(list(archive.list_items())) == len(PATHS)
    index.unlink()
    mend_index(bytes(index.parent), paths_of)
    assert {item.path for item in archive.list_items()} == set(PATHS)
    assert index.with_name("index.damaged-1").read_bytes() == b""


def test_marks_of_a_journal_survive_a_bad_one(world: World) -> None:
    target = world.generation({b"a": b"1"})
    journal = world.stage(target)
    sealed = world.place.stage / journal.stage_name.decode() / "journal"
    sealed.rename(world.place.journal)
    loaded = Journal.load(world.place)
    assert loaded is not None
    before = world.place.journal.stat().st_size
    loaded.mark(Phase.SWITCHED, 1).mark(Phase.RELOADED, 2)
    raw = bytearray(world.place.journal.read_bytes())
    raw[before + 9] ^= 1
    world.place.journal.write_bytes(raw)
    again = Journal.load(world.place)
    assert again is not None
    assert again.is_switched, "the later mark implies it"
    assert again.has(Phase.RELOADED)
    again.mark(Phase.PROBED, 3)
    last = Journal.load(world.place)
    assert last is not None
    assert last.has(Phase.PROBED)
    assert last.has(Phase.RELOADED)
