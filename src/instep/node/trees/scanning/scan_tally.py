"""What one look at a tree brings along: counts of differences, and the pages and rows that it makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from instep.core.guards.hot import HOT_FILES_MAX, LARGE_BYTES
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind, same_but_for_times_of_directories
from instep.model.paths import sort_key
from instep.node.trees.scanning.held_entries import Holding
from instep.node.trees.scanning.stat_rows import RowBatch
from instep.store.port import NodeStore
from instep.tree.objects.rows import is_settled
from instep.tree.scan.listing import Problem
from instep.tree.scan.scan import Scanned
from instep.tree.scan.stamps import RESTLESS_MAX

PAGES_BATCH = 256
UNSETTLED_MAX = 1_000
PATHS_KEPT_MAX = 10_000
BUNDLE_PAGES_MAX_BYTES = 512 << 10


class PageKeeper:
    """``get`` and ``put`` of pages over a store, batched; keeps a list of the new ones, for the head's bundle."""

    def __init__(self, store: NodeStore) -> None:
        self._store = store
        self._open: dict[Digest, bytes] = {}
        self.new: dict[Digest, bytes] | None = {}
        self._new_bytes = 0

    def get(self, digest: Digest) -> bytes:
        raw = self._open.get(digest) or self._store.get_page(digest)
        if raw is None:
            raise KeyError(digest)
        return raw

    def put(self, digest: Digest, raw: bytes) -> None:
        self._open[digest] = raw
        if len(self._open) >= PAGES_BATCH:
            self.flush()

    def flush(self) -> None:
        """Store what is open and not stored yet."""
        present = self._store.has_pages(self._open)
        fresh = {digest: raw for digest, raw in self._open.items() if digest not in present}
        self._store.put_pages(fresh.items())
        self._open.clear()
        if self.new is not None:
            self.new.update(fresh)
            self._new_bytes += sum(map(len, fresh.values()))
            if self._new_bytes > BUNDLE_PAGES_MAX_BYTES:
                self.new = None


@dataclass(slots=True)
class ScanTally:
    """The differences that a look found, counted; and the paths that need another look."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    changed_bytes: int = 0
    holding: Holding = field(default_factory=Holding)
    unsettled: list[bytes] = field(default_factory=list)
    paths: list[bytes] = field(default_factory=list)
    large: list[bytes] = field(default_factory=list)
    restless: set[bytes] = field(default_factory=set)
    """Paths that the next look cannot believe by their stat; a few more than stamps may have where there are many."""

    def saw(self, path: bytes, old: Entry | None, new: Entry | None) -> None:
        if old is None and new is not None:
            self.added += 1
            self.changed_bytes += new.size if new.kind is Kind.FILE else 0
        elif old is not None and new is None:
            self.removed += 1
        elif old is not None and new is not None:
            if same_but_for_times_of_directories(old, new):
                return
            self.changed += 1
            if old.digest != new.digest:
                self.changed_bytes += new.size
                if new.size >= LARGE_BYTES and len(self.large) < HOT_FILES_MAX:
                    self.large.append(path)
        if len(self.paths) < PATHS_KEPT_MAX:
            self.paths.append(path)

    def counts(self, found: Iterable[Scanned | Problem], rows: RowBatch) -> Iterator[Scanned | Problem]:
        """Hand on what a scan finds: new rows go to the stat cache, files that are not at rest are noted."""
        for item in found:
            if isinstance(item, Problem):
                self._rests_not(item.path)
            elif item.row is not None:
                if item.is_row_new:
                    rows.add(item.row)
                if item.is_racy and len(self.unsettled) < UNSETTLED_MAX:
                    self.unsettled.append(item.entry.path)
                if item.is_open:
                    self.holding.opened(item.entry.path)
                if not is_settled(item.row):
                    self._rests_not(item.entry.path)
            yield item

    def _rests_not(self, path: bytes) -> None:
        if len(self.restless) <= RESTLESS_MAX:
            self.restless.add(path)


def path_of(item: Scanned | Problem) -> bytes:
    return item.path if isinstance(item, Problem) else item.entry.path


def paired(
    before: Iterator[Entry], found: Iterable[Scanned | Problem]
) -> Iterator[tuple[Entry | None, Scanned | Problem | None]]:
    """Both in the order of paths, paired where they are of one path."""
    old = next(before, None)
    for item in found:
        path = path_of(item)
        while old is not None and old.path != path and sort_key(old.path) < sort_key(path):
            yield old, None
            old = next(before, None)
        if old is not None and old.path == path:
            yield old, item
            old = next(before, None)
        else:
            yield None, item
    while old is not None:
        yield old, None
        old = next(before, None)
