"""The changes of a switch to the stat cache: rows of files that came, and paths that went."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from instep.errors import InstepError
from instep.model.manifest.entry import Entry, Kind
from instep.model.statrow import StatRow
from instep.tree.journal.journal import Journal, Op, RowRecord, decode_record
from instep.tree.objects.laying import row_of
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import opened
from instep.tree.root.place import Place
from instep.tree.root.records import named_damage, read_records

_SETTLED_NS = 20_000_000
"""Clocks of file systems tick every 4 to 10 ms: a later write has another ctime."""
_RACY_NS = 2_000_000_000


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
                row = row_of(step.path, step.new, found, is_staged=False)
                yield _stat_row(row, row.read_at_ns)
    yield from _staged_rows(place, journal)


def _stat_row(row: RowRecord, read_at_ns: int) -> StatRow:
    return StatRow(
        row.path, row.ino, row.dev, row.ctime_ns, row.mtime_ns, row.size, row.digest, row.chunks, read_at_ns
    )


def _is_file(*entries: Entry | None) -> bool:
    """Whether all are files: then the new row simply takes the place of the old one."""
    return all(entry is not None and entry.kind is Kind.FILE for entry in entries)


def _staged_rows(place: Place, journal: Journal) -> Iterator[StatRow]:
    try:
        with opened(place) as there:
            path = os.fsencode(there.archive) + b"/" + journal.header.batch.encode() + b"/rows"
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        # A file that lost its row is read again by the next scan.
        for payload in read_records(fd, named_damage(path)):
            row = decode_record(payload)
            if not isinstance(row, RowRecord):
                continue
            # Only this process could write a staged file, and it moved long after its last change: the clock of the
            # file system has ticked, so any later write shows, and the file need not be read again for its age.
            if row.is_staged and journal.header.sealed_at_ns - row.ctime_ns > _SETTLED_NS:
                settled = row.ctime_ns + _RACY_NS
                yield _stat_row(row, max(settled, row.read_at_ns))
            else:
                yield _stat_row(row, row.read_at_ns)
    finally:
        os.close(fd)
