"""Which files a writer's history had when it was looked at last, so that one that was removed since is noticed.

A history lists what is there, so a file that another program or a repair of the file system removed would only be
missed when its contents are needed. The roster lies in the node's state; with the state lost it begins anew.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from instep.model.ids import Digest, FilesetName
from instep.node.trees.keeping.shared_history import SharedHistory
from instep.store.port import NodeStore
from instep.tree.archive.history_pack import PACK_NAME

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

    def removed(self, history: SharedHistory) -> Removed:
        """The files that the last roster names and that are gone. Files that the history itself let go of meanwhile are
        among them, when a crash kept the roster from being written."""
        raw = self._store.get(self._key)
        gone = frozenset(_decoder.decode(raw)) - history.files() if raw is not None else frozenset()
        packs = tuple(sorted(name for name in gone if PACK_NAME.fullmatch(name)))
        names = (name.rpartition(b"/")[2] for name in gone.difference(packs))
        return Removed(packs, frozenset(Digest(bytes.fromhex(name.decode())) for name in names))

    def record(self, history: SharedHistory, lost: Iterable[Digest]) -> None:
        """From now on the files that are there are expected, and the contents that are still lost."""
        files = history.files().union(b"%.2s/%s" % (name, name) for name in (d.hex().encode() for d in lost))
        raw = msgspec.msgpack.encode(sorted(files))
        if raw != self._store.get(self._key):
            self._store.put(self._key, raw)
