"""The bases of a profile in the state of the home that carries its runs out."""

from __future__ import annotations

import msgspec

from instep.core.sync.bases import with_base
from instep.model.sync import SyncBase
from instep.node.config.sync import SyncSettings
from instep.store.port import NodeStore

_KEY = "sync/bases/"


class SyncBases:
    """Of one profile with these two sides: with other sides it begins anew."""

    def __init__(self, store: NodeStore, profile: SyncSettings) -> None:
        self._store = store
        self._key = f"{_KEY}{profile.name}/{profile.left}/{profile.right}"

    def kept(self) -> tuple[SyncBase, ...]:
        """The newest last."""
        raw = self._store.get(self._key)
        return msgspec.msgpack.decode(raw, type=tuple[SyncBase, ...]) if raw is not None else ()

    def keep(self, base: SyncBase) -> None:
        """Durable when this returns."""
        self._store.put(self._key, msgspec.msgpack.encode(with_base(self.kept(), base)))
