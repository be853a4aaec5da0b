"""What a node remembers of the cluster's database: which cluster it is, and the eras that were seen there."""

from __future__ import annotations

import msgspec

from instep.errors import DamagedError
from instep.store.cluster.eras import Era, KnownEra, remembered
from instep.store.port import NodeStore

KEY = "cluster-database"
_KNOWN_MAX = 8


class SeenCluster(msgspec.Struct, frozen=True):
    """One cluster and its eras, newest last."""

    cluster: str
    eras: tuple[KnownEra, ...] = ()


class ClusterMemory(msgspec.Struct, frozen=True):
    """``shown`` is the database that was used last. The eras of other clusters stay known: an address may come back."""

    shown: str = ""
    cluster: str = ""
    seen: tuple[SeenCluster, ...] = ()

    def expected(self, shown: str) -> str | None:
        """The cluster that must be found at this address; None at an address that the operator has changed."""
        return self.cluster or None if shown == self.shown else None

    def known(self, cluster: str | None = None) -> tuple[KnownEra, ...]:
        """The eras that were seen of a cluster."""
        wanted = cluster or self.cluster
        return next((one.eras for one in self.seen if one.cluster == wanted), ())

    def with_era(self, shown: str, era: Era) -> ClusterMemory:
        """The same, after a transaction in this era at this address."""
        eras = remembered(self.known(era.cluster), era)
        others = tuple(one for one in self.seen if one.cluster != era.cluster)
        return ClusterMemory(shown, era.cluster, (*others, SeenCluster(era.cluster, eras))[-_KNOWN_MAX:])


def load_memory(store: NodeStore) -> ClusterMemory:
    raw = store.get(KEY)
    if raw is None:
        return ClusterMemory()
    try:
        return msgspec.msgpack.decode(raw, type=ClusterMemory)
    except msgspec.MsgspecError as error:
        raise DamagedError(
            f"what this node remembers of the cluster's database cannot be read: {error}",
            code="state_damaged",
        ) from error


def save_memory(store: NodeStore, memory: ClusterMemory) -> None:
    store.put(KEY, msgspec.msgpack.encode(memory))
