"""The archive as a source of contents: by digest and by path, over the batches that the caller chose."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

from instep.model.manifest.entry import Entry
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import opened
from instep.tree.root.place import Place

__all__ = ["ArchiveSource", "opened_batch"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class ArchiveSource:
    """Callable as a ``Source``. ``slots`` says which names in which batches may hold an entry's contents."""

    def __init__(self, place: Place, slots: Callable[[Entry], Iterator[tuple[bytes, bytes]]]) -> None:
        self._place = place
        self._slots = slots

    def __call__(self, entry: Entry) -> int | None:
        return next(self.candidates(entry), None) if int(entry.kind) == 0 else None

    def candidates(self, entry: Entry) -> Iterator[int]:
        """Every archived file that may hold the contents, newest first; the caller closes and verifies each."""
        for name, slot in self._slots(entry):
            fd = _open_in(self._place, name, slot, entry.size)
            if fd is not None:
                yield fd

    def readlink(self, entry: Entry) -> bytes | None:
        """The archived target of a symlink by path, unverified."""
        return next(self.targets(entry), None)

    def targets(self, entry: Entry) -> Iterator[bytes]:
        """Every archived target of a symlink at this path, newest first, unverified."""
        for name, slot in self._slots(entry):
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
