"""The numbered migrations of the cluster's database: one text for both databases, applied in one transaction."""

from __future__ import annotations

import functools
import importlib.resources
import secrets
from typing import Protocol

from instep.errors import RefusedError
from instep.store.cluster.port import Transaction

LONGEST_TTL_MS = 30_000
"""No right of a node lasts longer without a renewal, so this is how long a forgotten one can be in use."""


class SchemaTransaction(Transaction, Protocol):
    """A transaction that can also change the schema. Each database has its own way to do these things."""

    async def schema_version(self) -> int:
        """The form of the tables; 0 where there are none."""
        ...

    async def lock_schema(self) -> None:
        """Wait until no other node migrates; the lock ends with the transaction."""
        ...

    async def make_functions(self) -> None:
        """Make the two functions of SQL, where the database has to keep them."""
        ...

    async def script(self, sql: str) -> None:
        """Carry out several statements."""
        ...


@functools.cache
def migrations() -> tuple[tuple[int, str], ...]:
    """The numbered files, in order; their numbers have no gap."""
    folder = importlib.resources.files("instep.store.cluster") / "migrations"
    found = sorted(
        (int(file.name[:4]), file.read_text("utf-8"))
        for file in folder.iterdir()
        if file.name[:4].isdecimal()
    )
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return tuple(found)


def postgres_functions() -> str:
    """What PostgreSQL needs besides the tables."""
    folder = importlib.resources.files("instep.store.cluster") / "migrations"
    return (folder / "postgres_functions.sql").read_text("utf-8")


async def is_current(transaction: SchemaTransaction, shown: str) -> bool:
    """Whether the tables have the newest form. ``RefusedError`` ``cluster_newer`` when a newer instep made them."""
    newest = migrations()[-1][0]
    have = await transaction.schema_version()
    if have > newest:
        raise RefusedError(
            f"the cluster database {shown} has form {have}, this instep knows forms up to {newest}",
            code="cluster_newer",
            hint="a newer instep changed it: install that one here too",
            have=have,
            newest=newest,
        )
    return have == newest


def _empty(shown: str) -> RefusedError:
    return RefusedError(
        f"no node uses the cluster database {shown} yet",
        code="cluster_empty",
        hint="give the address that is in the cluster_file of the node that invited; or set it there first",
    )


def lost(shown: str, cluster: str, found: str) -> RefusedError:
    """The error for a database that was there: a new one in its place would forget all rights that are held."""
    return RefusedError(
        f"the cluster database {shown} {found}, and this node used the one of cluster {cluster[:8]} there",
        code="cluster_lost",
        hint="bring it back from a copy, or mount its file system; when it is lost for good, name a new database at "
        "another address in the cluster_file of each node",
        cluster=cluster,
        database=shown,
    )


async def migrate(
    transaction: SchemaTransaction, shown: str, *, is_only_looked_at: bool = False, cluster: str | None = None
) -> None:
    """Bring the tables to the newest form, one node at a time. Where the database ``is_only_looked_at`` nothing
    changes: then ``RefusedError`` ``cluster_empty`` when no node has made the tables. It is ``cluster_lost`` where the
    tables of this ``cluster`` must be there."""
    if await is_current(transaction, shown):
        return
    if cluster is not None and await transaction.schema_version() == 0:
        raise lost(shown, cluster, "is empty")
    if is_only_looked_at:
        if await transaction.schema_version() == 0:
            raise _empty(shown)
        return
    await transaction.lock_schema()
    if await is_current(transaction, shown):
        return  # another node was first
    have = await transaction.schema_version()
    await transaction.make_functions()
    for number, sql in migrations():
        if number > have:
            await transaction.script(sql)
    await transaction.change("UPDATE instep_schema SET version = $1", migrations()[-1][0])
    if have == 0:
        await transaction.change(
            "INSERT INTO instep_era VALUES (1, $1, instep_server(), 1, 0, $2)",
            secrets.token_hex(16),
            LONGEST_TTL_MS,
        )
