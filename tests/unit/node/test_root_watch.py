"""The look at a root: bounded for each question, shared by questions, and never behind a file system that hangs."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instep.core.vocabulary import Trouble
from instep.errors import RefusedError
from instep.node.trees import root_watch
from instep.node.trees.root_watch import RootWatch
from instep.tree.scan.touched import Identity


def test_a_root_that_hangs_is_named_and_no_question_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: while one look hangs no other is begun; the root that answers again is seen at the next question."""
    monkeypatch.setattr(root_watch, "SILENT_S", 0.0)
    answers, looks = threading.Event(), []
    told: list[Trouble | None] = []
    tree: Any = SimpleNamespace(fileset=SimpleNamespace(path=tmp_path), watch=None)

    def see() -> Identity:
        looks.append(1)
        answers.wait(60)
        return (1, 2)

    async def turned(trouble: Trouble | None) -> None:
        told.append(trouble)

    async def ask() -> None:
        watch = RootWatch(tree, turned, see)
        for _ in range(3):
            await watch.look(0.001)
            assert watch.trouble is not None and watch.trouble.code == "root_silent"
            assert str(tmp_path) in watch.trouble.reason
        assert len(looks) == 1
        answers.set()
        await watch.look(60)
        assert watch.trouble is None
        assert [each is None for each in told] == [False, True]

    asyncio.run(ask())


def test_questions_share_a_look_and_each_turn_is_told_once(tmp_path: Path) -> None:
    looks: list[int] = []
    told: list[Trouble | None] = []
    tree: Any = SimpleNamespace(fileset=SimpleNamespace(path=tmp_path), watch=None)

    def see() -> Identity:
        looks.append(1)
        raise RefusedError("it is not there", code="root_missing")

    async def turned(trouble: Trouble | None) -> None:
        told.append(trouble)

    async def ask() -> None:
        watch = RootWatch(tree, turned, see)
        await asyncio.gather(*(watch.look(60) for _ in range(10)))
        assert len(looks) == 1
        await watch.look(60)
        assert len(looks) == 2
        assert [each.code for each in told if each is not None] == ["root_missing"]

    asyncio.run(ask())
