"""A record of ours that is there and cannot be read is named; it never counts as one that is not there."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.cli.cluster.joining import TOKENS_SEEN, _seen
from instep.errors import DamagedError
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.node.directory import NodeDirectory
from instep.node.lines.saved_facts import load_facts
from instep.store.memory import MemoryStore
from instep.tree.root.place import OWNER_FILE, prepare_place, resolve_place
from instep.tree.root.tree_generation import held_by_tree, note_held
from tests.support.apply_world import FILESET, World

LINE = LineId(FILESET, NodeName("main"))
HELD = HeadRef(1, 7, Digest(b"i" * 32), Digest(b"r" * 32))


def flip_last(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


DAMAGES = (flip_last, cut, empty, zeros, make_directory, make_link)


def damage_of(act: Callable[[], object]) -> DamagedError:
    with pytest.raises(DamagedError) as caught:
        act()
    return caught.value


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World.make(tmp_path)
    made.apply({b"a": b"1"})
    return made


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_the_tree_holds_is_not_taken_for_unknown(world: World, damage: Callable[[Path], None]) -> None:
    place = world.place
    assert held_by_tree(place, LINE, "m") is None
    note_held(place, LINE, "m", HELD, is_synced=True)
    path = place.control / "holds"
    damage(path)
    error = damage_of(lambda: held_by_tree(place, LINE, "m"))
    assert error.error_code == "holds_damaged"
    assert str(path) in error.reason
    assert f"rm {path} && instep retry {FILESET}" in (error.hint or "")


def test_a_node_that_knows_what_its_tree_holds_writes_a_damaged_record_anew(world: World) -> None:
    note_held(world.place, LINE, "m", HELD, is_synced=True)
    zeros(world.place.control / "holds")
    note_held(world.place, LINE, "m", HELD, is_synced=True)
    assert held_by_tree(world.place, LINE, "m") == HELD


@pytest.mark.parametrize("damage", [cut, empty, zeros])
def test_a_control_folder_that_cannot_say_whose_it_is_is_not_passed_by(
    world: World, damage: Callable[[Path], None]
) -> None:
    place = world.place
    assert not place.is_control_inside
    damage(place.control / OWNER_FILE)
    error = damage_of(lambda: resolve_place(place.root, FILESET))
    assert error.error_code == "place_damaged"
    assert str(place.control / OWNER_FILE) in error.reason
    assert damage_of(lambda: prepare_place(place)).error_code == "place_damaged"
    assert damage_of(lambda: held_by_tree(place, LINE, "m")).error_code == "place_damaged"
    command = (error.hint or "").partition("anew: ")[2]
    subprocess.run(["sh", "-c", command], check=True, timeout=20)
    assert resolve_place(place.root, FILESET) == place
    prepare_place(place)


@pytest.mark.parametrize("raw", [b"", b"[", b"{}", b"[1]"])
def test_the_tokens_that_were_used_are_not_forgotten_silently(tmp_path: Path, raw: bytes) -> None:
    node = NodeDirectory(tmp_path)
    assert _seen(node) == []
    node.state.mkdir()
    (node.state / TOKENS_SEEN).write_bytes(raw)
    error = damage_of(lambda: _seen(node))
    assert error.error_code == "joined_damaged"
    assert str(node.state / TOKENS_SEEN) in (error.hint or "")


def test_the_saved_state_of_a_line_is_named_when_it_cannot_be_read() -> None:
    store = MemoryStore()
    assert load_facts(store, LINE) is None
    for raw in (b"", b"\x93", b"\x92\xa6follow\xff"):
        store.save_line(LINE, raw)
        assert damage_of(lambda: load_facts(store, LINE)).error_code == "line_state_damaged"
