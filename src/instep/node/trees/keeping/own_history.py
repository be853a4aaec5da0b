"""A writer's history, as far as a fileset has one: which contents it keeps, and which files it had when it was
looked at last, so that one that was removed since is noticed.

A history lists what is there, so a file that another program or a repair of the file system removed would only be
missed when its contents are needed. The roster lies in the node's state; with the state lost it begins anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import msgspec

from instep.model.definition import FilesetClass
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry, Kind
from instep.node.config.filesets import FilesetSettings
from instep.store.port import NodeStore
from instep.tree.archive.contents import Contents, Rows
from instep.tree.archive.history import History
from instep.tree.archive.history_pack import PACK_NAME
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


def contents_in(place: Place, rows: Rows, history: History | None = None) -> Contents:
    """Every content of a fileset on this node. ``history`` is the open one, where there is one; a node that wrote the
    line before has one as well."""
    if history is None and place.history.is_dir():
        history = History(place)
    return Contents(place, history, rows)


def keep_laid(place: Place, fileset: FilesetSettings, history: History, laid: Sequence[Entry]) -> None:
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


_decoder = msgspec.msgpack.Decoder(list[bytes])


class Removed(msgspec.Struct, frozen=True):
    """Files that are not there any more. Of a pack it is not known what it held."""

    packs: tuple[bytes, ...]
    large: frozenset[Digest]

    def may_have_held(self, digest: Digest) -> bool:
        return bool(self.packs) or digest in self.large


class HistoryRoster:
    """Of one fileset; in its worker thread."""

    def __init__(self, store: NodeStore, fileset: FilesetName) -> None:
        self._store = store
        self._key = f"history/{fileset}"

    def removed(self, history: History) -> Removed:
        """The files that the last roster names and that are gone. Files that the history itself let go of meanwhile are
        among them, when a crash kept the roster from being written."""
        raw = self._store.get(self._key)
        gone = frozenset(_decoder.decode(raw)) - history.files() if raw is not None else frozenset()
        packs = tuple(sorted(name for name in gone if PACK_NAME.fullmatch(name)))
        names = (name.rpartition(b"/")[2] for name in gone.difference(packs))
        return Removed(packs, frozenset(Digest(bytes.fromhex(name.decode())) for name in names))

    def record(self, history: History, lost: Iterable[Digest]) -> None:
        """From now on the files that are there are expected, and the contents that are still lost."""
        files = history.files().union(b"%.2s/%s" % (name, name) for name in (d.hex().encode() for d in lost))
        raw = msgspec.msgpack.encode(sorted(files))
        if raw != self._store.get(self._key):
            self._store.put(self._key, raw)
