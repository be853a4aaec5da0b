"""Objects that an undone switch could not return to their places: they become a batch of the archive of their own
(P5)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator

from instep.tree.archive.index import write_index
from instep.tree.journal.journal import ItemRecord, Journal, Op, Step, Why
from instep.tree.objects.laying import sync_directory
from instep.tree.root.beneath import Root
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.scan.subtree import kind_of, walk_below

_MOVED = register("undo.left_moved")

LEFT = b".left"
"""After the key: the object that came out of a slot to which its own object must go back."""
FOLDER = b"left"
"""In the stage: the batch under construction."""


def archive_left(place: Place, journal: Journal, stage: bytes, slots: Iterable[bytes], *, at_ms: int) -> None:
    """Move these objects of the stage, and all whose slot ends with ``LEFT``, to the archive, durably. ``OSError``."""
    objects = stage + b"/o"
    chosen = {*slots, *(name for name in os.listdir(objects) if name.endswith(LEFT))}
    folder = stage + b"/" + FOLDER
    if not chosen and not os.path.lexists(folder):
        return
    os.makedirs(folder + b"/o", 0o700, exist_ok=True)
    for slot in sorted(chosen):
        os.rename(objects + b"/" + slot, folder + b"/o/" + slot)
        failpoint(_MOVED)
    with Root(folder) as batch:
        write_index(batch.fd, _items(batch, journal, at_ms), at_ms)
    for each in (folder + b"/o", folder):
        sync_directory(each)
    archive = os.fsencode(place.archive)
    os.makedirs(archive, 0o700, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        os.rename(folder, archive + b"/" + journal.header.batch.encode())
    for each in (archive, stage, os.path.dirname(archive)):
        sync_directory(each)


def _items(batch: Root, journal: Journal, at_ms: int) -> Iterator[ItemRecord]:
    names = batch.names(b"o")
    if not names:
        return
    by_key: dict[bytes, list[bytes]] = {}
    for name in names:
        by_key.setdefault(name.partition(b".")[0], []).append(name)
    previous = journal.header.previous
    for step in journal.steps():
        for name in by_key.pop(step.key, ()):
            found = batch.stat(b"o/" + name)
            inner = [f.stat for f in walk_below(batch, b"o/" + name)] if kind_of(found) == 1 else []
            size = sum(s.st_size for s in inner if kind_of(s) == 0) if inner else found.st_size
            why = _why(journal, step, name, found.st_ino)
            is_known = step.old is not None and why is not Why.DRIFT and step.old.size == found.st_size
            digest = step.old.digest if is_known and step.old is not None else b""
            number = previous.number if previous is not None else 0
            what = size, digest, kind_of(found), 1 + len(inner)
            yield ItemRecord(step.path, name, why, number, at_ms, *what)


def _why(journal: Journal, step: Step, name: bytes, ino: int) -> Why:
    if name.endswith(LEFT) or (step.old_ino and ino != step.old_ino):
        return Why.DRIFT
    if journal.header.why is not None:
        return journal.header.why
    return Why.REMOVED if step.op is Op.REMOVE else Why.REPLACED
