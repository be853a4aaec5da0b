"""The changes of a switch to the stat cache: rows of files that came, and paths that went."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from instep.errors import InstepError
from instep.model.manifest.entry import Entry, Kind
from instep.model.statrow import StatRow
from instep.tree.journal.journal import Journal, Op, RowRecord, records_of
from instep.tree.objects.laying import row_of
from instep.tree.objects.rows import RACY_NS
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import opened
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.place import Place
from instep.tree.root.records import named_damage

_SETTLED_NS = 20_000_000
"""Clocks of file systems tick every 4 to 10 ms: a later write has another ctime."""


@dataclass(frozen=True, slots=True)
class GoneRow:
    """A path, or a whole directory, that the live tree no longer has: its stat rows are void."""

    path: bytes


def stat_rows(place: Place, journal: Journal) -> Iterator[StatRow | GoneRow]:
    """The changes to the stat cache, to be stored before ``finish``: removals first where a path was
    replaced. Streams; can be asked again until ``finish``."""
    if not journal.is_switched:
        raise InstepError("stat rows are asked for before the switch", code="unexpected")
    with Root(place.root) as root:
        for step in journal.steps():
            if step.op is Op.MOVE:
                yield GoneRow(step.source)
            elif step.op in (Op.REMOVE, Op.CHANGE) and not _is_file(step.old, step.new):
                yield GoneRow(step.path)
            if (
                step.new is None
                or step.new.kind is not Kind.FILE
                or step.op not in (Op.NEW, Op.CHANGE, Op.META)
            ):
                continue
            found = root.stat_or_none(step.path)
            if found is not None and (found.st_ino, found.st_size, found.st_mtime_ns) == (
                step.ino,
                step.new.size,
                step.new.mtime_ns,
            ):
                yield _stat_row(row_of(step.path, step.new, found, is_staged=False))
    yield from _staged_rows(place, journal)


def _stat_row(row: RowRecord) -> StatRow:
    return StatRow(*msgspec.structs.astuple(row)[:-1])


def _is_file(*entries: Entry | None) -> bool:
    """Whether all are files: then the new row simply takes the place of the old one."""
    return all(entry is not None and entry.kind is Kind.FILE for entry in entries)


def _staged_rows(place: Place, journal: Journal) -> Iterator[StatRow]:
    try:
        with opened(place) as there:
            path = os.fsencode(there.archive) + b"/" + journal.header.batch.encode() + b"/rows"
            fd = os.open(path, READ)
    except FileNotFoundError:
        return
    with closing_fd(fd):
        # A file that lost its row is read again by the next scan.
        for row in records_of(RowRecord, fd, named_damage(path)):
            known = _stat_row(row)
            # Only this process could write a staged file, and it moved long after its last change: the clock of the
            # file system has ticked, so any later write shows, and the file need not be read again for its age.
            if row.is_staged and journal.header.sealed_at_ns - row.ctime_ns > _SETTLED_NS:
                known = known._replace(read_at_ns=max(row.ctime_ns + RACY_NS, row.read_at_ns))
            yield known
