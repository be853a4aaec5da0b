"""Eras: which primary grants, as far as a node knows, and until when nothing changes hands.

A failover can forget what the old primary granted in its last moments. So each transaction that grants or guards looks
which server it runs on. On another server or timeline the era rises, and until the longest right that the old one could
have granted has run out, none changes hands: that is the quiet time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from instep.errors import RefusedError, UnavailableError
from instep.store.cluster.port import Transaction

KNOWN_MAX = 16


class KnownEra(NamedTuple):
    """An era that this node has seen, and the server that granted in it."""

    era: int
    server: str


class Era(NamedTuple):
    """The era of a transaction. The times are the database's."""

    cluster: str
    server: str
    era: int
    quiet_until_ms: int
    longest_ttl_ms: int
    now_ms: int

    @property
    def began_at_ms(self) -> int:
        """When a failover was first seen: what the server before it recorded last may be missing. Before all time in a
        database that has seen none."""
        return self.quiet_until_ms - self.longest_ttl_ms

    @property
    def is_quiet(self) -> bool:
        """Whether nothing may change hands now."""
        return self.now_ms < self.quiet_until_ms


async def current_era(
    transaction: Transaction,
    known: Sequence[KnownEra] | Callable[[str], Sequence[KnownEra]] = (),
    cluster: str | None = None,
) -> Era:
    """The era of this transaction, raised when the server is another one than at its beginning.

    ``known`` are the eras that this node has seen, of one cluster or by cluster; ``cluster`` is the one that it
    expects.
    ``UnavailableError`` ``old_primary`` when a newer era has begun on another server; ``RefusedError``
    ``cluster_other`` when the database is another cluster's.
    """
    row = await transaction.row(
        "SELECT cluster, server, era, quiet_until_ms, longest_ttl_ms, instep_now_ms(), instep_server() FROM instep_era"
    )
    assert row is not None
    found, here = Era(*row[:6]), str(row[6])
    if cluster is not None and found.cluster != cluster:
        raise RefusedError(
            f"the database belongs to cluster {found.cluster[:8]}, and this node to cluster {cluster[:8]}",
            code="cluster_other",
            hint="put the address of this node's own cluster into its cluster_file",
            ours=cluster,
            theirs=found.cluster,
        )
    seen = known(found.cluster) if callable(known) else known
    highest = max((one.era for one in seen), default=0)
    if found.server != here:
        return await _raised(transaction, found, here, highest)
    if found.era < highest:
        raise UnavailableError(
            f"the database is a former primary: it grants in era {found.era}, and era {highest} has begun elsewhere",
            code="old_primary",
            hint="stop that server, or let the address in cluster_file lead to the primary; instep goes on by itself",
            era=found.era,
            known=highest,
        )
    return found


async def _raised(transaction: Transaction, found: Era, here: str, highest: int) -> Era:
    await transaction.change(
        "UPDATE instep_era SET server = $1, era = CASE WHEN era < $2 THEN $2 ELSE era END + 1,"
        " quiet_until_ms = instep_now_ms() + longest_ttl_ms WHERE server <> $1",
        here,
        highest,
    )
    # The former server's clock may have been ahead: no lease or run outlives its time to live by the clock of this one.
    await transaction.change(
        "UPDATE instep_lease SET expires_at_ms = instep_now_ms() + ttl_ms"
        " WHERE expires_at_ms > instep_now_ms() + ttl_ms"
    )
    await transaction.change(
        "UPDATE instep_run SET expires_at_ms = instep_now_ms() + CAST($1 AS bigint)"
        " WHERE state = 'running' AND expires_at_ms > instep_now_ms() + CAST($1 AS bigint)",
        found.longest_ttl_ms,
    )
    await transaction.announce("era")
    row = await transaction.row("SELECT server, era, quiet_until_ms FROM instep_era")
    assert row is not None
    return found._replace(server=row[0], era=row[1], quiet_until_ms=row[2])


async def begin_era_after_restore(transaction: Transaction, at_least: int) -> int:
    """A copy of the database was put in its place, or its application's: a new era above ``at_least``, in which nothing
    that the copy granted is in force. Nothing changes hands until the longest right of before has run out."""
    row = await transaction.row(
        "UPDATE instep_era SET era = CASE WHEN era < CAST($1 AS bigint) THEN CAST($1 AS bigint) ELSE era END + 1,"
        " quiet_until_ms = instep_now_ms() + longest_ttl_ms RETURNING era",
        at_least,
    )
    assert row is not None
    await transaction.change("UPDATE instep_lease SET holder = '', session = '', expires_at_ms = 0")
    await transaction.change(
        "UPDATE instep_run SET state = 'lost', reason = 'the database was restored', ended_at_ms = instep_now_ms()"
        " WHERE state = 'running'"
    )
    await transaction.change("DELETE FROM instep_seat_use")
    await transaction.change("DELETE FROM instep_seat")
    await transaction.announce("era")
    return int(row[0])


def remembered(known: Sequence[KnownEra], era: Era) -> tuple[KnownEra, ...]:
    """``known`` with the era of a transaction, newest last, bounded."""
    seen = KnownEra(era.era, era.server)
    return tuple(known) if seen in known else (*known, seen)[-KNOWN_MAX:]
