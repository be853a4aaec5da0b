"""The stat cache in SQLite against its naive twin in memory: any paths, any operations, the same answers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.model.ids import FilesetName
from instep.model.statrow import StatRow
from instep.store.memory import MemoryStore
from instep.store.sqlite import SqliteStore

FILESET = FilesetName("catalog")

# Few letters, around "/" in bytewise order, so that prefixes and neighbours meet.
components = st.text("a.-\x01\xff", min_size=1, max_size=2).map(lambda text: text.encode("latin-1"))
paths = st.lists(components, min_size=1, max_size=3).map(b"/".join)
numbers = st.integers(0, (1 << 64) - 1)
rows = st.builds(
    StatRow,
    path=paths,
    ino=st.integers(0, 3) | numbers,
    dev=st.integers(0, 1),
    ctime_ns=st.integers(-(2**31) * 10**9, (1 << 34) * 10**9 - 1).filter(
        lambda ns: ns < 15_900_000_000 * 10**9
    ),
    mtime_ns=st.integers(0, 9),
    size=st.integers(0, 1 << 62),
    digest=st.binary(min_size=32, max_size=32),
    chunks=st.just(b"") | st.binary(min_size=32, max_size=32),
    read_at_ns=st.integers(0, 9),
)
operations = st.one_of(
    st.tuples(st.just("put"), st.lists(rows, max_size=6)),
    st.tuples(st.just("delete"), st.lists(paths, max_size=3)),
    st.tuples(st.just("delete trees"), st.lists(paths, max_size=3)),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(operations, max_size=6), paths, paths)
def test_both_stores_tell_the_same_rows(steps: list[tuple[str, Any]], after: bytes, below: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        real, twin = SqliteStore(Path(folder) / "state.db"), MemoryStore()
        for step in steps:
            for store in (real, twin):
                match step:
                    case "put", [*wanted]:
                        store.put_stat_rows(FILESET, wanted)
                    case "delete", [*gone]:
                        store.delete_stat_rows(FILESET, gone)
                    case "delete trees", [*directories]:
                        store.delete_stat_trees(FILESET, directories)
        everything = list(real.stat_rows(FILESET))
        assert everything == list(twin.stat_rows(FILESET))
        assert list(real.stat_rows(FILESET, after=after)) == list(twin.stat_rows(FILESET, after=after))
        assert list(real.stat_rows(FILESET, below=below)) == list(twin.stat_rows(FILESET, below=below))
        for row in everything:
            assert real.stat_by_inode(FILESET, row.dev, row.ino) == twin.stat_by_inode(
                FILESET, row.dev, row.ino
            )
        real.close()
