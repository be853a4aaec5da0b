"""From an address to an open database of the right kind."""

from __future__ import annotations

from instep.store.cluster.address import ClusterAddress, SqliteAddress
from instep.store.cluster.port import ClusterStore
from instep.store.cluster.sqlite import SqliteClusterStore


async def open_cluster_store(
    address: ClusterAddress, *, is_only_looked_at: bool = False, cluster: str | None = None
) -> ClusterStore:
    """Connect, check, and bring the tables to the newest form, unless the database ``is_only_looked_at``. An empty one
    is refused (``cluster_lost``) where the tables of a ``cluster`` were. The driver of PostgreSQL is imported when it
    is used."""
    if isinstance(address, SqliteAddress):
        sqlite = SqliteClusterStore(address.path)
        await sqlite.open(is_only_looked_at=is_only_looked_at, cluster=cluster)
        return sqlite
    from instep.store.cluster.postgres import PostgresClusterStore

    postgres = PostgresClusterStore(address)
    await postgres.open(is_only_looked_at=is_only_looked_at, cluster=cluster)
    return postgres
