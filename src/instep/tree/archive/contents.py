"""Where the contents of one fileset lie on this node: its tree, its history, its archive. By digest, each verified.

Every candidate is hashed before it is given away, and one that holds other bytes does not hide the next. So a batch
of the archive in which the same path has an older version costs a read, never an answer.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from instep.errors import InstepError
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.statrow import StatRow
from instep.tree.archive.lookup import ArchiveLookup
from instep.tree.archive.source import ArchiveSource
from instep.tree.objects.digest import digest_bytes
from instep.tree.objects.large import digest_of_fd
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import READ, Tolerated, closing_fd
from instep.tree.root.place import Place

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.EACCES, errno.ENXIO, errno.EINVAL)

Rows = Callable[[], Iterator[StatRow]]
"""The stat rows of the fileset: which file of the tree held which digest when it was read last."""


class HasContents(Protocol):
    """A history of contents."""

    def has(self, digest: Digest) -> bool: ...

    def open(self, digest: Digest) -> int | None: ...

    def forget_rotten(self, digest: Digest) -> None: ...


class Contents:
    """One fileset's contents on this node. Made for one job: it keeps the places that it found. One thread at a time.
    Also a ``Source`` for ``Stage``."""

    def __init__(self, place: Place, history: HasContents | None, rows: Rows) -> None:
        self.place = place
        self._history = history
        self._rows = rows
        self._in_tree: dict[Digest, bytes] = {}
        self._announced: set[Digest] = set()
        self._looked_for: set[Digest] = set()
        self._last: tuple[Digest, int] | None = None

    def __call__(self, entry: Entry) -> int | None:
        return self.open(entry) if entry.kind is Kind.FILE else None

    def open(self, entry: Entry) -> int | None:
        """A descriptor (owned by the caller) of a file with exactly the contents of ``entry``; None when this node has
        none."""
        for fd, is_kept in self._candidates(entry):
            is_sized = os.fstat(fd).st_size == entry.size
            found = readable_digest(fd) if is_sized or is_kept else None
            if is_sized and found == entry.digest:
                os.lseek(fd, 0, os.SEEK_SET)
                return fd
            os.close(fd)
            if is_kept and found != entry.digest and self._history is not None:
                self._history.forget_rotten(entry.digest)  # so that it is named, and mended from elsewhere
        return None

    def read(self, entry: Entry, offset: int, length: int) -> bytes | None:
        """Part of the contents of a file, or of the target of a symlink; verified as a whole."""
        if entry.kind is Kind.SYMLINK:
            target = self.target(entry)
            return None if target is None else target[offset : offset + length]
        if self._last is None or self._last[0] != entry.digest:
            fd = self.open(entry)
            if fd is None:
                return None
            self.close()
            self._last = entry.digest, fd
        return os.pread(self._last[1], length, offset)

    def close(self) -> None:
        """Let go of the file that was read from last."""
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def target(self, entry: Entry) -> bytes | None:
        """The target of a symlink."""
        for found in self._targets(entry):
            if digest_bytes(found) == entry.digest:
                return found
        return None

    def has(self, entry: Entry) -> bool:
        """Whether ``open`` or ``target`` would find it."""
        if entry.kind is Kind.SYMLINK:
            return self.target(entry) is not None
        fd = self.open(entry)
        if fd is None:
            return False
        os.close(fd)
        return True

    def missing_of(self, entries: Sequence[Entry]) -> list[Entry]:
        """The ones of ``entries`` whose contents are not on this node."""
        self.expect(entries)
        return [entry for entry in entries if not self.has(entry)]

    def expect(self, entries: Iterable[Entry]) -> None:
        """Announce entries: one pass finds which files of the tree held their digests, wherever they lie, as soon as
        one of them is in no history. An entry that was not announced is looked for at its own path only, and in history
        and archive."""
        self._announced |= {e.digest for e in entries if e.kind is Kind.FILE} - self._looked_for

    def _elsewhere(self, digest: Digest) -> bytes | None:
        """Where in the tree a file held the announced digest."""
        if digest in self._announced:
            for row in self._rows():
                found = Digest(row.digest)
                if found in self._announced and found not in self._in_tree:
                    self._in_tree[found] = row.path
            self._looked_for |= self._announced
            self._announced = set()
        return self._in_tree.get(digest)

    def _candidates(self, entry: Entry) -> Iterator[tuple[int, bool]]:
        """Descriptors, and whether each comes from the history."""
        if entry.size == 0:
            yield os.memfd_create("instep-empty", os.MFD_CLOEXEC), False
        if self._history is not None:
            fd = self._of_history(entry.digest)
            if fd is not None:
                yield fd, True
        elsewhere = self._elsewhere(entry.digest)
        for path in dict.fromkeys((entry.path, *(() if elsewhere is None else (elsewhere,)))):
            fd = self._of_tree(path, entry.size)
            if fd is not None:
                yield fd, False
        yield from ((fd, False) for fd in self._archive.candidates(entry))

    def _of_history(self, digest: Digest) -> int | None:
        assert self._history is not None
        try:
            return self._history.open(digest)
        except InstepError:
            return None  # the disk changed it: another copy is as good

    def _of_tree(self, path: bytes, size: int) -> int | None:
        with Tolerated(*_ABSENT), Root(self.place.root) as root:
            found = root.stat(path)
            if stat.S_ISREG(found.st_mode) and found.st_size == size:
                return root.open(path, READ)
        return None

    def _targets(self, entry: Entry) -> Iterator[bytes]:
        with Tolerated(*_ABSENT), Root(self.place.root) as root:
            yield root.readlink(entry.path)
        if self._history is not None:
            fd = self._of_history(entry.digest)
            if fd is not None:
                with closing_fd(fd):
                    yield os.pread(fd, entry.size + 1, 0)
        yield from self._archive.targets(entry)

    @functools.cached_property
    def _archive(self) -> ArchiveSource:
        return ArchiveLookup(self.place).source()


def readable_digest(fd: int) -> Digest | None:
    """The digest of an open file; None where the disk cannot read it any more."""
    with Tolerated(errno.EIO):
        return digest_of_fd(fd)
    return None
