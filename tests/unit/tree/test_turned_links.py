"""Links that a deploy turns: at no step of a switch do they lead to a place that is not there yet."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.tree.switch import steps
from tests.support.apply_world import Link, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World.make(tmp_path)


def test_a_link_is_turned_when_all_that_it_may_lead_to_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``current`` comes before ``releases`` in the order of paths; users must not find it dangling, or half of a changed
    release behind it."""
    world.apply({b"current": Link(b"releases/1"), b"releases/1/page": b"one", b"shared/style": b"old"})
    seen: list[tuple[str, str]] = []
    page, style = world.root / "current/page", world.root / "shared/style"
    monkeypatch.setattr(steps, "failpoint", lambda _: seen.append((page.read_text(), style.read_text())))
    world.apply({b"current": Link(b"releases/2"), b"releases/2/page": b"two", b"shared/style": b"new"})
    assert os.readlink(world.root / "current") == "releases/2"
    assert ("two", "old") not in seen
    assert {one for one, _ in seen} == {"one", "two"}
