"""The archive as a source of contents: by digest and by path, over the batches that the caller chose."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from instep.model.entry import Entry
from instep.tree.beneath import Root
from instep.tree.control_folder import opened
from instep.tree.journal import ItemRecord
from instep.tree.place import Place

__all__ = ["ArchiveSource", "opened_batch"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ArchiveSource:
    """Callable as a ``Source``. Holds the top objects of its batches in memory."""

    def __init__(self, place: Place, batches: list[tuple[bytes, list[ItemRecord]]]) -> None:
        self._place = place
        self._batches: list[tuple[bytes, dict[bytes, bytes], dict[bytes, bytes]]] = []
        for name, records in batches:
            tops = [r for r in records if r.path and b"/" not in r.object]
            by_path = {r.path: r.object for r in tops}
            by_digest = {r.digest: r.object for r in tops if r.digest and r.kind == 0}
            self._batches.append((name, by_path, by_digest))

    def __call__(self, entry: Entry) -> int | None:
        return next(self.candidates(entry), None) if int(entry.kind) == 0 else None

    def candidates(self, entry: Entry) -> Iterator[int]:
        """Every archived file that may hold the contents, newest first; the caller closes and verifies each."""
        for name, by_path, by_digest in self._batches:
            for slot in self._slots(entry, by_path, by_digest):
                fd = _open_in(self._place, name, slot, entry.size)
                if fd is not None:
                    yield fd

    def _slots(
        self, entry: Entry, by_path: dict[bytes, bytes], by_digest: dict[bytes, bytes]
    ) -> Iterator[bytes]:
        found = by_digest.get(entry.digest)
        if found is not None:
            yield b"o/" + found
        at = entry.path
        while at:
            found = by_path.get(at)
            if found is not None:
                yield b"o/" + found + entry.path[len(at) :]
            at = at.rpartition(b"/")[0]

    def readlink(self, entry: Entry) -> bytes | None:
        """The archived target of a symlink by path, unverified."""
        return next(self.targets(entry), None)

    def targets(self, entry: Entry) -> Iterator[bytes]:
        """Every archived target of a symlink at this path, newest first, unverified."""
        for name, by_path, by_digest in self._batches:
            for slot in self._slots(entry, by_path, by_digest):
                try:
                    with opened_batch(self._place, name) as batch:
                        found = batch.readlink(slot)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP):
                        raise
                else:
                    yield found


@contextlib.contextmanager
def opened_batch(place: Place, name: bytes) -> Iterator[Root]:
    with opened(place) as there, Root(os.fsencode(there.archive) + b"/" + name) as batch:
        yield batch


def _open_in(place: Place, name: bytes, slot: bytes, size: int) -> int | None:
    try:
        with opened_batch(place, name) as batch:
            found = batch.stat(slot)
            if not stat.S_ISREG(found.st_mode) or found.st_size != size:
                return None
            return batch.open(slot, _READ)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            return None
        raise
