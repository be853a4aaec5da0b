"""The contents of a directory that goes as one: names show which are ignored, and no file is looked at by stat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

from instep.model.definition import Definition
from instep.tree.root.beneath import Root
from instep.tree.scan.rules import Rules
from instep.tree.scan.subtree import holds_ignored
from tests.support.mounts import mounted


def _laid(tmp_path: Path, *files: str) -> Path:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_names_alone_tell_what_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed directory of 20,000 files is looked through twice: a stat of each would cost more than the rename."""
    root = Root(_laid(tmp_path, "top/plain", "top/below/deep/one.tmp", "moved/below/other"))

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError("a file was looked at")

    monkeypatch.setattr(os, "stat", refuse)
    with root:
        assert holds_ignored(root, Rules(Definition(ignore=("*.tmp",))), b"top")
        assert not holds_ignored(root, Rules(Definition(ignore=("*.tmp",))), b"moved")
        assert holds_ignored(root, Rules(Definition(ignore=("/was/below",))), b"moved", b"was")
        assert not holds_ignored(root, Rules(Definition(ignore=("/was/below",))), b"moved")
        assert not holds_ignored(root, Rules(Definition()), b"top")
        assert not holds_ignored(root, Rules(Definition()), b"gone")


def test_another_file_system_below_stays_whatever_the_rules_say(tmp_path: Path) -> None:
    root = _laid(tmp_path / "root", "top/below/file")
    with mounted("tmpfs", root / "top/below/other"), Root(root) as opened:
        assert holds_ignored(opened, Rules(Definition()), b"top")
        assert not holds_ignored(opened, Rules(Definition()), b"gone")
