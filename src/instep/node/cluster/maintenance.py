"""Maintenance: this node, or the whole cluster, starts nothing new, and balancers send it no users.

The node's own is a drain in its state, so it outlives the daemon. The cluster's is a row in the database, which each
node follows; a node that cannot reach the database stays as it was.
"""

from __future__ import annotations

import msgspec

from instep.node.runtime.draining import Draining
from instep.store.cluster import agreements
from instep.store.cluster.agreements import Agreed
from instep.store.cluster.port import Transaction

OWN, CLUSTER = "maintenance", "maintenance:cluster"
"""Keys of the drains."""
SUBJECT = "maintenance"


class ClusterMaintenance(msgspec.Struct, frozen=True):
    """What the row says."""

    is_on: bool
    reason: str = ""


class Maintenance:
    """One per node, on its drains."""

    def __init__(self, draining: Draining) -> None:
        self._draining = draining

    @property
    def is_on(self) -> bool:
        return self._draining.get(OWN) is not None or self._draining.get(CLUSTER) is not None

    @property
    def is_cluster_on(self) -> bool:
        return self._draining.get(CLUSTER) is not None

    @property
    def ending(self) -> str:
        """The command that ends it."""
        return "instep maintenance off --cluster" if self.is_cluster_on else "instep maintenance off"

    def begin(self, reason: str) -> bool:
        """Whether that changed anything."""
        return self._draining.begin(OWN, _reason("maintenance", reason))

    def end(self) -> bool:
        return self._draining.end(OWN)

    async def set_cluster(self, transaction: Transaction, node: str, *, is_on: bool, reason: str) -> bool:
        """Record it for all nodes; whether that changed anything."""
        before = await cluster_maintenance(transaction)
        wanted = ClusterMaintenance(is_on, reason if is_on else "")
        await agreements.agree(transaction, SUBJECT, node, msgspec.json.encode(wanted).decode())
        await transaction.announce("maintenance")
        return before != wanted

    def follow(self, wanted: ClusterMaintenance) -> bool:
        """Do here what the row says; whether that changed anything."""
        if wanted.is_on:
            return self._draining.begin(CLUSTER, _reason("maintenance of the cluster", wanted.reason))
        return self._draining.end(CLUSTER)


async def cluster_maintenance(transaction: Transaction) -> ClusterMaintenance:
    found: Agreed | None = await agreements.agreed(transaction, SUBJECT)
    if found is None:
        return ClusterMaintenance(False)
    return msgspec.json.decode(found.value, type=ClusterMaintenance)


def _reason(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what
