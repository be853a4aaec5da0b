"""Leases in the cluster's database: taken, renewed, given back and broken by its clock, each grant under a fence.

A lease that expired and that no other node took may still be renewed. A broken one is renewed no more, and is free when
it has run out: its holder has stopped by then.
"""

from __future__ import annotations

from typing import NamedTuple

from instep.errors import ContentionError, UsageError
from instep.model.lease import LeaseFence
from instep.store.cluster.eras import Era
from instep.store.cluster.port import Transaction


class Granted(NamedTuple):
    """The lease is held from before this answer was sent, for its time to live."""

    fence: LeaseFence


class Denied(NamedTuple):
    """Another holder has it, or may have it: ``left_ms`` until it can be asked for again. Without a holder it is the
    quiet time after a failover."""

    holder: str
    left_ms: int


class LeaseRow(NamedTuple):
    """A lease as the database has it. ``left_ms`` is 0 for one that is free; a broken one has no session."""

    name: str
    holder: str
    session: str
    fence: LeaseFence
    ttl_ms: int
    taken_at_ms: int
    expires_at_ms: int
    left_ms: int
    reason: str

    @property
    def is_held(self) -> bool:
        return self.left_ms > 0

    @property
    def is_broken(self) -> bool:
        """Whether an operator has ended it, so that it is free once it has run out."""
        return self.is_held and not self.session


_LEFT = "expires_at_ms - instep_now_ms()"
_COLUMNS = f"name, holder, session, era, counter, ttl_ms, taken_at_ms, expires_at_ms, {_LEFT}, reason"
_MINE = "name = $1 AND session = $2 AND era = $3 AND counter = $4"


async def take_lease(
    transaction: Transaction, era: Era, name: str, holder: str, session: str, ttl_ms: int
) -> Granted | Denied:
    """Take a lease that is free or that this session has already: its answer may have been lost."""
    if ttl_ms > era.longest_ttl_ms:
        raise UsageError(
            f"a lease lasts at most {era.longest_ttl_ms / 1000:g} s without renewal", code="ttl_too_long"
        )
    if era.is_quiet:
        return Denied("", era.quiet_until_ms - era.now_ms)
    row = await transaction.row(
        "INSERT INTO instep_lease VALUES"
        " ($1, $2, $3, $4, 1, $5, instep_now_ms(), instep_now_ms() + CAST($5 AS bigint), '')"
        " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, session = excluded.session, era = excluded.era,"
        " counter = instep_lease.counter + 1, ttl_ms = excluded.ttl_ms, taken_at_ms = excluded.taken_at_ms,"
        " expires_at_ms = excluded.expires_at_ms, reason = ''"
        " WHERE instep_lease.expires_at_ms <= instep_now_ms() OR instep_lease.session = excluded.session"
        " RETURNING counter",
        name, holder, session, era.era, ttl_ms,
    )  # fmt: skip
    if row is None:
        return await _denied(transaction, name)
    return Granted(LeaseFence(era.era, row[0]))


async def renew_lease(
    transaction: Transaction, era: Era, name: str, session: str, fence: LeaseFence
) -> Granted | Denied:
    """Lengthen a lease by its time to live. In a new era that is a new grant, with a higher fence."""
    row = await transaction.row(
        "UPDATE instep_lease SET expires_at_ms = instep_now_ms() + ttl_ms, era = $5,"
        f" counter = counter + CASE WHEN era = $5 THEN 0 ELSE 1 END WHERE {_MINE} RETURNING counter",
        name, session, fence.era, fence.counter, era.era,
    )  # fmt: skip
    if row is None:
        return await _denied(transaction, name)
    return Granted(LeaseFence(era.era, row[0]))


async def _denied(transaction: Transaction, name: str) -> Denied:
    row = await lease_row(transaction, name)
    return Denied("", 0) if row is None else Denied(row.holder, row.left_ms)


async def give_back_lease(transaction: Transaction, name: str, session: str, fence: LeaseFence) -> bool:
    """End a lease before its time, once its holder has stopped. Whether it was still this holder's."""
    changed = await transaction.change(
        f"UPDATE instep_lease SET holder = '', session = '', expires_at_ms = 0 WHERE {_MINE}",
        name, session, fence.era, fence.counter,
    )  # fmt: skip
    await transaction.announce(f"lease:{name}")
    return changed > 0


async def check_lease(transaction: Transaction, era: Era, name: str, session: str, fence: LeaseFence) -> None:
    """``ContentionError`` ``fenced`` unless the lease is in force under this fence. It then stays so until the
    transaction ends: the row is locked."""
    row = None
    if fence.era == era.era:
        row = await transaction.row(
            f"UPDATE instep_lease SET name = name WHERE {_MINE} AND expires_at_ms > instep_now_ms() RETURNING name",
            name, session, fence.era, fence.counter,
        )  # fmt: skip
    if row is None:
        raise ContentionError(
            f"the lease {name} is not held under fence {fence} any more: nothing was written",
            code="fenced",
            hint="see the holder: instep lease list",
            lease=name,
            fence=str(fence),
        )


async def break_lease(transaction: Transaction, name: str, reason: str) -> LeaseRow | None:
    """Let no renewal of a held lease succeed; its row, or None when no node holds it. It is free once it
    has run out."""
    changed = await transaction.change(
        "UPDATE instep_lease SET session = '', reason = $2 WHERE name = $1 AND expires_at_ms > instep_now_ms()",
        name, reason,
    )  # fmt: skip
    if not changed:
        return None
    await transaction.announce(f"lease:{name}")
    return await lease_row(transaction, name)


async def lease_row(transaction: Transaction, name: str) -> LeaseRow | None:
    row = await transaction.row(f"SELECT {_COLUMNS} FROM instep_lease WHERE name = $1", name)
    return None if row is None else _row(*row)


async def lease_rows(transaction: Transaction) -> list[LeaseRow]:
    """All leases, by name; those that are free too."""
    return [
        _row(*row) for row in await transaction.rows(f"SELECT {_COLUMNS} FROM instep_lease ORDER BY name")
    ]


def _row(
    name: str, holder: str, session: str, era: int, counter: int, ttl_ms: int, taken_at_ms: int,
    expires_at_ms: int, left_ms: int, reason: str,
) -> LeaseRow:  # fmt: skip
    fence = LeaseFence(era, counter)
    return LeaseRow(name, holder, session, fence, ttl_ms, taken_at_ms, expires_at_ms, max(0, left_ms), reason)
