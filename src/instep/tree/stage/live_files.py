"""The regular files of the live tree, as a stage reads from them."""

from __future__ import annotations

import errno

from instep.model.manifest.entry import Entry
from instep.model.paths import parent_of
from instep.tree.objects.large import digest_of_fd
from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import READ, Tolerated, closing_fd
from instep.tree.scan.subtree import kind_of


class LiveFiles:
    """One for each look of a stage. A directory that is missing is looked up once for all files below it, as all of a
    first copy are; one that comes meanwhile is no source, and its contents are fetched."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._missing: tuple[bytes, ...] = ()
        """The last directory that was not there, as the beginning of the paths below it."""

    def has(self, path: bytes, entry: Entry) -> bool:
        """Whether the file has the entry's contents, hashed now."""
        try:
            fd = self._root.open(path, READ)
        except OSError:
            return False
        with closing_fd(fd):
            return digest_of_fd(fd) == entry.digest

    def opened(self, path: bytes, size: int | None) -> int | None:
        """A descriptor to read the file, of this size if one is asked for; None when it is not there."""
        if path.startswith(self._missing):
            return None
        with Tolerated(*NOT_BENEATH, errno.EACCES):
            found = self._root.stat_or_none(path)
            if found is None:
                self._note_missing(parent_of(path))
            elif kind_of(found) == 0 and (size is None or found.st_size == size):
                return self._root.open(path, READ)
        return None

    def _note_missing(self, directory: bytes) -> None:
        if directory and self._root.stat_or_none(directory) is None:
            self._missing = (directory + b"/",)
