"""What roots on shared storage hold, written under the fence of a root's lease; and the paths that other nodes saw
being written there."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import msgspec

from instep.errors import DamagedError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import HeadRef, LineId
from instep.model.lease import LeaseFence
from instep.store.cluster.eras import Era
from instep.store.cluster.leases import check_lease
from instep.store.cluster.port import Transaction

TOUCHED_MAX = 200
"""More paths than this stand for the whole tree."""
_COLUMNS = "held, is_whole, node, era, counter"


class HeldRoot(NamedTuple):
    """``head`` is the generation that ``node`` began to lay last, all of it where ``is_whole``."""

    head: HeadRef
    is_whole: bool
    node: str
    fence: LeaseFence


class RootGuard(NamedTuple):
    """The right to write into a shared root: its lease, one holder's session, and the fence."""

    lease: str
    session: str
    fence: LeaseFence


async def held_root(transaction: Transaction, line: LineId) -> HeldRoot | None:
    """What the shared root of a line holds; None where no node has laid a generation of it yet. ``DamagedError``
    ``shared_root_damaged``."""
    row = await transaction.row(
        f"SELECT {_COLUMNS} FROM instep_shared_root WHERE fileset = $1 AND origin = $2",
        line.fileset, line.origin,
    )  # fmt: skip
    if row is None:
        return None
    held, is_whole, node, era, counter = row
    try:
        head = msgspec.msgpack.decode(bytes(held), type=HeadRef)
    except DECODE_ERRORS as error:
        raise DamagedError(
            f"the cluster's database does not say what the shared root of {line.fileset} holds: {error}",
            hint=f"in the database: DELETE FROM instep_shared_root WHERE fileset = '{line.fileset}'; the holder of the "
            "lease then looks at all of the tree",
            code="shared_root_damaged",
        ) from error
    return HeldRoot(head, bool(is_whole), node, LeaseFence(era, counter))


async def record_root(
    transaction: Transaction, era: Era, line: LineId, guard: RootGuard, node: str, head: HeadRef, *, is_whole: bool
) -> None:  # fmt: skip
    """Record that the root comes to hold ``head``, or holds all of it. ``ContentionError`` ``fenced`` unless the lease
    is in force under this fence."""
    await check_lease(transaction, era, guard.lease, guard.session, guard.fence)
    await transaction.change(
        "INSERT INTO instep_shared_root VALUES ($1, $2, $3, $4, $5, $6, $7, instep_now_ms())"
        " ON CONFLICT (fileset) DO UPDATE SET origin = excluded.origin, held = excluded.held,"
        " is_whole = excluded.is_whole, node = excluded.node, era = excluded.era, counter = excluded.counter,"
        " changed_at_ms = excluded.changed_at_ms",
        line.fileset, line.origin, msgspec.msgpack.encode(head), int(is_whole), node,
        guard.fence.era, guard.fence.counter,
    )  # fmt: skip
    await transaction.announce(topic_of(line))


def bounded(paths: set[bytes]) -> set[bytes]:
    """The paths, or the empty one where it is among them, or where they are too many."""
    return {b""} if b"" in paths or len(paths) > TOUCHED_MAX else paths


async def tell_touched(transaction: Transaction, line: LineId, node: str, paths: Collection[bytes]) -> None:
    """Leave paths for the node that holds the root's lease; none, or too many, stand for all of the tree."""
    told = sorted(paths) if 0 < len(paths) <= TOUCHED_MAX else [b""]
    for path in told:
        await transaction.change(
            "INSERT INTO instep_touched VALUES ($1, $2, $3) ON CONFLICT (fileset, path) DO NOTHING",
            line.fileset, path, node,
        )  # fmt: skip
    row = await transaction.row("SELECT count(*) FROM instep_touched WHERE fileset = $1", line.fileset)
    if row is not None and row[0] > TOUCHED_MAX:  # no node takes them at present
        await transaction.change("DELETE FROM instep_touched WHERE fileset = $1", line.fileset)
        await transaction.change("INSERT INTO instep_touched VALUES ($1, $2, $3)", line.fileset, b"", node)
    await transaction.announce(topic_of(line))


async def take_touched(transaction: Transaction, line: LineId) -> tuple[bytes, ...]:
    """The paths that were left, which are gone from there now."""
    rows = await transaction.rows(
        "DELETE FROM instep_touched WHERE fileset = $1 RETURNING path", line.fileset
    )
    return tuple(sorted(bounded({bytes(path) for (path,) in rows})))


async def has_touched(transaction: Transaction, line: LineId) -> bool:
    """Whether paths wait to be taken."""
    return (
        await transaction.row("SELECT 1 FROM instep_touched WHERE fileset = $1 LIMIT 1", line.fileset)
        is not None
    )


def topic_of(line: LineId) -> str:
    """The topic that announces a change of the root."""
    return f"root:{line.fileset}"
