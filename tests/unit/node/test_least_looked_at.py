"""One change in a large tree costs as much as in a small one: which paths are looked at again, and which are not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from instep.core.guards.held import ScanProblem
from instep.core.publish.vocabulary import ScanSummary
from instep.model.definition import Definition
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, NodeName
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.scanning import watching
from instep.node.trees.scanning import writer_scan as survey_module
from instep.node.trees.scanning.touched_paths import TouchedPaths
from instep.node.trees.scanning.watching import TreeWatch
from instep.node.trees.scanning.writer_scan import WriterScan
from instep.store.memory import MemoryStore
from instep.tree.root.marker import create_marker
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.scan.scan import Scanned, scan
from instep.tree.scan.touched import Overflow, Touched, WatchEvent

FILESET = FilesetName("data")
FILES = 3_000


class _Told:
    """Stands for the kernel's side of a watch: says what the test says."""

    def __init__(self, root: Path, rules: Rules, how: str) -> None:
        self.fd, self._other = os.pipe()
        self.waiting: list[WatchEvent] = []

    def start(self) -> _Told:
        return self

    def read(self) -> list[WatchEvent]:
        told, self.waiting = self.waiting, []
        return told

    problem = None
    written: frozenset[bytes] = frozenset()

    def close(self) -> None:
        os.close(self.fd)
        os.close(self._other)


def test_a_loss_of_track_is_told_by_one_drain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Goal: one overflow asks for one full scan, whatever made that scan full. Method: an overflow, a drain, then
    a touched path; neither the word to the machine nor the next drain may speak of the overflow again."""
    monkeypatch.setattr(watching, "Watcher", _Told)
    words: list[tuple[tuple[bytes, ...], bool]] = []

    async def look() -> tuple[TouchedPaths, TouchedPaths]:
        watch = TreeWatch(
            tmp_path, Rules(Definition()), lambda paths, lost: words.append((paths, lost)), print
        )
        await watch.start()
        kernel = cast(_Told, watch._watcher)
        kernel.waiting = [Overflow(b"")]
        first = watch.drain()
        kernel.waiting = [Touched(b"a", "entry")]
        watch._read()
        second = watch.drain()
        watch.close()
        return first, second

    first, second = asyncio.run(look())
    assert (first.paths, first.is_everything) == ((), True)
    assert words == [((b"a",), False)]
    assert (second.entries, second.trees, second.is_everything) == ([b"a"], [], False)


def _summary(**changes: Any) -> ScanSummary:
    nothing = {"entries_before": 1, "added": 0, "changed": 0, "removed": 0, "changed_bytes": 0}
    return ScanSummary(root=EMPTY_DIGEST, entries=1, size_bytes=1, **{**nothing, **changes})


def _touched(*paths: tuple[bytes, bool], is_everything: bool = False) -> TouchedPaths:
    touched = TouchedPaths()
    for path, is_tree in paths:
        touched.add(path, is_tree=is_tree)
    touched.is_everything = is_everything
    return touched


def test_what_was_drained_waits_for_a_generation() -> None:
    """Goal: a scan that fails or is refused forgets neither paths nor the loss of track; one that was committed, or
    found nothing new and no problem, does."""
    waiting = TouchedPaths()
    waiting.take_in(_touched((b"a", False), (b"d", True)))
    waiting.take_in(_touched((b"a", True)))
    waiting.scanned(_summary(removed=1))
    waiting.scanned(_summary(problems=(ScanProblem(b"a", "damaged", ""),)))
    assert (waiting.trees, waiting.entries) == ([b"a", b"d"], [])
    waiting.take_in(_touched(is_everything=True))
    waiting.scanned(_summary(changed=1))
    assert waiting.is_everything
    waiting.clear()
    assert (waiting.is_everything, waiting.trees) == (False, [])
    waiting.take_in(_touched((b"a", False)))
    waiting.scanned(_summary())
    assert waiting.entries == []


class _Counting(MemoryStore):
    """Counts what is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.pages = 0
        self.rows = 0

    def get_page(self, digest: Digest) -> bytes | None:
        self.pages += 1
        return super().get_page(digest)

    def stat_row(self, fileset: FilesetName, path: bytes) -> Any:
        self.rows += 1
        return super().stat_row(fileset, path)

    def stat_rows(self, *args: Any, **kwargs: Any) -> Any:
        for row in super().stat_rows(*args, **kwargs):
            self.rows += 1
            yield row


def test_one_touched_path_is_all_that_is_scanned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Goal: a publish of one change reads what that change needs, in a tree of any size. Method: entries scanned,
    files read, rows and pages asked for, after one of 3,000 files in the top directory was written."""
    root = tmp_path / "root"
    root.mkdir()
    marker = create_marker(root, FILESET, NodeName("main"))
    for number in range(FILES):
        (root / f"f{number:04}").write_text("old")
    store = _Counting()
    read: list[Digest] = []
    place = Place(root, tmp_path / "control", FILESET)
    survey = WriterScan(
        place, FILESET, Definition(), lambda: marker, lambda digest, data, fd: read.append(digest)
    )
    now_ms = root.stat().st_mtime_ns // 1_000_000 + 10_000
    base = survey.everything(store, None, now_ms, deep=False).summary
    assert (base.entries, len(read)) == (FILES, FILES)
    assert base.is_full

    scanned: list[bytes] = []
    plain = scan

    def counted(*args: Any, **kwargs: Any) -> Any:
        for item in plain(*args, **kwargs):
            scanned.append(item.entry.path if isinstance(item, Scanned) else item.path)
            yield item

    monkeypatch.setattr(survey_module, "scan", counted)
    (root / "f1500").write_text("new")
    read.clear()
    store.pages = store.rows = 0
    after = survey.some(store, base.root, [], [b"f1500"], now_ms).summary
    assert (after.changed, after.added, after.removed, after.entries) == (1, 0, 0, FILES)
    assert not after.is_full, "what it did not look at is not taken for mended"
    assert scanned == [b"f1500"]
    assert len(read) == 1
    assert store.rows <= 1
    assert store.pages <= 12, "some pages a level, whatever their number"
    assert survey.everything(store, base.root, now_ms, deep=True).summary.root == after.root


def test_a_cancelled_drift_check_forgets_no_kinds() -> None:
    """Goal: a partner whose check gave way to a new head looks at the same paths alone afterwards, not at all below
    the top directory; and the check in its thread is stopped. Method: a worker that only notes what it got."""
    got: list[tuple[list[bytes], list[bytes]]] = []
    stops: list[Any] = []

    async def run(
        call: Any, base: HeadRef, paths: Sequence[bytes], asked: TouchedPaths, stopping: Any
    ) -> Any:
        got.append((asked.entries, asked.trees))
        stops.append(stopping)
        if len(got) == 1:
            await asyncio.Event().wait()
        return (), 0

    async def checks() -> None:
        tree = FilesetTree(cast(Any, None), cast(Any, SimpleNamespace(name=FILESET)))
        tree.worker.close()
        tree.worker = cast(Any, SimpleNamespace(run=run))
        tree.touched.add(b"data", is_tree=False)
        tree.touched.add(b"new", is_tree=True)
        first = asyncio.get_running_loop().create_task(
            tree.drift(cast(Any, None), (b"data", b"new", b"gone"))
        )
        await asyncio.sleep(0)
        tree.touched.add(b"later", is_tree=False)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        for _ in range(2):
            await tree.drift(cast(Any, None), (b"data", b"new"))

    asyncio.run(checks())
    assert got == [([b"data"], [b"new"])] * 2 + [([], [])]
    assert [stop.is_set() for stop in stops] == [True, False, False]
