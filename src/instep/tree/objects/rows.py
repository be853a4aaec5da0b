"""The stat cache's rows: the record of each file, and when it may be believed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from instep.model.paths import sort_key
from instep.model.statrow import StatRow

RACY_NS = 2_000_000_000
"""A file whose last change is younger than this when it is read is read again by the next scan."""


def is_settled(row: StatRow) -> bool:
    """Whether a later change of the file must show in its ctime."""
    return row.read_at_ns - row.ctime_ns >= RACY_NS


def is_same(row: StatRow, found: os.stat_result) -> bool:
    """Whether the row is of this file as it is. The device is left out: its number may change at a boot."""
    return (
        row.ino == found.st_ino
        and row.ctime_ns == found.st_ctime_ns
        and row.mtime_ns == found.st_mtime_ns
        and row.size == found.st_size
    )


def row_of_stat(path: bytes, found: os.stat_result, digest: bytes, chunks: bytes, read_at_ns: int) -> StatRow:
    times = found.st_ctime_ns, found.st_mtime_ns
    return StatRow(path, found.st_ino, found.st_dev, *times, found.st_size, digest, chunks, read_at_ns)


class _HasPath(Protocol):
    @property
    def path(self) -> bytes: ...


_Row = TypeVar("_Row", bound=_HasPath)


class RowsInOrder(Generic[_Row]):
    """Answers by path from rows that come in path order, for paths asked in that order, each once: one merge."""

    def __init__(self, rows: Iterable[_Row]) -> None:
        self._rows = iter(rows)
        self._row = next(self._rows, None)
        self.has_any = self._row is not None
        """False: this tree has no rows."""

    def __call__(self, path: bytes) -> _Row | None:
        row = self._row
        if row is None:
            return None
        if row.path != path:
            key = sort_key(path)
            while row is not None and sort_key(row.path) < key:
                row = next(self._rows, None)
            self._row = row
            if row is None or row.path != path:
                return None
        self._row = next(self._rows, None)
        return row
