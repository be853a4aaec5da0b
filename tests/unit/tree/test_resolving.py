"""Symlinks are followed as ``realpath`` does, and a mount that another machine or a program answers for is not asked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.tree.root.resolving import resolved
from tests.support.mounts import dead_mount


@pytest.mark.parametrize(
    "name", ["a", "a/b", "link", "link/b", "up/a", "loop", "loop/x", "none/x", "abs/b", "file/x"]
)
def test_it_answers_as_realpath(tmp_path: Path, name: str) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "file").touch()
    for link, target in {"link": "a", "up": "a/b/../..", "loop": "loop", "abs": str(tmp_path / "a")}.items():
        (tmp_path / link).symlink_to(target)
    assert resolved(tmp_path / name) == Path(os.path.realpath(tmp_path / name))


def test_a_dead_mount_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with dead_mount(tmp_path / "real"):
        assert resolved(tmp_path / "link/a/b") == tmp_path.resolve() / "real/a/b"
