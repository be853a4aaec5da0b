"""Displaced files that the same switch laid under another name: the archive names them and keeps no second copy.

Else a rename of 30,000 files would put 30,000 copies of live files into the archive. The displaced object goes when the
generation is recorded: until then a put-back finds it. It goes only where the live file is the one that was laid and
the displaced object still has its contents; else it stays like any other.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.tree.journal.journal import ItemRecord, Journal, Op, RowRecord, Step, records_of
from instep.tree.journal.plan import HINTS_MAX
from instep.tree.objects.large import digest_of_fd
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.records import named_damage

_DROPPING = register("archive.dropping")


def laid_files(folder: Root, journal: Journal) -> dict[Digest, tuple[bytes, int]]:
    """Path and inode of the files that the switch laid, by digest; ``folder`` is its stage or batch. Empty when
    there are more than a put-back would find by digest in the tree."""
    laid: dict[Digest, tuple[bytes, int]] = {}
    for step in journal.steps():
        if step.op in (Op.NEW, Op.CHANGE) and step.new is not None and step.new.kind is Kind.FILE:
            laid[step.new.digest] = step.path, step.ino
    with contextlib.suppress(FileNotFoundError), closing_fd(folder.open(b"rows", READ)) as fd:
        for row in records_of(RowRecord, fd, named_damage(b"rows of " + folder.path)):
            laid[Digest(row.digest)] = row.path, row.ino
    return laid if len(laid) <= HINTS_MAX else {}


def may_be_moved(step: Step, laid: Iterable[Digest]) -> bool:
    """True when the switch laid the displaced file of this step under another name. Attributes are kept by a copy."""
    old, new = step.old, step.new
    if old is None or old.kind is not Kind.FILE or old.size == 0 or old.digest not in laid:
        return False
    return (new is None or new.digest != old.digest) and _has_no_attributes(old)


def _has_no_attributes(entry: Entry) -> bool:
    return entry.extra is None or not (entry.extra.xattrs or entry.extra.large_xattrs)


def drop_moved(live: Root, batch: Root, items: Iterable[ItemRecord], journal: Journal) -> None:
    """Remove the objects of moved ``items`` whose contents the ``live`` tree has."""
    laid = laid_files(batch, journal)
    for item in items:
        if item.digest in laid and _is_second(batch, item, live, *laid[Digest(item.digest)]):
            failpoint(_DROPPING)
            objects, name = batch.open_parent(b"o/" + item.object)
            os.unlink(name, dir_fd=objects)


def _is_second(batch: Root, item: ItemRecord, live: Root, path: bytes, ino: int) -> bool:
    """Whether the archived object is the live file once more, in contents and metadata."""
    slot = b"o/" + item.object
    found, there = batch.stat_or_none(slot), live.stat_or_none(path)
    if found is None or there is None or there.st_ino != ino or not stat.S_ISREG(found.st_mode):
        return False
    if _shape(found) != _shape(there):
        return False
    return all(
        _has(root, name, item, inode)
        for root, name, inode in ((batch, slot, found.st_ino), (live, path, ino))
    )


def _has(root: Root, name: bytes, item: ItemRecord, ino: int) -> bool:
    """Whether the object of that inode has the contents: a time can be set, and a disk may change bytes."""
    with closing_fd(root.open(name, READ)) as fd:
        return os.fstat(fd).st_ino == ino and digest_of_fd(fd) == item.digest


def _shape(found: os.stat_result) -> tuple[int, int, int, int, int]:
    return found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns
