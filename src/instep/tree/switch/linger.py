"""The tree from before an exchange: kept whole for programs that have it open, then taken down with nothing lost (P5).

It lies as ``next`` in the archive batch of its switch. A link of a file of the other tree goes; everything else came
there behind the switch's back, and stays in the batch as drift. Section 7 of ``docs/spec/journal.md``, "Lingering".
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from instep.tree.archive.index import INDEX, stream_index, summary_of
from instep.tree.archive.lookup import batch_names
from instep.tree.journal.journal import (
    ItemRecord,
    Journal,
    LinkedRecord,
    Why,
    encode_record,
    records_of,
)
from instep.tree.journal.plan import object_key
from instep.tree.objects.inode import let_owner
from instep.tree.objects.laying import sync_directory
from instep.tree.objects.rows import RowsInOrder
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import on_opened, opened
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place
from instep.tree.root.records import append_records, named_damage
from instep.tree.scan.subtree import kind_of
from instep.tree.stage.next_tree import LINKED, NEXT, KeepRows, LiveRow, Relinked, holding_next
from instep.tree.switch.switch import strip_batch

_ENDING = register("exchange.ending")
_NAMED = register("exchange.late_named")
_KEPT = register("exchange.late_kept")
_UNLINKED = register("exchange.unlinked")
_TREE_GONE = register("exchange.tree_gone")

LATE = b".late"
LATE_MAX = 500
"""So many late objects are named in the index by one sync, before they move."""
NAMED_MAX = 1_000
_OWN = 0o700


@dataclass(frozen=True, slots=True)
class Ended:
    """``late``: how many objects of the old tree no switch knew; all are in the archive. ``named``: some of them.
    ``is_done`` is False when the caller stopped it: the rest is for another call."""

    late: int
    named: tuple[bytes, ...]
    is_done: bool = True


def lingering(place: Place) -> list[bytes]:
    """Batches whose old tree is still there, oldest first."""
    names = batch_names(place)
    if not names:
        return []
    with opened(place) as there:
        return holding_next(os.fsencode(there.archive), names)


@on_opened
def end_linger(
    place: Place,
    batch: bytes,
    now_ms: int,
    *,
    live_row: LiveRow | None = None,
    keep_rows: KeepRows | None = None,
    stopping: threading.Event | None = None,
) -> Ended:
    """Take down the old tree of ``batch``; after a crash or an error simply again. Rows of live files that lose the
    other name are kept true. Once ``stopping`` is set it ends at the next object. ``OSError``."""
    failpoint(_ENDING)
    path = os.fsencode(place.archive) + b"/" + batch
    with Root(path) as opened_batch, open_marked(place.root, place.fileset) as live:
        ending = _Ending(opened_batch, live, now_ms, Relinked(live_row, keep_rows))
        is_done = ending.run(stopping or threading.Event())
    if not is_done:
        return Ended(ending.late, tuple(ending.named), False)
    failpoint(_TREE_GONE)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path + b"/" + LINKED)
    sync_directory(path)
    journal = Journal.load(place)
    if journal is None or journal.header.batch.encode() != batch:
        strip_batch(place, batch)
    return Ended(ending.late, tuple(ending.named))


class _Ending:
    def __init__(self, batch: Root, live: Root, now_ms: int, relinked: Relinked) -> None:
        self.batch = batch
        self.live = live
        self.now_ms = now_ms
        self.relinked = relinked
        self.links = RowsInOrder(_links(batch))
        self.pending: list[tuple[bytes, bytes, os.stat_result]] = []
        self.late = 0
        self.named: list[bytes] = []
        self.summary = _summary(batch)

    def run(self, stopping: threading.Event) -> bool:
        """Whether all of it is gone."""
        stack = [(b"", iter(self._listed(b"")))]
        while stack and not stopping.is_set():
            directory, names = stack[-1]
            found = next(names, None)
            if found is None:
                stack.pop()
                self._remove_directory(directory)
                continue
            path, status = found
            if stat.S_ISDIR(status.st_mode):
                self.links(path)
                stack.append((path, iter(self._listed(path))))
            else:
                self._take(path, status)
        self._keep_late()
        self.relinked.flush()
        return not stack

    def _listed(self, directory: bytes) -> list[tuple[bytes, os.stat_result]]:
        slot = NEXT + b"/" + directory if directory else NEXT
        parent, name = self.batch.open_parent(slot)
        try:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return []
        if status.st_mode & _OWN != _OWN and status.st_uid in (os.geteuid(), 0):
            let_owner(parent, name, _OWN)
        return [(path[len(NEXT) + 1 :], found) for path, found in self.batch.stats(slot)]

    def _take(self, path: bytes, status: os.stat_result) -> None:
        link = self.links(path)
        is_recorded = link is not None and link.ino == status.st_ino
        is_known = is_recorded and not (link is not None and link.is_stand_in and status.st_size)
        there = self.live.stat_or_none(path)
        is_shared = there is not None and (there.st_ino, there.st_dev) == (status.st_ino, status.st_dev)
        if not (is_known or is_shared):
            self.pending.append((path, self._free_name(path), status))
            if len(self.pending) >= LATE_MAX:
                self._keep_late()
            return
        row = self.relinked.known(path, status) if is_shared else None
        parent, name = self.batch.open_parent(NEXT + b"/" + path)
        os.unlink(name, dir_fd=parent)
        failpoint(_UNLINKED)
        if row is not None and (after := self.live.stat_or_none(path)) is not None:
            self.relinked.note(row, after)

    def _free_name(self, path: bytes) -> bytes:
        """Where a late object goes in ``o``; an earlier attempt may have left one of another time there."""
        name = object_key(path) + LATE
        count = 1
        while self.batch.stat_or_none(b"o/" + name) is not None:
            count += 1
            name = object_key(path) + LATE + b"%d" % count
        return name

    def _keep_late(self) -> None:
        """Named in the index first, then moved: whatever lies in ``o`` is listed."""
        if not self.pending:
            return
        records = [
            ItemRecord(path, name, Why.DRIFT, 0, self.now_ms, status.st_size, b"", kind_of(status))
            for path, name, status in self.pending
        ]
        size = self.summary.size_bytes + sum(record.size_bytes for record in records)
        self.summary = summary_of(self.now_ms, size, self.summary.entries + len(records))
        append_records(INDEX, self.batch.fd, map(encode_record, (*records, self.summary)))
        failpoint(_NAMED)
        with closing_fd(self.batch.open_dir(b"o")) as objects:
            for path, name, _ in self.pending:
                parent, last = self.batch.open_parent(NEXT + b"/" + path)
                os.rename(last, name, src_dir_fd=parent, dst_dir_fd=objects)
                failpoint(_KEPT)
                self.late += 1
                if len(self.named) < NAMED_MAX:
                    self.named.append(path)
            os.fsync(objects)
        self.pending.clear()

    def _remove_directory(self, directory: bytes) -> None:
        self._keep_late()
        slot = NEXT + b"/" + directory if directory else NEXT
        parent, name = self.batch.open_parent(slot)
        os.rmdir(name, dir_fd=parent)
        self.batch.forget(slot)


def _links(batch: Root) -> Iterator[LinkedRecord]:
    """Of the next tree, in path order; an object that lost its record is kept as drift."""
    with contextlib.suppress(FileNotFoundError), closing_fd(batch.open(LINKED, READ)) as fd:
        yield from records_of(LinkedRecord, fd, named_damage(LINKED))


def _summary(batch: Root) -> ItemRecord:
    """The last summary of the batch's index."""
    found = summary_of(0, 0, 0)
    for record in stream_index(batch.fd, named_damage(INDEX)):
        if not record.path:
            found = record
    return found
