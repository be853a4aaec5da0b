"""Seats in the cluster's database. The pool's row is locked before its places are counted, so no place has two users.

What a node renews is the truth about its own users: a use that the node does not name any more ends, and one that a
failover has lost comes back. Until the pool's ``grace`` has passed in a new era no new user sits down, for a node that
cannot reach the new server yet may have users whose seats it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from instep.core.cluster.seats import (
    PoolRules,
    Seat,
    SeatVerdict,
    Use,
    judge,
    may_change_kind,
    sat_down,
    stood_up,
)
from instep.store.cluster import agreements
from instep.store.cluster.eras import Era
from instep.store.cluster.port import Transaction


class PoolState(NamedTuple):
    """A pool's rules as they count, and how many of its places are taken."""

    rules: PoolRules
    taken: int


class SeatedUser(NamedTuple):
    """A seat as ``seat list`` shows it."""

    pool: str
    user_key: str
    user_name: str
    since_ms: int
    ends_at_ms: int
    uses: tuple[Use, ...]


def subject_of(pool: str) -> str:
    return f"pool:{pool}"


async def lock_pool(transaction: Transaction, pool: str) -> PoolState | None:
    """The pool, locked until the transaction ends; None where no node has it in its settings."""
    found = await agreements.locked(transaction, subject_of(pool))
    if found is None:
        return None
    return PoolState(msgspec.json.decode(found.value, type=PoolRules), await taken_places(transaction, pool))


async def taken_places(transaction: Transaction, pool: str) -> int:
    """How many places are not free."""
    row = await transaction.row(
        "SELECT count(*) FROM instep_seat WHERE pool = $1 AND expires_at_ms > instep_now_ms()", pool
    )
    assert row is not None
    return int(row[0])


async def declare_pool(transaction: Transaction, rules: PoolRules, node: str) -> PoolState:
    """Record what a node's settings say of a pool. Another kind of licences counts once no place is taken."""
    subject, value = subject_of(rules.name), msgspec.json.encode(rules).decode()
    state = await lock_pool(transaction, rules.name)
    if state is None or state.rules.kind == rules.kind or may_change_kind(state.taken):
        found = await agreements.declare(transaction, subject, node, value)
        decoded = msgspec.json.decode(found.value, type=PoolRules)
        return PoolState(decoded, 0 if state is None else state.taken)
    return state


async def sit_down(
    transaction: Transaction,
    era: Era,
    state: PoolState,
    kind: str,
    user: tuple[str, str],
    at: tuple[str, str],
) -> tuple[SeatVerdict, PoolState]:
    """Seat a user, given by key and name, at a node, given by name and boot. The pool is locked."""
    pool, now_ms = state.rules.name, era.now_ms
    seat = await _seat(transaction, pool, user[0])
    verdict = judge(state.rules, kind, seat, state.taken, now_ms)
    if verdict is SeatVerdict.SEATED and now_ms < era.began_at_ms + state.rules.grace_ms:
        return SeatVerdict.QUIET, state
    if verdict in (SeatVerdict.SEATED, SeatVerdict.ALREADY):
        await _write(transaction, pool, user, sat_down(state.rules, seat, at[0], now_ms), at)
    if verdict is SeatVerdict.SEATED:
        state = state._replace(taken=state.taken + 1)
    return verdict, state


async def stand_up(
    transaction: Transaction,
    era: Era,
    state: PoolState,
    user_key: str,
    at: tuple[str, str],
    *,
    is_all: bool = False,
) -> bool:
    """End one use at a node, or with ``is_all`` all uses anywhere and the seat with them. Whether there was a seat."""
    pool = state.rules.name
    seat = await _seat(transaction, pool, user_key)
    if seat is None or seat.ends_at_ms <= era.now_ms:
        return False
    if is_all:
        await _remove(transaction, pool, user_key)
    else:
        await _write(transaction, pool, (user_key, ""), stood_up(state.rules, seat, at[0], era.now_ms), at)
    return True


async def renew_seats(
    transaction: Transaction,
    era: Era,
    state: PoolState,
    wanted: Mapping[str, tuple[str, int]],
    at: tuple[str, str],
) -> tuple[str, ...]:
    """Make a node's uses those of ``wanted``: name and times by user key. The keys whose seats are gone."""
    rules, (node, boot) = state.rules, at
    in_force = await transaction.rows(
        "UPDATE instep_seat_use SET expires_at_ms = instep_now_ms() + CAST($3 AS bigint), boot = $4 WHERE pool = $1"
        " AND node = $2 AND expires_at_ms > instep_now_ms() RETURNING user_key, times",
        rules.name, node, rules.grace_ms, boot,
    )  # fmt: skip
    have = {str(key): int(times) for key, times in in_force}
    await transaction.change(
        "UPDATE instep_seat SET expires_at_ms = (SELECT max(u.expires_at_ms) FROM instep_seat_use AS u"
        " WHERE u.pool = instep_seat.pool AND u.user_key = instep_seat.user_key) WHERE pool = $1 AND user_key IN"
        " (SELECT user_key FROM instep_seat_use WHERE pool = $1 AND node = $2 AND expires_at_ms > instep_now_ms())",
        rules.name, node,
    )  # fmt: skip
    for key in sorted(have.keys() - wanted.keys()):
        seat = await _seat(transaction, rules.name, key)
        assert seat is not None
        one = Seat(
            seat.since_ms, tuple(use._replace(times=1) if use.node == node else use for use in seat.uses)
        )
        await _write(transaction, rules.name, (key, ""), stood_up(rules, one, node, era.now_ms), at)
    gone = []
    for key, (name, times) in sorted(wanted.items()):
        if key in have:
            if have[key] != times:
                await transaction.change(
                    "UPDATE instep_seat_use SET times = $4 WHERE pool = $1 AND user_key = $2 AND node = $3",
                    rules.name, key, node, times,
                )  # fmt: skip
        elif era.now_ms < era.began_at_ms + rules.grace_ms:
            seat = await _seat(transaction, rules.name, key)
            again = sat_down(rules, seat, node, era.now_ms)
            uses = tuple(use._replace(times=times) if use.node == node else use for use in again.uses)
            await _write(transaction, rules.name, (key, name), Seat(again.since_ms, uses), at)
        else:
            gone.append(key)
    return tuple(gone)


async def _seat(transaction: Transaction, pool: str, user_key: str) -> Seat | None:
    row = await transaction.row(
        "SELECT since_ms, expires_at_ms FROM instep_seat WHERE pool = $1 AND user_key = $2", pool, user_key
    )
    if row is None:
        return None
    uses = await transaction.rows(
        "SELECT node, times, expires_at_ms FROM instep_seat_use WHERE pool = $1 AND user_key = $2 ORDER BY node",
        pool, user_key,
    )  # fmt: skip
    return Seat(row[0], tuple(Use(*use) for use in uses), 0 if uses else row[1])


async def _write(
    transaction: Transaction, pool: str, user: tuple[str, str], seat: Seat, at: tuple[str, str]
) -> None:
    """Write a seat of which the uses at one node, and no others, have changed or ended."""
    node, boot = at
    await transaction.change(
        "INSERT INTO instep_seat VALUES ($1, $2, $3, $4, $5) ON CONFLICT (pool, user_key) DO UPDATE SET"
        " since_ms = excluded.since_ms, expires_at_ms = excluded.expires_at_ms,"
        " user_name = CASE WHEN excluded.user_name = '' OR instep_seat.expires_at_ms > instep_now_ms()"
        " THEN instep_seat.user_name ELSE excluded.user_name END",
        pool, *user, seat.since_ms, seat.ends_at_ms,
    )  # fmt: skip
    await transaction.change(
        "DELETE FROM instep_seat_use WHERE pool = $1 AND user_key = $2"
        " AND (node = $3 OR expires_at_ms <= instep_now_ms())",
        pool, user[0], node,
    )  # fmt: skip
    for use in seat.uses:
        if use.node == node:
            await transaction.change(
                "INSERT INTO instep_seat_use VALUES ($1, $2, $3, $4, $5, $6)",
                pool, user[0], node, boot, use.times, use.ends_at_ms,
            )  # fmt: skip


async def _remove(transaction: Transaction, pool: str, user_key: str) -> None:
    await transaction.change("DELETE FROM instep_seat_use WHERE pool = $1 AND user_key = $2", pool, user_key)
    await transaction.change("DELETE FROM instep_seat WHERE pool = $1 AND user_key = $2", pool, user_key)


async def forget_free(transaction: Transaction) -> None:
    """Remove the rows of places that are free."""
    await transaction.change("DELETE FROM instep_seat_use WHERE expires_at_ms <= instep_now_ms()")
    await transaction.change("DELETE FROM instep_seat WHERE expires_at_ms <= instep_now_ms()")


async def own_uses(transaction: Transaction, node: str, boot: str) -> dict[str, dict[str, tuple[str, int]]]:
    """By pool and user key the name and times of a node's uses since the machine was started: for a daemon that begins
    again while its users go on."""
    rows = await transaction.rows(
        "SELECT u.pool, u.user_key, s.user_name, u.times FROM instep_seat_use AS u JOIN instep_seat AS s"
        " ON s.pool = u.pool AND s.user_key = u.user_key"
        " WHERE u.node = $1 AND u.boot = $2 AND u.expires_at_ms > instep_now_ms() ORDER BY u.pool, u.user_key",
        node, boot,
    )  # fmt: skip
    found: dict[str, dict[str, tuple[str, int]]] = {}
    for pool, key, name, times in rows:
        found.setdefault(pool, {})[key] = (name, times)
    return found


async def seated_users(transaction: Transaction) -> list[SeatedUser]:
    """All places that are not free, by pool and user."""
    seats = await transaction.rows(
        "SELECT pool, user_key, user_name, since_ms, expires_at_ms FROM instep_seat"
        " WHERE expires_at_ms > instep_now_ms() ORDER BY pool, user_key"
    )
    uses = await transaction.rows(
        "SELECT pool, user_key, node, times, expires_at_ms FROM instep_seat_use"
        " WHERE expires_at_ms > instep_now_ms() ORDER BY pool, user_key, node"
    )
    found: dict[tuple[str, str], list[Use]] = {}
    for pool, key, *use in uses:
        found.setdefault((pool, key), []).append(Use(*use))
    return [
        SeatedUser(pool, key, name, since_ms, ends_at_ms, tuple(found.get((pool, key), ())))
        for pool, key, name, since_ms, ends_at_ms in seats
    ]
