"""Every batch of an archive as a source of contents, found by a small table of each index.

A batch is written once and only removed whole, so its index is read once. It costs 16 bytes of memory for each
object's digest and for each object's key: the first bytes of it, and where its record lies in the index. One
lookup may serve several threads.
"""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from instep.errors import DamagedError
from instep.model.manifest.entry import Entry
from instep.tree.archive.index import INDEX, is_object, object_slots
from instep.tree.archive.source import ArchiveSource, KeptBatch
from instep.tree.journal.journal import ItemRecord, Why, decode_record
from instep.tree.journal.plan import object_key
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import opened
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.place import Place
from instep.tree.root.records import HEAD_BYTES, Damage, named_damage, scan_records

_LENGTH_BITS = 25
"""A record has at most 16 MiB."""
SOURCE_BATCHES = 3
TABLES_MAX = 64
"""So many batches are looked up one by one; more are merged."""


def batch_names(place: Place) -> list[bytes]:
    """All batches of the archive, oldest first."""
    try:
        with opened(place) as there, os.scandir(os.fsencode(there.archive)) as found:
            names = [each.name for each in found if each.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in names if not name.startswith(b"."))


class ArchiveLookup:
    """The batches of one place. Kept open, it reads the index of a new batch only."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._tables: dict[bytes, _Table] = {}
        """Of the newest batches, one each."""
        self._merged = _Merged()

    def newest(self) -> ArchiveSource:
        """The newest batches: the previous generation of an apply is mostly in the last."""
        return self.source(batch_names(self.place)[-SOURCE_BATCHES:])

    def source(self, batches: Sequence[bytes] | None = None) -> ArchiveSource:
        """These batches (oldest first), or every one that is there now. An index is read when the search gets to it."""
        names = batch_names(self.place) if batches is None else batches
        stays = set(names)
        with self._lock:
            # A damaged index is mended soon: it is read anew for each source.
            self._tables = {n: t for n, t in self._tables.items() if n in stays and not t.is_damaged}
        if not names:
            return ArchiveSource(self.place, lambda _, __: iter(()))

        def slots(entry: Entry, batches: KeptBatch) -> Iterator[tuple[bytes, bytes]]:
            asked = _Asked(entry)
            merged = self._merge()
            for name in reversed(names):
                if name not in merged.names:
                    yield from ((name, slot) for slot in self._slots(name, asked, batches))
            for name in sorted(merged.batches_of(asked) & stays, reverse=True):
                yield from ((name, slot) for slot in merged.slots(name, asked, batches))

        return ArchiveSource(self.place, slots)

    def _merge(self) -> _Merged:
        """Put many small tables into the large one."""
        with self._lock:
            whole = {name: table for name, table in self._tables.items() if not table.is_damaged}
            if len(whole) >= TABLES_MAX:
                self._merged = self._merged.with_more(whole, set(batch_names(self.place)))
                self._tables = {name: t for name, t in self._tables.items() if name not in whole}
            return self._merged

    def _slots(self, name: bytes, asked: _Asked, batches: KeptBatch) -> list[bytes]:
        table = self._tables.get(name)
        if table is not None and not table.may_have(asked):
            return []
        with contextlib.suppress(FileNotFoundError), batches.opened(name) as batch:
            if table is None:
                table = _Table(batch.fd, name)
                with self._lock:
                    self._tables[name] = table
            return _slots_in(batch, asked, table.at_of(asked), is_damaged=table.is_damaged)
        return []  # pruned meanwhile, or without an index


class _Asked:
    """One entry that is looked for, with the keys that tables have of it."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.digest = _begin(entry.digest)
        self.above: list[tuple[bytes, int]] = []
        """Its path and every directory above it, each with the beginning of its object's key."""
        at = entry.path
        while at:
            self.above.append((at, _key(at)))
            at = at.rpartition(b"/")[0]


class _Table:
    """Where the records of one index lie."""

    def __init__(self, batch_fd: int, name: bytes) -> None:
        self.is_damaged = False
        self._log = named_damage(b"index of the archive's batch " + name)
        self.rows = _Rows(list(self._read(batch_fd)))

    def _read(self, batch_fd: int) -> Iterator[tuple[int, int]]:
        """``(the beginning of a digest or of a path's key, where the record lies)``."""
        has_summary = False
        with closing_fd(os.open(INDEX, READ, dir_fd=batch_fd)) as fd:
            for offset, payload in scan_records(fd, self._note):
                record = _item(payload)
                if record is None:
                    self.is_damaged = True
                elif not record.path:
                    has_summary = True
                elif is_object(record) or record.why is Why.MOVED:  # the latter where its object had to stay
                    at = offset << _LENGTH_BITS | len(payload)
                    if record.digest and record.kind == 0:
                        yield _begin(record.digest), at
                    if not _is_known_file(record):
                        yield _key(record.path), at
        self.is_damaged = self.is_damaged or not has_summary

    def _note(self, damage: Damage) -> None:
        self.is_damaged = True
        self._log(damage)

    def may_have(self, asked: _Asked) -> bool:
        """Whether the index has to be looked into at all."""
        return self.is_damaged or bool(self.at_of(asked))

    def at_of(self, asked: _Asked) -> list[int]:
        """The records that may be of the entry: by digest, then by path."""
        found = self.rows.of(asked.digest)
        for _, key in asked.above:
            found += self.rows.of(key)
        return found


class _Rows:
    """Two sorted columns: a key, and its value."""

    def __init__(self, rows: list[tuple[int, int]]) -> None:
        rows.sort()
        self.keys = array("Q", [row[0] for row in rows])
        self.values = array("Q", [row[1] for row in rows])

    def of(self, key: int) -> list[int]:
        return list(self.values[bisect_left(self.keys, key) : bisect_right(self.keys, key)])


class _Merged:
    """The tables of many batches in one. A value is the number of a batch: its index says the rest."""

    def __init__(self) -> None:
        self.names: dict[bytes, _Table] = {}
        self._order: list[bytes] = []
        self._rows = _Rows([])

    def with_more(self, tables: Mapping[bytes, _Table], stays: set[bytes]) -> _Merged:
        """Both together, less batches that are gone."""
        merged = _Merged()
        merged.names = {n: t for n, t in (*self.names.items(), *tables.items()) if n in stays}
        merged._order = list(merged.names)
        merged._rows = _Rows(
            [
                (key, number)
                for number, name in enumerate(merged._order)
                for key in merged.names[name].rows.keys
            ]
        )
        return merged

    def batches_of(self, asked: _Asked) -> set[bytes]:
        keys = (asked.digest, *(key for _, key in asked.above))
        return {self._order[number] for key in keys for number in self._rows.of(key)}

    def slots(self, name: bytes, asked: _Asked, batches: KeptBatch) -> list[bytes]:
        with contextlib.suppress(FileNotFoundError), batches.opened(name) as batch:
            return _slots_in(batch, asked, self.names[name].at_of(asked))
        return []


def _slots_in(batch: Root, asked: _Asked, ats: Sequence[int], *, is_damaged: bool = False) -> list[bytes]:
    """The names in the batch that may hold the entry's contents."""
    entry, slots = asked.entry, list[bytes]()
    for record in _records(batch, ats):
        if record.digest == entry.digest and record.kind == 0:
            slots.append(b"o/" + record.object)
        elif _is_known_file(record):
            continue
        elif entry.path == record.path or entry.path.startswith(record.path + b"/"):
            slots.append(b"o/" + record.object + entry.path[len(record.path) :])
    if is_damaged:
        slots += object_slots(entry.path)
    return list(dict.fromkeys(slots))


def _records(batch: Root, ats: Sequence[int]) -> Iterator[ItemRecord]:
    if not ats:
        return
    with closing_fd(os.open(INDEX, READ, dir_fd=batch.fd)) as fd:
        for at in ats:
            payload = os.pread(fd, at & (1 << _LENGTH_BITS) - 1, (at >> _LENGTH_BITS) + HEAD_BYTES)
            record = _item(payload)
            if record is not None:
                yield record


def _item(payload: bytes) -> ItemRecord | None:
    try:
        record = decode_record(payload)
    except DamagedError:
        return None
    return record if isinstance(record, ItemRecord) else None


def _is_known_file(record: ItemRecord) -> bool:
    """Whether the record's digest says which contents the object has. It is then found by digest alone: a path that
    changes with every generation would else be read once for each of them."""
    return record.kind == 0 and bool(record.digest) and record.why in (Why.REPLACED, Why.REMOVED, Why.MOVED)


def _begin(name: bytes) -> int:
    return int.from_bytes(name[:8], "big")


def _key(path: bytes) -> int:
    return int(object_key(path)[:16], 16)
