"""The exam of pools and seats in every cluster database: the same numbers as the pure rules, from all nodes at once."""

from __future__ import annotations

import asyncio
import random

from instep.core.cluster.seats import PoolRules, Seat, SeatVerdict, judge, sat_down, stood_up, taken
from instep.store.cluster import agreements, seats
from instep.store.cluster.eras import current_era
from instep.store.cluster.port import ClusterStore
from tests.support.cluster_stores import ClusterGround
from tests.support.cluster_stores import cluster as cluster
from tests.support.cluster_stores import servers as servers

POOL = PoolRules("editors", "authorized", places=5, linger_ms=20_000, grace_ms=60_000)


async def declare(store: ClusterStore, rules: PoolRules = POOL, node: str = "a") -> seats.PoolState:
    async with store.transaction() as tx:
        return await seats.declare_pool(tx, rules, node)


async def sit(store: ClusterStore, user: str, node: str, kind: str = "authorized") -> SeatVerdict:
    async with store.transaction() as tx:
        state = await seats.lock_pool(tx, POOL.name)
        assert state is not None
        return (
            await seats.sit_down(tx, await current_era(tx), state, kind, (user, user.title()), (node, "boot"))
        )[0]


async def stand(store: ClusterStore, user: str, node: str, *, is_all: bool = False) -> bool:
    async with store.transaction() as tx:
        state = await seats.lock_pool(tx, POOL.name)
        assert state is not None
        return await seats.stand_up(tx, await current_era(tx), state, user, (node, "boot"), is_all=is_all)


async def renew(store: ClusterStore, node: str, **times: int) -> tuple[str, ...]:
    wanted = {user: (user.title(), count) for user, count in times.items()}
    async with store.transaction() as tx:
        state = await seats.lock_pool(tx, POOL.name)
        assert state is not None
        return await seats.renew_seats(tx, await current_era(tx), state, wanted, (node, "boot"))


async def users(store: ClusterStore) -> dict[str, dict[str, int]]:
    async with store.transaction() as tx:
        return {
            seat.user_key: {use.node: use.times for use in seat.uses} for seat in await seats.seated_users(tx)
        }


async def test_never_more_than_the_places(cluster: ClusterGround) -> None:
    stores = {name: await cluster.node() for name in ("a", "b", "c")}
    for name, store in stores.items():
        await declare(store, node=name)
    asks = [(f"user{number % 25}", name) for number in range(60) for name in stores]
    found = await asyncio.gather(*(sit(stores[name], user, name) for user, name in asks))
    seated = {user for (user, _), verdict in zip(asks, found, strict=True) if verdict is not SeatVerdict.FULL}
    assert len(seated) == POOL.places
    assert found.count(SeatVerdict.SEATED) == POOL.places
    for store in stores.values():
        assert (await users(store)).keys() == seated


async def test_it_counts_as_the_rules_do(cluster: ClusterGround) -> None:
    """Against the pure rules, over a random day: ten users on three nodes, some of which forget to renew."""
    store, chance = await cluster.node(), random.Random(7)
    await declare(store)
    twin: dict[str, Seat] = {}
    for _ in range(80):
        user, node = f"u{chance.randrange(8)}", chance.choice("abc")
        await cluster.advance(chance.choice((0, 0, 5_000, 30_000)))
        async with store.transaction() as tx:
            state = await seats.lock_pool(tx, POOL.name)
            assert state is not None
            era = await current_era(tx)
            now, seat = era.now_ms, twin.get(user)
            assert state.taken == taken(twin.values(), now)
            if chance.random() < 0.6:
                expected = judge(POOL, POOL.kind, seat, taken(twin.values(), now), now)
                verdict, _ = await seats.sit_down(tx, era, state, POOL.kind, (user, user), (node, "boot"))
                assert verdict is expected
                if verdict is not SeatVerdict.FULL:
                    twin[user] = sat_down(POOL, seat, node, now)
            else:
                had = await seats.stand_up(tx, era, state, user, (node, "boot"))
                assert had == (seat is not None and seat.ends_at_ms > now)
                if seat is not None and had:
                    twin[user] = stood_up(POOL, seat, node, now)


async def test_a_user_of_several_nodes_has_one_place_until_the_last_use_ends(cluster: ClusterGround) -> None:
    store = await cluster.node()
    await declare(store)
    assert [await sit(store, "ana", node) for node in ("a", "b", "a")] == [SeatVerdict.SEATED] + [
        SeatVerdict.ALREADY
    ] * 2
    assert await users(store) == {"ana": {"a": 2, "b": 1}}
    await cluster.advance(50_000)
    assert await renew(store, "b", ana=1) == ()
    await cluster.advance(20_000)
    assert await users(store) == {"ana": {"b": 1}}, "node a was lost"
    assert await renew(store, "a", ana=2) == ("ana",), "a use that has ended does not come back"
    assert await stand(store, "ana", "b")
    assert await users(store) == {"ana": {}}, "it lingers"
    await cluster.advance(POOL.linger_ms)
    assert await users(store) == {}
    assert not await stand(store, "ana", "b")


async def test_a_node_renews_its_users_as_they_are(cluster: ClusterGround) -> None:
    store = await cluster.node()
    await declare(store)
    for user in ("ana", "bo", "cy"):
        await sit(store, user, "a")
    await sit(store, "bo", "b")
    assert await renew(store, "a", ana=3) == ()
    assert await users(store) == {"ana": {"a": 3}, "bo": {"b": 1}, "cy": {}}
    async with store.transaction() as tx:
        assert await seats.own_uses(tx, "a", "boot") == {"editors": {"ana": ("Ana", 3)}}
        assert await seats.own_uses(tx, "a", "another boot") == {}
    assert await stand(store, "bo", "a", is_all=True)
    assert (await users(store)).keys() == {"ana", "cy"}
    assert await renew(store, "b", bo=1) == ("bo",), "an operator has released it"
    await cluster.advance(POOL.grace_ms)
    async with store.transaction() as tx:
        await seats.forget_free(tx)
        assert await tx.row("SELECT count(*) FROM instep_seat") == (0,)


async def test_a_failover_that_forgets_seats(cluster: ClusterGround) -> None:
    store = await cluster.node()
    await declare(store)
    await sit(store, "ana", "a")
    async with store.transaction() as tx:
        await tx.change("DELETE FROM instep_seat_use")
        await tx.change("DELETE FROM instep_seat")
    await cluster.move_to("second")
    assert await sit(store, "bo", "b") is SeatVerdict.QUIET
    assert await renew(store, "a", ana=1) == ()
    assert await sit(store, "ana", "b") is SeatVerdict.ALREADY
    await cluster.advance(POOL.grace_ms)
    assert await sit(store, "bo", "b") is SeatVerdict.SEATED


async def test_kinds_do_not_mix_and_the_last_change_counts(cluster: ClusterGround) -> None:
    store = await cluster.node()
    await declare(store)
    await declare(store, node="b")
    await sit(store, "ana", "a")
    other = POOL.__class__("editors", "floating", 9, 0, POOL.grace_ms)
    assert (await declare(store, other, "b")).rules == POOL, "a place is taken"
    assert await sit(store, "bo", "b", "floating") is SeatVerdict.OTHER_KIND
    assert await stand(store, "ana", "a", is_all=True)
    assert (await declare(store, other, "b")).rules == other
    assert (await declare(store)).rules == other, "node a has changed nothing"
    more = POOL.__class__("editors", "floating", 7, 0, POOL.grace_ms)
    assert (await declare(store, more)).rules == more
    async with store.transaction() as tx:
        assert await agreements.subjects_of(tx, "a") == ["pool:editors"]
        assert [node for _, node, _ in await agreements.declared(tx, "pool:")] == ["a", "b"]
        await agreements.withdraw(tx, "pool:editors", "a")
        assert await seats.lock_pool(tx, "editors") is not None
        await agreements.withdraw(tx, "pool:editors", "b")
        assert await seats.lock_pool(tx, "editors") is None
