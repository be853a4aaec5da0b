"""The quick look at a random tree, changed at random, names every path that a scan would find changed."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.model.definition import Definition
from instep.model.ids import FilesetName, NodeName
from instep.model.statrow import StatRow
from instep.node.trees.scanning.tree_stamps import TreeStamps
from instep.node.trees.scanning.writer_scan import WriterScan, WriterScanned
from instep.store.memory import MemoryStore
from instep.tree.root.marker import create_marker
from instep.tree.root.place import Place
from tests.property.test_scan_twin import mutate

FILESET = FilesetName("data")


class _Aged(MemoryStore):
    """Believes each row that it is given: what settles in two seconds is settled here at once."""

    def put_stat_rows(self, fileset: FilesetName, rows: Iterable[StatRow]) -> None:
        super().put_stat_rows(fileset, [row._replace(read_at_ns=1 << 62) for row in rows])


def _wait_for_a_tick(root: Path) -> None:
    """Changes after this have another time than changes before."""
    probe = root.parent / "probe"
    probe.touch()
    began = probe.stat().st_ctime_ns
    deadline = time.monotonic() + 5
    while probe.stat().st_ctime_ns == began:
        assert time.monotonic() < deadline, "the clock of this file system stands still"
        probe.touch()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_whole_looks_equal_scans_of_everything(seed: int) -> None:
    """Goal: of two looks at one tree, the quick one makes the manifest of the full one, after any changes, also where looks at
    single paths and refused publishes come between. Method: the looks that are published are drawn; manifests are compared."""
    chance = random.Random(seed)
    base = Path(tempfile.mkdtemp(prefix="instep-stamps-"))
    try:
        root = base / "root"
        root.mkdir()
        place = Place(root, base / "control", FILESET)
        marker = create_marker(root, FILESET, NodeName("main"))
        store, stamps, definition = _Aged(), TreeStamps(), Definition()
        look = WriterScan(place, FILESET, definition, lambda: marker, lambda *_: None)
        published = look.everything(store, None, 1, deep=False).summary.root
        for _ in range(6):
            for _ in range(chance.randrange(12)):
                mutate(os.fsencode(root), chance)
            _wait_for_a_tick(root)
            known, now = stamps.of(published, definition.digest, root), time.time_ns() // 1_000_000
            found: WriterScanned
            if known is None:
                found = look.everything(store, published, now, deep=False)
            elif chance.random() < 0.3:
                touched = [os.fsencode(each.name) for each in root.iterdir() if each.name != ".instep"]
                found = look.some(store, published, (), chance.sample(touched, len(touched) // 2), now)
            else:
                found = look.whole(store, published, known, (), (), now)
                every = look.everything(store, published, now, deep=False)
                assert every.summary.root == found.summary.root
            stamps.looked(known, definition.digest, root, found)
            if chance.random() < 0.7:
                published = found.summary.root
    finally:
        shutil.rmtree(base)


@pytest.mark.parametrize("left", [0, 3, 5])
def test_a_file_that_goes_from_a_very_large_directory_is_missed_by_no_look(
    left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a directory whose stamps are not kept, because it is or was too large, hides no removal. Method: directories of
    more than four entries are very large ones; files go, of which no watch says anything."""
    monkeypatch.setattr("instep.tree.scan.listing._MANY", 4)
    root = tmp_path / "root"
    (root / "large").mkdir(parents=True)
    for name in range(6):
        (root / "large" / f"{name}").write_text("x")
    place, marker = Place(root, tmp_path / "control", FILESET), create_marker(root, FILESET, NodeName("main"))
    store, stamps, definition = _Aged(), TreeStamps(), Definition()
    look = WriterScan(place, FILESET, definition, lambda: marker, lambda *_: None)
    first = look.everything(store, None, 1, deep=False)
    assert first.stamps is not None
    first.stamps.restless.clear()  # as if all of it were older
    stamps.looked(None, definition.digest, root, replace(first, restless=frozenset()))
    for name in range(left, 6):
        (root / "large" / f"{name}").unlink()
    published = first.summary.root
    known, now = stamps.of(published, definition.digest, root), time.time_ns() // 1_000_000
    assert known is not None
    found = look.whole(store, published, known, (), (), now)
    assert found.summary.root == look.everything(store, published, now, deep=False).summary.root
    assert found.summary.removed == 6 - left


def test_a_tree_of_paths_that_no_look_believes_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a look at a tree that was just laid, or that cannot be read, holds no path of it all. Method: a few are
    many; pipes, which no look carries, and young links."""
    for module in ("node.trees.scanning.scan_tally", "node.trees.scanning.tree_stamps", "tree.scan.stamps"):
        monkeypatch.setattr(f"instep.{module}.RESTLESS_MAX", 3)
    root = tmp_path / "root"
    root.mkdir()
    for name in range(9):
        os.mkfifo(root / f"{name}")
        (root / f"link{name}").symlink_to("x")
    place, marker = Place(root, tmp_path / "control", FILESET), create_marker(root, FILESET, NodeName("main"))
    store, stamps, definition = MemoryStore(), TreeStamps(), Definition()
    look = WriterScan(place, FILESET, definition, lambda: marker, lambda *_: None)
    found = look.everything(store, None, time.time_ns() // 1_000_000, deep=False)
    assert found.stamps is not None
    assert len(found.restless) == len(found.stamps.restless) == 4
    stamps.looked(None, definition.digest, root, found)
    assert stamps.of(found.summary.root, definition.digest, root) is None
