"""The archive as a source of contents: by digest and by path, over the batches that the caller chose."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator

from instep.model.manifest.entry import Entry
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import opened
from instep.tree.root.descriptors import READ, Tolerated
from instep.tree.root.place import Place

_NO_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES)
_NO_LINK = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP)


class KeptBatch:
    """The batch that was looked into last, kept open: the entries of one apply often lie in the same one.

    It is kept for the thread that asked first; other threads open theirs each time."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._held: list[tuple[bytes, Root]] = []
        self._thread = 0
        weakref.finalize(self, _close, self._held)

    @contextlib.contextmanager
    def opened(self, name: bytes) -> Iterator[Root]:
        """The batch of this name. ``FileNotFoundError`` when it is gone."""
        self._thread = self._thread or threading.get_ident()
        if threading.get_ident() != self._thread:
            with opened_batch(self._place, name) as batch:
                yield batch
            return
        if not self._held or self._held[0][0] != name:
            with opened(self._place) as there:
                found = Root(os.fsencode(there.archive) + b"/" + name)
            _close(self._held)
            self._held.append((name, found))
        yield self._held[0][1]


def _close(held: list[tuple[bytes, Root]]) -> None:
    for _, batch in held:
        batch.close()
    held.clear()


Slots = Callable[[Entry, KeptBatch], Iterator[tuple[bytes, bytes]]]
"""Which names in which batches may hold an entry's contents."""


class ArchiveSource:
    """Callable as a ``Source``."""

    def __init__(self, place: Place, slots: Slots) -> None:
        self._batches = KeptBatch(place)
        self._slots = slots

    def __call__(self, entry: Entry) -> int | None:
        return next(self.candidates(entry), None) if int(entry.kind) == 0 else None

    def candidates(self, entry: Entry) -> Iterator[int]:
        """Every archived file that may hold the contents, newest first; the caller closes and verifies each."""
        for name, slot in self._slots(entry, self._batches):
            fd = _open_in(self._batches, name, slot, entry.size)
            if fd is not None:
                yield fd

    def readlink(self, entry: Entry) -> bytes | None:
        """The archived target of a symlink by path, unverified."""
        return next(self.targets(entry), None)

    def targets(self, entry: Entry) -> Iterator[bytes]:
        """Every archived target of a symlink at this path, newest first, unverified."""
        for name, slot in self._slots(entry, self._batches):
            found = None
            with Tolerated(*_NO_LINK), self._batches.opened(name) as batch:
                found = batch.readlink(slot)
            if found is not None:
                yield found


@contextlib.contextmanager
def opened_batch(place: Place, name: bytes) -> Iterator[Root]:
    with opened(place) as there, Root(os.fsencode(there.archive) + b"/" + name) as batch:
        yield batch


def _open_in(batches: KeptBatch, name: bytes, slot: bytes, size: int) -> int | None:
    with Tolerated(*_NO_FILE), batches.opened(name) as batch:
        found = batch.stat(slot)
        if stat.S_ISREG(found.st_mode) and found.st_size == size:
            return batch.open(slot, READ)
    return None
