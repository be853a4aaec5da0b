"""Bringing the stat cache up to a switch, before its journal goes."""

from __future__ import annotations

from instep.errors import DamagedError
from instep.model.statrow import StatRow
from instep.store.port import NodeStore
from instep.tree.journal.journal import Journal
from instep.tree.root.place import Place
from instep.tree.switch.rows import GoneRow, stat_rows
from instep.tree.switch.switch import finish

ROWS_BATCH = 2_000


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
    fileset = place.fileset
    batch: list[StatRow] = []
    for row in stat_rows(place, journal):
        if isinstance(row, GoneRow):
            if batch:
                store.put_stat_rows(fileset, batch)
                batch = []
            store.delete_stat_tree(fileset, row.path)
            continue
        batch.append(row)
        if len(batch) >= ROWS_BATCH:
            store.put_stat_rows(fileset, batch)
            batch = []
    if batch:
        store.put_stat_rows(fileset, batch)
    return journal
