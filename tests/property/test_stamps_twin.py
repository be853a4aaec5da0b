"""The quick look at a random tree, changed at random, names every path that a scan would find changed."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

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
