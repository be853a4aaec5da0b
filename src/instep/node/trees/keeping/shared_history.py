"""A history that several threads may ask: the tree's worker writes it, peers' requests read it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from instep.model.definition import FilesetClass
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.node.config.filesets import FilesetSettings
from instep.tree.archive.contents import Contents, Rows
from instep.tree.archive.history import History
from instep.tree.archive.history_pack import HistoryDamage
from instep.tree.objects.digest import digest_bytes
from instep.tree.root.beneath import Root
from instep.tree.root.place import Place

HISTORY_FILE_MAX = 4 << 20


def history_keeps(fileset: FilesetSettings, size: int) -> bool:
    """Whether the writer keeps contents of this size of its own (design, section 5 "History")."""
    if fileset.history == "off" or fileset.definition is None:
        return False
    if fileset.history == "on":
        return True
    return fileset.definition.fileset_class is FilesetClass.METADATA and size <= HISTORY_FILE_MAX


def contents_in(place: Place, rows: Rows, history: SharedHistory | None = None) -> tuple[Contents, Path]:
    """Every content of a fileset on this node, and the archive that it was indexed from. ``history`` is the open one,
    where there is one; a node that wrote the line before has one as well."""
    if history is None and place.history.is_dir():
        history = SharedHistory(place)
    return Contents(place, history, rows), place.archive


class SharedHistory:
    """One lock around a ``History``; also a source of contents for staging."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._history = History(place)
        self._lock = threading.Lock()

    def put(self, digest: Digest, data: bytes, *, is_hashed: bool = False) -> None:
        with self._lock:
            self._history.put(digest, data, is_hashed=is_hashed)

    def put_file(self, digest: Digest, fd: int, size_bytes: int) -> None:
        with self._lock:
            self._history.put_file(digest, fd, size_bytes)

    def sync(self) -> None:
        with self._lock:
            self._history.sync()

    def has(self, digest: Digest) -> bool:
        with self._lock:
            return self._history.has(digest)

    def get(self, digest: Digest) -> bytes | None:
        with self._lock:
            return self._history.get(digest)

    def open(self, digest: Digest) -> int | None:
        with self._lock:
            return self._history.open(digest)

    def forget_rotten(self, digest: Digest) -> None:
        """A reader found other bytes: the content can be put anew."""
        with self._lock, contextlib.suppress(FileNotFoundError):  # it was collected meanwhile
            self._history.forget_rotten(digest)

    def collect(self, is_live: Callable[[Digest], bool]) -> int:
        with self._lock:
            return self._history.collect(is_live)

    def damage(self) -> list[HistoryDamage]:
        """The damage by the disk, or by a program that removed files, that is not mended yet."""
        with self._lock:
            self._history.look_at_packs()
            return list(self._history.damage)

    def files(self) -> frozenset[bytes]:
        """The names of its files."""
        with self._lock:
            return self._history.files()

    def kept_aside(self) -> list[str]:
        """Files of the history that were damaged or torn."""
        with self._lock:
            return self._history.kept_aside()

    def drop(self, digest: Digest, keeps: Callable[[int], bool]) -> None:
        with self._lock:
            self._history.drop(digest, keeps)

    def close(self) -> None:
        with self._lock:
            self._history.close()

    def __call__(self, entry: Entry) -> int | None:
        """As a source for ``Stage``."""
        return self.open(entry.digest) if entry.kind is Kind.FILE else None


def keep_laid(place: Place, fileset: FilesetSettings, history: SharedHistory, laid: Sequence[Entry]) -> None:
    """The history keeps what a restore laid: the scan that follows does not read it again."""
    with Root(place.root) as root:
        for entry in laid:
            if not history_keeps(fileset, entry.size) or history.has(entry.digest):
                continue
            try:
                data = _read(root, entry)
            except OSError:
                continue  # it left its name already: that is the next scan's to find
            if digest_bytes(data) == entry.digest:
                history.put(entry.digest, data, is_hashed=True)


def _read(root: Root, entry: Entry) -> bytes:
    if entry.kind is Kind.SYMLINK:
        return root.readlink(entry.path)
    fd = root.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.pread(fd, entry.size + 1, 0)
    finally:
        os.close(fd)
