"""Bringing the stat cache up to what a switch made, before its journal goes."""

from __future__ import annotations

from typing import Protocol

from instep.errors import DamagedError
from instep.model.statrow import StatRow
from instep.node.config.settings import FilesetSettings
from instep.node.runtime import Runtime
from instep.tree.journal import Journal
from instep.tree.place import Place
from instep.tree.switch import finish
from instep.tree.switch_rows import Gone, stat_rows

__all__ = ["HasRows", "record_rows", "store_rows"]

ROWS_BATCH = 2_000


class HasRows(Protocol):
    """A line's service, followed or written here."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def fileset(self) -> FilesetSettings: ...


def record_rows(service: HasRows, place: Place) -> None:
    """Bring the stat cache up to what a switched journal made, then close the journal."""
    journal = store_rows(service, place)
    if journal is not None:
        finish(place, journal)


def store_rows(service: HasRows, place: Place) -> Journal | None:
    """Bring the stat cache up to what a switched journal made; the journal, where there is one."""
    journal = Journal.load(place)
    if journal is None:
        return None
    if not journal.is_switched:
        raise DamagedError("a switch that has not finished cannot be recorded", code="journal_damaged")
    store, fileset = service.runtime.store, service.fileset.name
    batch: list[StatRow] = []
    for row in stat_rows(place, journal):
        if isinstance(row, Gone):
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
