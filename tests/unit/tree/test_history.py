"""A writer's history: contents that were put and synced are there, whole, after a restart; contents that no
generation names can go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.errors import DamagedError
from instep.tree.archive.history import History
from instep.tree.archive.history_pack import PACKED_MAX
from tests.support.apply_world import World, digest

SMALL = [b"small %d" % number for number in range(50)]
LARGE = os.urandom(PACKED_MAX + 1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


@pytest.fixture
def open_history() -> Iterator[Callable[[World], History]]:
    """Opens a world's history, as often as a test says; all are closed with the test."""
    made: list[History] = []

    def again(world: World) -> History:
        made.append(History(world.place))
        return made[-1]

    yield again
    for history in made:
        history.close()


def test_contents_survive_a_restart_and_a_torn_tail(
    world: World, open_history: Callable[[World], History]
) -> None:
    history = open_history(world)
    for data in (*SMALL, LARGE):
        history.put(digest(data), data)
    assert history.get(digest(SMALL[3])) == SMALL[3]
    assert history.get(digest(LARGE)) == LARGE
    history.sync()
    history.close()
    pack = world.place.history / "pack-00000001"
    whole = pack.stat().st_size
    with pack.open("ab") as tail:
        tail.write(b"\xff\x01\0\0torn")
    again = open_history(world)
    assert all(again.get(digest(data)) == data for data in (*SMALL, LARGE))
    assert again.get(digest(b"never")) is None
    again.put(digest(b"later"), b"later")
    again.sync()
    again.close()
    assert (world.place.history / "pack-00000001.torn-1").read_bytes() == b"\xff\x01\0\0torn"
    assert b"torn" not in pack.read_bytes()[whole:]
    assert open_history(world).get(digest(b"later")) == b"later"


def test_files_are_kept_by_their_bytes(
    world: World, open_history: Callable[[World], History], tmp_path: Path
) -> None:
    history = open_history(world)
    path = tmp_path / "f"
    path.write_bytes(LARGE)
    fd = os.open(path, os.O_RDONLY)
    try:
        history.put_file(digest(LARGE), fd, len(LARGE))
        with pytest.raises(DamagedError):
            history.put_file(digest(b"other"), fd, len(LARGE))
    finally:
        os.close(fd)
    with pytest.raises(DamagedError):
        history.put(digest(b"a"), b"b")
    history.put(digest(LARGE), LARGE)
    history.sync()
    assert sorted(history.digests()) == [digest(LARGE)]
    opened = history.open(digest(LARGE))
    assert opened is not None
    assert os.read(opened, len(LARGE) + 1) == LARGE
    os.close(opened)


def test_collecting_keeps_what_lives(world: World, open_history: Callable[[World], History]) -> None:
    history = open_history(world)
    for data in (*SMALL, LARGE):
        history.put(digest(data), data)
    alive = {digest(SMALL[7])}
    assert history.collect(lambda name: name in alive) > len(LARGE)
    assert sorted(history.digests()) == sorted(alive)
    history.put(digest(b"after"), b"after")
    history.sync()
    history.close()
    again = open_history(world)
    assert again.get(digest(SMALL[7])) == SMALL[7]
    assert again.get(digest(b"after")) == b"after"
    assert not again.has(digest(LARGE))


def test_a_rotten_pack_is_found_out(world: World, open_history: Callable[[World], History]) -> None:
    history = open_history(world)
    history.put(digest(SMALL[0]), SMALL[0])
    history.sync()
    pack = world.place.history / "pack-00000001"
    raw = bytearray(pack.read_bytes())
    raw[-1] ^= 1
    pack.write_bytes(raw)
    assert history.get(digest(SMALL[0])) is None
    assert [each.file for each in history.damage] == ["pack-00000001"]
    history.put(digest(SMALL[0]), SMALL[0])
    assert history.get(digest(SMALL[0])) == SMALL[0]


def test_a_rotten_file_is_kept_aside_and_can_be_put_anew(
    world: World, open_history: Callable[[World], History]
) -> None:
    history = open_history(world)
    history.put(digest(LARGE), LARGE)
    history.sync()
    (file,) = world.place.history.glob("??/*")
    file.chmod(0o600)
    file.write_bytes(b"rotten")
    assert history.get(digest(LARGE)) is None
    assert not history.has(digest(LARGE))
    (aside,) = world.place.history.glob("??/*.damaged-1")
    assert aside.read_bytes() == b"rotten"
    history.put(digest(LARGE), LARGE)
    history.sync()
    assert history.get(digest(LARGE)) == LARGE


def test_collecting_two_packs_at_once_loses_nothing(
    world: World, open_history: Callable[[World], History], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instep.tree.archive.history.PACK_MAX", 600)
    history = open_history(world)
    for data in SMALL:
        history.put(digest(data), data)
    alive = {digest(SMALL[0]), digest(SMALL[-1])}
    history.collect(lambda name: name in alive)
    history.close()
    again = open_history(world)
    assert {again.get(name) for name in alive} == {SMALL[0], SMALL[-1]}
