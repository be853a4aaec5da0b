"""Rows of the stat cache: looked up as scans ask for them, and kept up by scans and switches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from instep.errors import DamagedError
from instep.model.ids import FilesetName
from instep.model.paths import sort_key
from instep.model.statrow import StatRow
from instep.store.port import NodeStore
from instep.tree.journal.journal import Journal
from instep.tree.root.place import Place
from instep.tree.scan.cover import Cover
from instep.tree.switch.rows import GoneRow, stat_rows
from instep.tree.switch.switch import finish

NEIGHBOURS_FIRST = 16
NEIGHBOURS_MAX = 1_024
SINGLY_MAX = 8
ROWS_BATCH = 2_000


class _Window:
    """How many rows are read ahead: more while they are asked for, fewer while they are not."""

    def __init__(self) -> None:
        self._size = NEIGHBOURS_FIRST
        self._used = 0
        self._is_first = True

    def use(self) -> None:
        """A row that was read ahead was asked for."""
        self._used += 1

    def following(self) -> int:
        """How many to read ahead now."""
        if not self._is_first:
            is_worth_it = 2 * self._used >= self._size
            self._size = min(4 * self._size, NEIGHBOURS_MAX) if is_worth_it else max(self._size // 4, 1)
        self._is_first, self._used = False, 0
        return self._size


class Moved:
    """Answers by inode. A file that was renamed was mostly renamed together with its neighbours: after a hit the rows
    that follow it are read in one go, because a look-up by inode for each of 20,000 files takes longer than the
    scan. A file that was written anew may have the inode that a replaced one has just left: its neighbours are not
    asked for."""

    def __init__(self, store: NodeStore, fileset: FilesetName) -> None:
        self._store = store
        self._fileset = fileset
        self._near: dict[tuple[int, int], StatRow] = {}
        self._window = _Window()

    def __call__(self, dev: int, ino: int) -> StatRow | None:
        row = self._near.pop((dev, ino), None)
        if row is not None:
            self._window.use()
            return row
        row = self._store.stat_by_inode(self._fileset, dev, ino)
        if row is not None:
            following = self._store.stat_rows(self._fileset, after=row.path)
            self._near = {(each.dev, each.ino): each for each in islice(following, self._window.following())}
        return row


class LiveRows:
    """Rows by path, for callers that mostly ask in path order: after a few hits the rows that follow are read in one
    go."""

    def __init__(self, store: NodeStore, fileset: FilesetName) -> None:
        self._store = store
        self._fileset = fileset
        self._near: dict[bytes, StatRow] = {}
        self._hits = 0
        self._window = _Window()

    def __call__(self, path: bytes) -> StatRow | None:
        row = self._near.pop(path, None)
        if row is not None:
            self._window.use()
            return row
        row = self._store.stat_row(self._fileset, path)
        if row is not None:
            self._hits += 1
            if self._hits > SINGLY_MAX:
                following = self._store.stat_rows(self._fileset, after=path)
                self._near = {each.path: each for each in islice(following, self._window.following())}
        return row


def covered_rows(store: NodeStore, fileset: FilesetName, covered: Cover) -> Iterator[StatRow]:
    """The rows that a partial scan of ``covered`` will ask for, in its order: trees are streamed, because a look-up
    for each of 20,000 files takes longer than looking at them."""
    trees = set(covered.trees)
    for path in sorted((*covered.trees, *covered.entries), key=sort_key):
        row = store.stat_row(fileset, path)
        if row is not None:
            yield row
        if path in trees:
            yield from store.stat_rows(fileset, below=path)


class RowBatch:
    """New rows, and paths that have none any more, stored ``ROWS_BATCH`` at a time."""

    def __init__(self, store: NodeStore, fileset: FilesetName) -> None:
        self._store = store
        self._fileset = fileset
        self._fresh: list[StatRow] = []
        self._gone: list[bytes] = []

    def add(self, row: StatRow) -> None:
        self._fresh.append(row)
        if len(self._fresh) >= ROWS_BATCH:
            self.flush()

    def drop(self, path: bytes) -> None:
        """The rows of a path, and of all below it, go before those are stored that were added since the last flush."""
        self._gone.append(path)
        if len(self._gone) >= ROWS_BATCH:
            self.flush()

    def flush(self) -> None:
        if self._gone:
            self._store.delete_stat_trees(self._fileset, self._gone)
            self._gone = []
        if self._fresh:
            self._store.put_stat_rows(self._fileset, self._fresh)
            self._fresh = []


def record_rows(store: NodeStore, place: Place) -> None:
    """Bring the stat cache up to a switched journal, then close the journal."""
    journal = store_rows(store, place)
    if journal is not None:
        finish(place, journal)


def store_rows(store: NodeStore, place: Place) -> Journal | None:
    """Bring the stat cache up to a switched journal; return the journal, where there is one."""
    journal = Journal.load(place)
    if journal is None:
        return None
    if not journal.is_switched:
        raise DamagedError("a switch that has not finished cannot be recorded", code="journal_damaged")
    batch = RowBatch(store, place.fileset)
    for row in stat_rows(place, journal):
        if isinstance(row, GoneRow):
            batch.drop(row.path)
        else:
            batch.add(row)
    batch.flush()
    return journal
