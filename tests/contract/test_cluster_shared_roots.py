"""The record of a shared root, on SQLite, on PostgreSQL, and behind a proxy: written under its lease's fence alone."""

from __future__ import annotations

import pytest

from instep.errors import ContentionError, DamagedError
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.store.cluster import eras, leases
from instep.store.cluster.port import ClusterStore
from instep.store.cluster.shared_roots import (
    TOUCHED_MAX,
    HeldRoot,
    RootGuard,
    has_touched,
    held_root,
    record_root,
    take_touched,
    tell_touched,
)
from tests.support.cluster_stores import ClusterGround
from tests.support.cluster_stores import cluster as cluster
from tests.support.cluster_stores import servers as servers

LINE = LineId(FilesetName("data"), NodeName("main"))
OTHER = LineId(FilesetName("data"), NodeName("other"))
LEASE, TTL = "apply:data", 10_000


def head(number: int) -> HeadRef:
    return HeadRef(1, number, Digest(bytes([number]) * 32), Digest(bytes(32)))


async def take(store: ClusterStore, who: str) -> RootGuard:
    async with store.transaction() as tx:
        era = await eras.current_era(tx)
        granted = await leases.take_lease(tx, era, LEASE, who, f"{who} session", TTL)
    assert isinstance(granted, leases.Granted), granted
    return RootGuard(LEASE, f"{who} session", granted.fence)


async def record(store: ClusterStore, guard: RootGuard, who: str, number: int, *, is_whole: bool) -> None:
    async with store.transaction() as tx:
        era = await eras.current_era(tx)
        await record_root(tx, era, LINE, guard, who, head(number), is_whole=is_whole)


async def look(store: ClusterStore, line: LineId = LINE) -> HeldRoot | None:
    async with store.transaction() as tx:
        return await held_root(tx, line)


async def test_only_the_holder_says_what_a_root_holds(cluster: ClusterGround) -> None:
    """Goal: a holder whose lease another node took writes nothing any more, also nothing that it had begun."""
    one, two = await cluster.node(), await cluster.node()
    assert await look(one) is None
    first = await take(one, "a")
    await record(one, first, "a", 1, is_whole=False)
    assert await look(two) == HeldRoot(head(1), False, "a", first.fence)
    await record(one, first, "a", 1, is_whole=True)
    await cluster.advance(TTL + 1)
    second = await take(two, "b")
    with pytest.raises(ContentionError) as refused:
        await record(one, first, "a", 2, is_whole=False)
    assert refused.value.error_code == "fenced"
    assert await look(one) == HeldRoot(head(1), True, "a", first.fence)
    await record(two, second, "b", 2, is_whole=True)
    assert await look(one) == HeldRoot(head(2), True, "b", second.fence)
    assert await look(one, OTHER) is None


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x94\x01"])
async def test_a_row_that_cannot_be_read_is_an_error_with_a_way_out(
    cluster: ClusterGround, raw: bytes
) -> None:
    """Goal: the library's own error ended the task that looks, and with it the daemon's part of the root."""
    one = await cluster.node()
    guard = await take(one, "a")
    await record(one, guard, "a", 1, is_whole=True)
    async with one.transaction() as tx:
        await tx.change("UPDATE instep_shared_root SET held = $1", raw)
    with pytest.raises(DamagedError) as refused:
        await look(one)
    assert refused.value.error_code == "shared_root_damaged"
    async with one.transaction() as tx:
        await tx.change("DELETE FROM instep_shared_root WHERE fileset = 'data'")
    assert await look(one) is None
    await record(one, guard, "a", 2, is_whole=True)


async def test_touched_paths_reach_the_holder_once(cluster: ClusterGround) -> None:
    one, two = await cluster.node(), await cluster.node()
    async with one.transaction() as tx:
        assert not await has_touched(tx, LINE)
        await tell_touched(tx, LINE, "b", [b"d/\xff", b"a"])
        await tell_touched(tx, LINE, "c", [b"a"])
    async with two.transaction() as tx:
        assert await has_touched(tx, LINE)
        assert await take_touched(tx, LINE) == (b"a", b"d/\xff")
        assert await take_touched(tx, LINE) == ()
        await tell_touched(tx, LINE, "b", [str(n).encode() for n in range(TOUCHED_MAX + 1)])
        assert await take_touched(tx, LINE) == (b"",)


async def test_touched_paths_of_many_reports_stand_for_the_whole_tree(cluster: ClusterGround) -> None:
    """Goal: while no node held the lease, each report added its paths, without a bound."""
    one = await cluster.node()
    async with one.transaction() as tx:
        for report in range(3):
            await tell_touched(tx, LINE, "b", [b"%d-%d" % (report, n) for n in range(TOUCHED_MAX // 2)])
        assert await take_touched(tx, LINE) == (b"",)
