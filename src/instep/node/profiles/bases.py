"""The bases of a profile in the state of the home that carries its runs out."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from instep.core.sync.bases import with_base
from instep.model.ids import Digest
from instep.model.sync import BASES_KEPT, SentChanges, SyncBase, SyncMark
from instep.node.config.sync import SyncSettings
from instep.store.port import NodeStore

_KEY = "sync/bases/"
_PAIRS = "sync/pairs/"
"""The pairs of sides, left and right, of which bases are kept here, by profile."""
_SENT = "sync/sent/"
Pair = tuple[str, str]


class SyncBases:
    """Of one profile, by its two sides. A new base ends the bases of its former sides: they are older."""

    def __init__(self, store: NodeStore, profile: SyncSettings) -> None:
        self._store = store
        self._name = profile.name
        self.pair: Pair = (str(profile.left), str(profile.right))

    def kept(self) -> tuple[SyncBase, ...]:
        """The newest last."""
        return self.of(self.pair)

    def of(self, pair: Pair) -> tuple[SyncBase, ...]:
        return _bases_of(self._store, self._name, pair)

    def pairs(self) -> tuple[Pair, ...]:
        """All sides of the profile of which bases are kept here, the own ones among them."""
        return tuple(dict.fromkeys((*pairs_of(self._store, self._name), self.pair)))

    def keep(self, base: SyncBase) -> None:
        """Durable when this returns."""
        self.put(self.pair, with_base(self.kept(), base))
        for former in self.pairs():
            if former != self.pair:
                self._store.delete(_key(self._name, former))
        self._store.put(_PAIRS + self._name, msgspec.msgpack.encode((self.pair,)))
        self.record(None)

    def record(self, sent: SentChanges | None) -> None:
        """Keep the changes that a run is about to send, in place of the record before. Durable when this returns."""
        key = _SENT + self._name
        if sent is not None:
            self._store.put(key, msgspec.msgpack.encode(sent))
        elif self._store.get(key) is not None:
            self._store.delete(key)

    def recorded(self) -> SentChanges | None:
        """The changes of a run that ended without a base."""
        raw = self._store.get(_SENT + self._name)
        return msgspec.msgpack.decode(raw, type=SentChanges) if raw is not None else None

    def take(self, pair: Pair, base: SyncBase) -> None:
        """Keep a base of former sides, which the home of then made; its pages are here."""
        self.put(pair, (base,))

    def put(self, pair: Pair, bases: Sequence[SyncBase]) -> None:
        pairs = dict.fromkeys((*self.pairs(), pair))
        self._store.put(_PAIRS + self._name, msgspec.msgpack.encode(list(pairs)[-BASES_KEPT:]))
        self._store.put(_key(self._name, pair), msgspec.msgpack.encode(tuple(bases)))

    def page_roots(self) -> list[Digest]:
        """The roots whose pages are kept: those that bases name, and of both sides as the last run left them."""
        roots: list[Digest] = []
        for pair in self.pairs():
            kept = self.of(pair)
            roots += [root for base in kept for root in base.roots]
            roots += [head.root for base in kept[-1:] for head in (base.left, base.right)]
        sent = self.recorded()
        return [*roots, *(sent.roots if sent is not None else ())]


def pairs_of(store: NodeStore, name: str) -> tuple[Pair, ...]:
    raw = store.get(_PAIRS + name)
    return msgspec.msgpack.decode(raw, type=tuple[Pair, ...]) if raw is not None else ()


def base_with(store: NodeStore, name: str, mark: SyncMark | None) -> SyncBase | None:
    """The base of a profile with this mark that is kept here, of whatever sides; with no mark the newest one."""
    kept = [base for pair in pairs_of(store, name) for base in _bases_of(store, name, pair)]
    found = [base for base in kept if mark is None or base.mark == mark]
    return max(found, key=lambda each: each.run, default=None)


def _key(name: str, pair: Pair) -> str:
    return f"{_KEY}{name}/{pair[0]}/{pair[1]}"


def _bases_of(store: NodeStore, name: str, pair: Pair) -> tuple[SyncBase, ...]:
    raw = store.get(_key(name, pair))
    return msgspec.msgpack.decode(raw, type=tuple[SyncBase, ...]) if raw is not None else ()
