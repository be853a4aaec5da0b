"""A switch that another node went past is moved out of the way whole, wherever a crash interrupts that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instep.errors import InstepError
from instep.tree.journal.journal import Journal
from instep.tree.root import failpoints
from instep.tree.root.control_folder import opened
from instep.tree.switch.former_switch import move_aside
from tests.support.apply_world import File, World

CALLS = ("mkdir", "rename", "fsync")
CALLS_MAX = 8


class Crash(BaseException):
    """Nothing after it is done."""


def _move(world: World) -> Path | None:
    with opened(world.place) as place:
        journal = Journal.load(place)
        return None if journal is None else move_aside(place, journal)


def _crashing(real: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        if not left[0]:
            raise Crash
        left[0] -= 1
        return real(*args, **options)

    return call


@pytest.mark.parametrize("calls", range(CALLS_MAX))
def test_a_crash_at_any_call_is_gone_on_from(
    tmp_path: Path, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a journal whose stage had been moved already was an error of every later grant, for ever."""
    world = World.make(tmp_path)
    failpoints.arm("switch.begun", "eio")
    try:
        with pytest.raises(InstepError):
            world.apply({b"a": File(b"1")})
    finally:
        failpoints.disarm_all()
    staged = sorted(path.name for path in world.place.stage.rglob("*"))
    assert staged
    with monkeypatch.context() as patch:
        left = [calls]
        for name in CALLS:
            patch.setattr(os, name, _crashing(getattr(os, name), left))
        try:
            _move(world)
        except Crash:
            assert not left[0]
    _move(world)
    assert _move(world) is None
    assert not world.place.stage.exists() and not world.place.journal.exists()
    (aside,) = world.place.control.glob("set-aside-*")
    assert sorted(path.name for path in (aside / "stage").rglob("*")) == staged
    assert (aside / "journal").is_file()
