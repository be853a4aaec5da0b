"""Rows of the stat cache that are read ahead: many for a directory that was renamed, few for inodes that came again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.model.ids import FilesetName
from instep.model.statrow import StatRow
from instep.node.trees.scanning.stat_rows import LiveRows, Moved
from instep.store.sqlite import SqliteStore

NAME = FilesetName("data")
FILES = 5_000
ROWS = [StatRow(b"d/%05d" % number, number + 1, 1, 2, 3, 4, bytes(32), b"", 5) for number in range(FILES)]


class Counting(SqliteStore):
    """Counts the rows that are read in order, and the look-ups of one row."""

    in_order = 0
    single = 0

    def stat_rows(self, fileset: FilesetName, after: bytes = b"", below: bytes = b"") -> Iterator[StatRow]:
        for row in super().stat_rows(fileset, after, below):
            self.in_order += 1
            yield row

    def stat_by_inode(self, fileset: FilesetName, dev: int, ino: int) -> StatRow | None:
        self.single += 1
        return super().stat_by_inode(fileset, dev, ino)

    def stat_row(self, fileset: FilesetName, path: bytes) -> StatRow | None:
        self.single += 1
        return super().stat_row(fileset, path)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Counting]:
    found = Counting(tmp_path / "node.db")
    found.put_stat_rows(NAME, ROWS)
    yield found
    found.close()


def test_files_that_got_inodes_of_replaced_ones_read_few_rows(store: Counting) -> None:
    """Goal: editors that write a new file and rename it over the old one reuse inodes all over the tree; 500 of them
    read no more than a few rows each."""
    scattered = random.Random(7).sample(ROWS, 500)
    moved, live = Moved(store, NAME), LiveRows(store, NAME)
    for row in scattered:
        assert moved(row.dev, row.ino) == row
        assert live(row.path) == row
    assert store.in_order < 4 * len(scattered)


def test_a_renamed_directory_is_read_in_one_go(store: Counting) -> None:
    """Goal: each row once, with few look-ups by inode or path."""
    moved, live = Moved(store, NAME), LiveRows(store, NAME)
    for row in ROWS:
        assert moved(row.dev, row.ino) == row
        assert live(row.path) == row
    assert store.single < FILES / 100
    assert store.in_order <= 2 * FILES
