"""The nodes that use the cluster's database: each name belongs to one node directory on one machine at a time."""

from __future__ import annotations

from typing import NamedTuple

from instep.errors import NotAllowedError
from instep.store.cluster.port import Transaction

SILENT_MS = 30_000
"""A node that was not seen for so long has stopped, and its name may have moved to another machine."""


class DatabaseMember(NamedTuple):
    """A node as it was last seen. ``identity`` names the machine and the node directory, ``session`` the start of its
    daemon."""

    name: str
    identity: str
    session: str
    version: str
    seen_at_ms: int


async def be_seen(transaction: Transaction, name: str, identity: str, session: str, version: str) -> None:
    """Record that this node runs. ``NotAllowedError`` ``identity_in_use`` when another one of its name does: its
    directory was copied."""
    row = await transaction.row(
        "INSERT INTO instep_member VALUES ($1, $2, $3, $4, instep_now_ms()) ON CONFLICT (name) DO UPDATE SET"
        " identity = excluded.identity, session = excluded.session, version = excluded.version,"
        " seen_at_ms = excluded.seen_at_ms WHERE instep_member.identity = excluded.identity"
        " OR instep_member.seen_at_ms <= instep_now_ms() - CAST($5 AS bigint) RETURNING name",
        name, identity, session, version, SILENT_MS,
    )  # fmt: skip
    if row is None:
        raise NotAllowedError(
            f"another node named {name} uses the cluster database: one of two copies of a node directory",
            code="identity_in_use",
            hint=f"stop one of the two, and make its node anew: instep join TOKEN; "
            f"where {name} was moved, this node takes the name {SILENT_MS // 1000} s after the other one stopped",
            node=name,
        ).later()


async def members(transaction: Transaction) -> list[DatabaseMember]:
    """All nodes that were ever seen, by name."""
    rows = await transaction.rows(
        "SELECT name, identity, session, version, seen_at_ms FROM instep_member ORDER BY name"
    )
    return [DatabaseMember(*row) for row in rows]
