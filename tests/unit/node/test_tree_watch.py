"""The node's watch of a tree: when fanotify is tried, and that nothing is begun anew without a reason."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instep.errors import ResourceError
from instep.model.definition import Definition
from instep.node.trees.scanning import watching
from instep.node.trees.scanning.watching import TreeWatch
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import Gone, Touched, WatchEvent
from tests.support.waiting import eventually_async


class Kernel:
    """Stands for the kernel's side of one watch: a test says what it reports and lacks."""

    made: list[Kernel]

    def __init__(self, root: Path, rules: Rules, how: str) -> None:
        self.fd, self._other = os.pipe()
        self.how = how
        self.waiting: list[WatchEvent] = []
        self.problem: ResourceError | None = None
        self.is_remote = False
        self.written: frozenset[bytes] = frozenset()
        self.made.append(self)

    def start(self) -> Kernel:
        return self

    def read(self) -> list[WatchEvent]:
        told, self.waiting = self.waiting, []
        return told

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            os.close(self._other)
            self.fd = -1


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    monkeypatch.setattr(watching, "Watcher", Kernel)
    monkeypatch.setattr(Kernel, "made", [], raising=False)
    return Kernel.made


def ran_out() -> ResourceError:
    return ResourceError("watches ran out", code="too_many_watches", hint="raise the limit")


def watched(tmp_path: Path, kernels: list[Kernel], change: Callable[[Kernel], None], made: int) -> list[Any]:
    """Start, let the kernel's side change, drain twice. Returns the problems that it reported; in the end ``made`` watchers."""
    told: list[Any] = []

    async def has_made() -> bool:
        return len(kernels) >= made

    async def look() -> None:
        watch = TreeWatch(tmp_path, Rules(Definition()), lambda paths, lost: None, told.append)
        try:
            await watch.start()
            change(kernels[0])
            watch.drain()
            watch.drain()
            await eventually_async(has_made, 10, "the watchers are made")
            await asyncio.sleep(0)  # a start that was ordered has its turn
        finally:
            watch.close()

    asyncio.run(look())
    assert len(kernels) == made
    assert all(each.fd < 0 for each in kernels), "no descriptor is left"
    return told


def test_a_watch_that_sees_all_goes_on_as_it_is(tmp_path: Path, kernels: list[Kernel]) -> None:
    def change(kernel: Kernel) -> None:
        kernel.waiting = [Touched(b"a", "entry")]

    assert watched(tmp_path, kernels, change, 1) == []


def test_where_watches_ran_out_fanotify_is_tried_once_and_it_is_told(
    tmp_path: Path, kernels: list[Kernel]
) -> None:
    def change(kernel: Kernel) -> None:
        kernel.problem = ran_out()

    told = watched(tmp_path, kernels, change, 2)
    assert [each.how for each in kernels] == ["auto", "fanotify"]
    assert told[0].code == "too_many_watches"


def test_a_file_system_that_no_watch_sees_is_no_reason_for_fanotify(
    tmp_path: Path, kernels: list[Kernel]
) -> None:
    def change(kernel: Kernel) -> None:
        kernel.problem, kernel.is_remote = ran_out(), True

    watched(tmp_path, kernels, change, 1)


def test_a_watch_whose_root_went_away_says_nothing_more(tmp_path: Path, kernels: list[Kernel]) -> None:
    def change(kernel: Kernel) -> None:
        kernel.waiting, kernel.problem = [Gone("it was removed")], ran_out()

    assert watched(tmp_path, kernels, change, 1) == []
