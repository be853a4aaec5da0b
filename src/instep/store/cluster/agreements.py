"""The settings of jobs and pools that count for the whole cluster: of all nodes' values the one that was changed last.

Each node declares its own value when it begins and when its file changes. A node that only begins again changes
nothing, so an old file on one node does not undo what an operator changed on another.
"""

from __future__ import annotations

from typing import NamedTuple

from instep.store.cluster.port import Transaction


class Agreed(NamedTuple):
    """The value that counts, the node that changed it, and since when."""

    value: str
    node: str
    since_ms: int


async def declare(transaction: Transaction, subject: str, node: str, value: str) -> Agreed:
    """Record what a node's settings say; the value that counts afterwards."""
    if await is_declared(transaction, subject, node, value):
        found = await agreed(transaction, subject)
        if found is not None:
            return found
    await transaction.change(
        "INSERT INTO instep_declared VALUES ($1, $2, $3)"
        " ON CONFLICT (subject, node) DO UPDATE SET value = excluded.value",
        subject, node, value,
    )  # fmt: skip
    await agree(transaction, subject, node, value)
    found = await agreed(transaction, subject)
    assert found is not None
    return found


async def is_declared(transaction: Transaction, subject: str, node: str, value: str) -> bool:
    """Whether the node has declared this value before."""
    row = await transaction.row(
        "SELECT value FROM instep_declared WHERE subject = $1 AND node = $2", subject, node
    )
    return row == (value,)


async def agree(transaction: Transaction, subject: str, node: str, value: str) -> None:
    """Make a value the one that counts. ``since_ms`` stays where it was that one already."""
    await transaction.change(
        "INSERT INTO instep_agreed VALUES ($1, $2, $3, instep_now_ms()) ON CONFLICT (subject) DO UPDATE SET"
        " node = excluded.node, since_ms = excluded.since_ms, value = excluded.value"
        " WHERE instep_agreed.value <> excluded.value",
        subject, value, node,
    )  # fmt: skip


async def withdraw(transaction: Transaction, subject: str, node: str) -> None:
    """The node's settings do not name it any more; without any node that does, nothing counts."""
    await transaction.change("DELETE FROM instep_declared WHERE subject = $1 AND node = $2", subject, node)
    await transaction.change(
        "DELETE FROM instep_agreed WHERE subject = $1"
        " AND NOT EXISTS (SELECT 1 FROM instep_declared WHERE instep_declared.subject = $1)",
        subject,
    )


async def agreed(transaction: Transaction, subject: str) -> Agreed | None:
    row = await transaction.row("SELECT value, node, since_ms FROM instep_agreed WHERE subject = $1", subject)
    return None if row is None else Agreed(*row)


async def locked(transaction: Transaction, subject: str) -> Agreed | None:
    """The value that counts; until the transaction ends no other one may change it or lock it."""
    row = await transaction.row(
        "UPDATE instep_agreed SET subject = subject WHERE subject = $1 RETURNING value, node, since_ms",
        subject,
    )
    return None if row is None else Agreed(*row)


async def subjects_of(transaction: Transaction, node: str) -> list[str]:
    """All that a node has declared."""
    rows = await transaction.rows(
        "SELECT subject FROM instep_declared WHERE node = $1 ORDER BY subject", node
    )
    return [subject for (subject,) in rows]


async def declared(transaction: Transaction, prefix: str) -> list[tuple[str, str, str]]:
    """Subject, node and value of every declaration whose subject begins so."""
    rows = await transaction.rows(
        "SELECT subject, node, value FROM instep_declared WHERE subject LIKE $1 ORDER BY subject, node",
        f"{prefix}%",
    )
    return [(subject, node, value) for subject, node, value in rows]
