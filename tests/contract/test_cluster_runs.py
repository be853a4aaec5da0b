"""The exam of runs in every cluster database: ticks, claims, losses, and a failover that forgets."""

from __future__ import annotations

import asyncio

from instep.store.cluster import runs
from instep.store.cluster.eras import Era, current_era
from instep.store.cluster.port import ClusterStore, Transaction
from instep.store.cluster.runs import ClusterRun, NotStarted, Outcome, Runner
from tests.support.cluster_stores import ClusterGround
from tests.support.cluster_stores import cluster as cluster
from tests.support.cluster_stores import servers as servers

TTL = 30_000
JOB = "job:reindex"
DONE = Outcome("done", 0, "", "all of it\n")


def runner(node: str) -> Runner:
    return Runner(node, f"{node} session")


async def era_of(store: ClusterStore) -> Era:
    async with store.transaction() as tx:
        return await current_era(tx)


async def start(
    store: ClusterStore, node: str, tick_s: int, on_lost: str = "leave"
) -> ClusterRun | NotStarted:
    async with store.transaction() as tx:
        return await runs.start_tick(tx, await current_era(tx), JOB, tick_s, on_lost, runner(node), TTL)


async def started(store: ClusterStore, node: str, tick_s: int, on_lost: str = "leave") -> ClusterRun:
    found = await start(store, node, tick_s, on_lost)
    assert isinstance(found, ClusterRun), found
    return found


async def claimed(store: ClusterStore, node: str, subject: str) -> ClusterRun | None:
    async with store.transaction() as tx:
        return await runs.claim(tx, await current_era(tx), subject, runner(node), TTL)


async def given_up(store: ClusterStore) -> list[ClusterRun]:
    async with store.transaction() as tx:
        return await runs.give_up_lost(tx, await current_era(tx))


async def newest(store: ClusterStore, subject: str = JOB) -> list[tuple[str, int, str, str]]:
    async with store.transaction() as tx:
        return [
            (run.key, run.attempt, run.state, run.node) for run in await runs.newest_runs(tx, subject, 50)
        ]


async def test_a_tick_is_started_once_and_not_early(cluster: ClusterGround) -> None:
    stores = {name: await cluster.node() for name in ("a", "b", "c")}
    now_s = (await era_of(stores["a"])).now_ms // 1000
    ticks = range(now_s - 9, now_s + 1)
    found = await asyncio.gather(*(start(stores[name], name, tick) for tick in ticks for name in stores))
    begun = [run for run in found if isinstance(run, ClusterRun)]
    assert sorted(run.key for run in begun) == [runs.tick_key(tick) for tick in ticks]
    early = await start(stores["a"], "a", now_s + 3_600)
    assert isinstance(early, NotStarted)
    assert 3_590_000 < early.early_ms <= 3_600_000
    oldest = min(begun, key=lambda run: run.due_at_ms)
    async with stores["b"].transaction() as tx:
        assert await runs.end_run(tx, oldest, DONE)
        assert not await runs.renew_run(tx, oldest, TTL), "it has ended"
        assert await runs.last_due_ms(tx, JOB) == now_s * 1000
        assert len(await runs.open_runs(tx, "job:")) == 9
        assert await runs.prune_runs(tx, JOB, 3) == 1, "of those that are older only one has ended"


async def test_a_request_is_claimed_by_one_node_and_once(cluster: ClusterGround) -> None:
    stores = {name: await cluster.node() for name in ("a", "b", "c")}
    async with stores["a"].transaction() as tx:
        for number in range(12):
            await runs.add_waiting(tx, "request:import", f"{number:02}", f"/in/{number}", "ana", "leave")
    found: list[ClusterRun] = []

    async def work(name: str) -> None:
        for _ in range(60):
            run = await claimed(stores[name], name, "request:import")
            if run is not None:
                found.append(run)
                async with stores[name].transaction() as tx:
                    assert await runs.end_run(tx, run, DONE)

    await asyncio.gather(*map(work, stores))
    assert sorted(run.key for run in found) == [f"{number:02}" for number in range(12)]
    assert {run.payload for run in found} == {f"/in/{number}" for number in range(12)}
    assert await claimed(stores["a"], "a", "request:other") is None
    assert {row[2] for row in await newest(stores["b"], "request:import")} == {"done"}


async def test_a_run_whose_node_is_lost_is_left_or_begun_again(cluster: ClusterGround) -> None:
    store = await cluster.node()
    now_s = (await era_of(store)).now_ms // 1000
    left = await started(store, "a", now_s - 1)
    again = await started(store, "a", now_s, "rerun")
    assert await given_up(store) == []
    await cluster.advance(TTL - 5_000)
    async with store.transaction() as tx:
        assert await runs.renew_run(tx, again, TTL)
    await cluster.advance(10_000)
    assert [run.key for run in await given_up(store)] == [left.key], "the other one was renewed"
    assert await claimed(store, "b", JOB) is None, "it is left"
    await cluster.advance(TTL)
    assert [run.key for run in await given_up(store)] == [again.key]
    second = await claimed(store, "b", JOB)
    assert second is not None
    assert (second.key, second.attempt, second.due_at_ms) == (again.key, 2, again.due_at_ms)
    async with store.transaction() as tx:
        assert not await runs.renew_run(tx, again, TTL), "the first attempt has to stop"
        assert not await runs.end_run(tx, again, DONE)
        assert await runs.end_run(tx, left, DONE), "no other attempt: how it ended is recorded"
        assert await runs.end_run(tx, second, Outcome("failed", 3, "exited with 3", ""))
    assert await newest(store) == [
        (again.key, 2, "failed", "b"),
        (again.key, 1, "lost", "a"),
        (left.key, 1, "done", "a"),
    ]


async def test_attempts_end(cluster: ClusterGround) -> None:
    store = await cluster.node()
    now_s = (await era_of(store)).now_ms // 1000
    await started(store, "a", now_s, "rerun")
    for attempt in range(2, runs.ATTEMPTS_MAX + 1):
        await cluster.advance(TTL + 1)
        await given_up(store)
        run = await claimed(store, "b", JOB)
        assert run is not None
        assert run.attempt == attempt
    await cluster.advance(TTL + 1)
    assert len(await given_up(store)) == 1
    assert await claimed(store, "b", JOB) is None


async def _forget(tx: Transaction, run: ClusterRun) -> None:
    """As a failover does that lost the last commits."""
    await tx.change("DELETE FROM instep_run WHERE key = $1", run.key)


async def test_a_failover_that_forgets_a_start_starts_no_tick_twice(cluster: ClusterGround) -> None:
    store = await cluster.node()
    now_s = (await era_of(store)).now_ms // 1000
    run = await started(store, "a", now_s)
    async with store.transaction() as tx:
        await _forget(tx, run)
    await cluster.move_to("second")
    assert isinstance(await start(store, "b", now_s), NotStarted), "the old server may have started it"
    await cluster.advance(5_000)
    assert isinstance(await start(store, "b", now_s + 5), ClusterRun), "later ticks go on at once"
    async with store.transaction() as tx:
        assert await runs.renew_run(tx, run, TTL), "the node that runs it brings it back"
        assert await runs.end_run(tx, run, DONE)
    assert (run.key, 1, "done", "a") in await newest(store)


async def test_a_failover_that_forgets_a_claim(cluster: ClusterGround) -> None:
    store = await cluster.node()
    async with store.transaction() as tx:
        await runs.add_waiting(tx, "request:import", "1", "", "ana", "leave")
    run = await claimed(store, "a", "request:import")
    assert run is not None
    async with store.transaction() as tx:
        await tx.change("UPDATE instep_run SET state = 'waiting', node = '', session = ''")
    await cluster.move_to("second")
    assert await claimed(store, "b", "request:import") is None, "quiet: the old server may have given it"
    async with store.transaction() as tx:
        assert await runs.renew_run(tx, run, TTL)
    await cluster.advance(TTL + 1_000)
    assert await claimed(store, "b", "request:import") is None
    assert [found.key for found in await given_up(store)] == ["1"]
