"""The exam of every cluster database: one suite, on SQLite, on PostgreSQL, and behind a proxy that pools
transactions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from instep.errors import ContentionError, NotAllowedError, RefusedError, UnavailableError, UsageError
from instep.model.lease import LeaseFence
from instep.net.task_group import TaskGroup
from instep.store.cluster import eras, leases, members
from instep.store.cluster.port import ClusterStore
from instep.store.cluster.sqlite import SqliteClusterStore
from tests.support.cluster_stores import ClusterGround
from tests.support.cluster_stores import cluster as cluster
from tests.support.cluster_stores import servers as servers
from tests.support.waiting import eventually_async

TTL = 10_000


async def take(store: ClusterStore, who: str, name: str = "index") -> leases.Granted | leases.Denied:
    async with store.transaction() as tx:
        return await leases.take_lease(tx, await eras.current_era(tx), name, who, f"{who} session", TTL)


async def renew(store: ClusterStore, who: str, fence: LeaseFence) -> leases.Granted | leases.Denied:
    async with store.transaction() as tx:
        return await leases.renew_lease(tx, await eras.current_era(tx), "index", f"{who} session", fence)


async def check(store: ClusterStore, who: str, fence: LeaseFence) -> None:
    async with store.transaction() as tx:
        await leases.check_lease(tx, await eras.current_era(tx), "index", f"{who} session", fence)


def fence_of(answer: leases.Granted | leases.Denied) -> LeaseFence:
    assert isinstance(answer, leases.Granted), answer
    return answer.fence


# transactions


async def test_a_transaction_is_whole_or_nothing(cluster: ClusterGround) -> None:
    store = await cluster.node()
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            await members.be_seen(tx, "a", "machine", "session", "1")
            assert len(await members.members(tx)) == 1
            raise ZeroDivisionError
    async with store.transaction() as tx:
        assert await members.members(tx) == []
        assert await tx.row("SELECT name FROM instep_member WHERE name = $1", "a") is None
        assert await tx.change("UPDATE instep_member SET name = name") == 0


async def test_nodes_that_begin_at_once_make_one_database(cluster: ClusterGround) -> None:
    stores = await asyncio.gather(*(cluster.node() for _ in range(4)))
    found = set()
    for store in stores:
        async with store.transaction() as tx:
            found.add((await eras.current_era(tx)).cluster)
    assert len(found) == 1


async def test_transactions_of_many_tasks_and_nodes_lose_no_step(cluster: ClusterGround) -> None:
    stores = [await cluster.node() for _ in range(3)]
    async with stores[0].transaction() as tx:
        await tx.change("UPDATE instep_era SET quiet_until_ms = 0")

    async def count(store: ClusterStore) -> None:
        async with store.transaction() as tx:
            row = await tx.row("UPDATE instep_era SET era = era RETURNING quiet_until_ms")
            assert row is not None
            await tx.change("UPDATE instep_era SET quiet_until_ms = $1", row[0] + 1)

    await asyncio.gather(*(count(store) for store in stores for _ in range(20)))
    async with stores[0].transaction() as tx:
        assert await tx.row("SELECT quiet_until_ms FROM instep_era") == (60,)


async def test_a_newer_form_of_the_tables_is_refused_and_nothing_changes(cluster: ClusterGround) -> None:
    store = await cluster.node()
    async with store.transaction() as tx:
        await tx.change("UPDATE instep_schema SET version = 9999")
    with pytest.raises(RefusedError) as refused:
        await cluster.node()
    assert refused.value.error_code == "cluster_newer"
    async with store.transaction() as tx:
        assert await tx.row("SELECT version FROM instep_schema") == (9999,)


async def test_a_listener_hears_what_another_node_announces(
    cluster: ClusterGround, request: pytest.FixtureRequest
) -> None:
    if "pooled" in request.node.callspec.id:
        pytest.skip("a proxy that pools transactions passes no notifications on: nodes look by themselves")
    one, other = await cluster.node(), await cluster.node()
    heard: list[str] = []
    async with TaskGroup() as group:
        listening = group.create_task(one.listen(heard.append))

        async def is_heard() -> bool:
            async with other.transaction() as tx:
                await members.be_seen(tx, "b", "machine", "session", "1")
                await tx.announce("lease:index")
            return bool({"lease:index", ""} & set(heard))

        await eventually_async(is_heard)
        listening.cancel()


# leases


async def test_a_lease_has_one_holder_and_passes_on_when_it_ran_out(cluster: ClusterGround) -> None:
    store = await cluster.node()
    first = fence_of(await take(store, "a"))
    assert first == LeaseFence(1, 1)
    denied = await take(store, "b")
    assert isinstance(denied, leases.Denied)
    assert denied.holder == "a"
    assert 0 < denied.left_ms <= TTL
    await cluster.advance(TTL - 1_000)
    assert fence_of(await renew(store, "a", first)) == first
    await cluster.advance(TTL - 1_000)
    assert isinstance(await take(store, "b"), leases.Denied)
    await cluster.advance(TTL)
    second = fence_of(await take(store, "b"))
    assert second == LeaseFence(1, 2)
    assert isinstance(await renew(store, "a", first), leases.Denied)
    await check(store, "b", second)
    with pytest.raises(ContentionError) as fenced:
        await check(store, "a", first)
    assert fenced.value.error_code == "fenced"


async def test_of_many_that_ask_at_once_one_gets_it(cluster: ClusterGround) -> None:
    stores = [await cluster.node() for _ in range(3)]
    answers = await asyncio.gather(*(take(stores[n % 3], f"n{n}") for n in range(24)))
    assert sum(isinstance(answer, leases.Granted) for answer in answers) == 1


async def test_a_grant_whose_answer_was_lost_is_given_again_and_an_unused_one_renewed_late(
    cluster: ClusterGround,
) -> None:
    store = await cluster.node()
    first = fence_of(await take(store, "a"))
    second = fence_of(await take(store, "a"))
    assert second > first
    await cluster.advance(3 * TTL)
    with pytest.raises(ContentionError):
        await check(store, "a", second)
    assert fence_of(await renew(store, "a", second)) == second
    await check(store, "a", second)


async def test_a_lease_that_is_given_back_is_free_at_once(cluster: ClusterGround) -> None:
    store = await cluster.node()
    first = fence_of(await take(store, "a"))
    async with store.transaction() as tx:
        assert not await leases.give_back_lease(tx, "index", "b session", first)
        assert await leases.give_back_lease(tx, "index", "a session", first)
    assert fence_of(await take(store, "b")) > first


async def test_a_broken_lease_is_renewed_no_more_and_free_when_it_has_run_out(cluster: ClusterGround) -> None:
    store = await cluster.node()
    first = fence_of(await take(store, "a"))
    async with store.transaction() as tx:
        row = await leases.break_lease(tx, "index", "a is dead")
        assert await leases.break_lease(tx, "other", "?") is None
    assert row is not None
    assert (row.holder, row.reason, row.is_broken) == ("a", "a is dead", True)
    assert isinstance(await renew(store, "a", first), leases.Denied)
    assert isinstance(await take(store, "b"), leases.Denied)
    await cluster.advance(TTL)
    assert fence_of(await take(store, "b")) > first


async def test_a_ttl_above_the_quiet_time_is_refused(cluster: ClusterGround) -> None:
    store = await cluster.node()
    async with store.transaction() as tx:
        era = await eras.current_era(tx)
        with pytest.raises(UsageError):
            await leases.take_lease(tx, era, "index", "a", "s", era.longest_ttl_ms + 1)


async def test_a_guarded_write_and_a_takeover_wait_for_each_other(cluster: ClusterGround) -> None:
    """The lease that a transaction has checked passes on only after its end, even when it runs out meanwhile."""
    one, other = await cluster.node(), await cluster.node()
    first = fence_of(await take(one, "a"))
    order: list[str] = []

    async def takes_over() -> None:
        fence_of(await take(other, "b"))
        order.append("taken over")

    async with TaskGroup() as group, one.transaction() as tx:
        await leases.check_lease(tx, await eras.current_era(tx), "index", "a session", first)
        await cluster.advance(2 * TTL)
        group.create_task(takes_over())
        await tx.change("UPDATE instep_lease SET reason = $1 WHERE name = $2", "written", "index")
        order.append("written")
    assert order == ["written", "taken over"]


# eras


async def test_after_a_failover_nothing_changes_hands_in_the_quiet_time(cluster: ClusterGround) -> None:
    store = await cluster.node()
    first = fence_of(await take(store, "a"))
    await cluster.move_to("second")
    await cluster.advance(TTL + 1)
    for name in ("index", "other"):
        denied = await take(store, "b", name)
        assert isinstance(denied, leases.Denied)
        assert denied.holder == ""
    with pytest.raises(ContentionError):
        await check(store, "a", first)
    renewed = fence_of(await renew(store, "a", first))
    assert renewed == LeaseFence(2, 2)
    await check(store, "a", renewed)
    async with store.transaction() as tx:
        era = await eras.current_era(tx)
    assert (era.era, era.is_quiet) == (2, True)
    await cluster.advance(era.longest_ttl_ms)
    assert fence_of(await take(store, "b")) > renewed


async def test_the_clock_of_a_former_server_keeps_no_lease_longer_than_its_time_to_live(
    cluster: ClusterGround,
) -> None:
    store = await cluster.node()
    await cluster.advance(3_600_000)
    first = fence_of(await take(store, "a"))
    await cluster.advance(-3_600_000)  # the promoted server's clock is an hour behind
    await cluster.move_to("second")
    assert isinstance(await take(store, "b"), leases.Denied)
    async with store.transaction() as tx:
        era = await eras.current_era(tx)
    await cluster.advance(era.longest_ttl_ms)
    assert fence_of(await take(store, "b")) > first


async def test_a_node_that_knows_a_newer_era_refuses_the_old_primary(cluster: ClusterGround) -> None:
    store = await cluster.node()
    known: tuple[eras.KnownEra, ...] = ()
    for server in ("first", "second"):
        await cluster.move_to(server)
        async with store.transaction() as tx:
            known = eras.remembered(known, await eras.current_era(tx, known))
    assert [one.era for one in known] == [1, 2]
    async with store.transaction() as tx:  # what the old primary still holds
        await tx.change("UPDATE instep_era SET server = 'first', era = 1")
    await cluster.move_to("first")
    async with store.transaction() as tx:
        assert (await eras.current_era(tx)).era == 1
        with pytest.raises(UnavailableError) as refused:
            await eras.current_era(tx, known)
    assert refused.value.error_code == "old_primary"


async def test_a_restored_database_begins_an_era_above_all_that_the_node_knows(
    cluster: ClusterGround,
) -> None:
    store = await cluster.node()
    await cluster.move_to("restored")
    async with store.transaction() as tx:
        era = await eras.current_era(tx, [eras.KnownEra(7, "lost")])
    assert (era.era, era.server, era.is_quiet) == (8, "restored", True)


async def test_the_database_of_another_cluster_is_refused(cluster: ClusterGround) -> None:
    store = await cluster.node()
    async with store.transaction() as tx:
        with pytest.raises(RefusedError) as refused:
            await eras.current_era(tx, cluster="another")
    assert refused.value.error_code == "cluster_other"


# members


async def test_a_copied_node_directory_is_refused_while_the_other_one_runs(cluster: ClusterGround) -> None:
    one, other = await cluster.node(), await cluster.node()
    async with one.transaction() as tx:
        await members.be_seen(tx, "a", "machine 1", "s1", "1")
        await members.be_seen(tx, "a", "machine 1", "s2", "1")  # its daemon was started again
    async with other.transaction() as tx:
        with pytest.raises(NotAllowedError) as refused:
            await members.be_seen(tx, "a", "machine 2", "s3", "1")
    assert refused.value.error_code == "identity_in_use"
    await cluster.advance(members.SILENT_MS + 1_000)
    async with other.transaction() as tx:
        await members.be_seen(tx, "a", "machine 2", "s3", "1")
        assert [member.identity for member in await members.members(tx)] == ["machine 2"]


async def test_a_listener_of_a_file_ends_by_name_when_its_connection_is_closed(tmp_path: Path) -> None:
    """Goal: the address was changed while a task listened, which must not end the daemon."""
    one, other = SqliteClusterStore(tmp_path / "c.db"), SqliteClusterStore(tmp_path / "c.db")
    heard = asyncio.Event()
    await one.open()
    await other.open()
    listening = asyncio.get_running_loop().create_task(one.listen(lambda _: heard.set()))

    async def is_heard() -> bool:
        async with other.transaction() as tx:
            await members.be_seen(tx, "a", "machine", "session", "1")
        return heard.is_set()

    await eventually_async(is_heard)
    await one.close()
    with pytest.raises(UnavailableError) as closed:
        await listening
    assert closed.value.error_code == "cluster_closed"
    await other.close()
