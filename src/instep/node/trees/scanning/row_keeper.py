"""The stat cache kept up while a writer's scan streams by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from instep.model.ids import FilesetName
from instep.model.statrow import StatRow
from instep.node.trees.scanning.held_entries import Holding
from instep.store.port import NodeStore
from instep.tree.scan.listing import Problem
from instep.tree.scan.scan import Scanned

ROWS_BATCH = 2_000
UNSETTLED_MAX = 1_000


class Noting(Protocol):
    """The count of a scan, as far as it counts files."""

    @property
    def unsettled(self) -> list[bytes]: ...

    @property
    def holding(self) -> Holding: ...


class RowKeeper:
    """Keeps new stat rows and drops rows of paths that went, in batches, while a scan streams by."""

    def __init__(self, store: NodeStore, fileset: FilesetName) -> None:
        self._store = store
        self._fileset = fileset
        self._fresh: list[StatRow] = []

    def taking(self, found: Iterable[Scanned | Problem], tally: Noting) -> Iterator[Scanned | Problem]:
        for item in found:
            if isinstance(item, Scanned) and item.row is not None:
                if item.is_row_new:
                    self._fresh.append(item.row)
                    if len(self._fresh) >= ROWS_BATCH:
                        self.finish()
                if item.is_racy and len(tally.unsettled) < UNSETTLED_MAX:
                    tally.unsettled.append(item.entry.path)
                if item.is_open:
                    tally.holding.opened(item.entry.path)
            yield item

    def finish(self) -> None:
        if self._fresh:
            self._store.put_stat_rows(self._fileset, self._fresh)
            self._fresh.clear()
