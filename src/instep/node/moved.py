"""Rows of files that were moved with their directory, found by inode."""

from __future__ import annotations

from itertools import islice

from instep.model.ids import FilesetName
from instep.model.statrow import StatRow
from instep.store.port import NodeStore

__all__ = ["Moved"]

NEIGHBOURS_MAX = 1_024


class Moved:
    """Answers by inode. Who was renamed was mostly renamed together with its neighbours: after a hit the rows that
    follow it are read in one go, because a look-up by inode for each of 20,000 files takes longer than the scan."""

    def __init__(self, store: NodeStore, fileset: FilesetName) -> None:
        self._store = store
        self._fileset = fileset
        self._near: dict[tuple[int, int], StatRow] = {}

    def __call__(self, dev: int, ino: int) -> StatRow | None:
        row = self._near.pop((dev, ino), None)
        if row is not None:
            return row
        row = self._store.stat_by_inode(self._fileset, dev, ino)
        if row is not None:
            following = self._store.stat_rows(self._fileset, after=row.path)
            self._near = {(each.dev, each.ino): each for each in islice(following, NEIGHBOURS_MAX)}
        return row
