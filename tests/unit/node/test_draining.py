"""Drains by cause, kept over a restart, and the balancers that have to know before a switch."""

from __future__ import annotations

import asyncio
import ipaddress

import msgspec
import pytest

from instep.net.task_group import TaskGroup
from instep.node.balance.listeners import is_prober
from instep.node.runtime.draining import (
    OPERATOR,
    PROBER_SEEN_MS,
    PROBERS_MAX,
    Draining,
    partner_key,
    rollout_key,
)
from instep.store.memory import MemoryStore


class Clock:
    def __init__(self) -> None:
        self.ms = 1_000_000

    def __call__(self) -> int:
        return self.ms


def draining(store: MemoryStore, clock: Clock) -> Draining:
    return Draining(lambda: store, lambda: None, now_ms=clock, today_ms=clock, linger_ms=0)


def ask(node: Draining, *names: str, times: int = 1) -> None:
    for _ in range(times):
        for name in names:
            node.answered(name, is_ready=not node.is_drained)


def test_a_node_is_drained_while_any_cause_holds_and_after_a_restart() -> None:
    store, clock = MemoryStore(), Clock()
    node = draining(store, clock)
    assert node.begin(OPERATOR, "kernel", clock.ms + 5_000)
    assert not node.begin(OPERATOR, "kernel", clock.ms + 5_000)
    assert node.begin(rollout_key("catalog"), "")
    assert node.end(OPERATOR)
    assert not node.end(OPERATOR)
    assert node.is_drained
    again = draining(store, clock)
    assert [drain.key for drain in again.reasons()] == ["rollout:catalog"]
    assert again.end(rollout_key("catalog"))
    assert not again.is_drained
    assert not draining(store, clock).is_drained


def test_a_drain_runs_out_by_itself() -> None:
    store, clock = MemoryStore(), Clock()
    node = draining(store, clock)
    node.begin(OPERATOR, "", clock.ms + 5_000)
    clock.ms += 5_000
    assert not node.is_drained
    assert node.reasons() == ()
    assert not node.end(OPERATOR)


def test_the_drain_of_an_earlier_version_is_taken_over() -> None:
    store = MemoryStore()
    store.put("drain", msgspec.msgpack.encode({"reason": "disk", "since_ms": 5, "until_ms": None}))
    node = draining(store, Clock())
    assert [(drain.key, drain.reason) for drain in node.reasons()] == [(OPERATOR, "disk")]
    node.end(OPERATOR)
    assert not draining(store, Clock()).is_drained


def test_probers_are_those_that_keep_asking_and_bounded() -> None:
    store, clock = MemoryStore(), Clock()
    node = draining(store, clock)
    ask(node, "10.0.0.1", times=2)
    ask(node, "someone with a browser")
    assert node.probers() == ("10.0.0.1",)
    node.answered("agent 10.0.0.2", is_ready=True, is_certain=True)
    assert node.probers() == ("10.0.0.1", "agent 10.0.0.2")
    ask(node, "agent 10.0.0.2")
    assert len(node.probers()) == 2, "certain once, certain for as long as it asks"
    clock.ms += PROBER_SEEN_MS + 1
    assert node.probers() == ()
    for number in range(PROBERS_MAX + 50):
        ask(node, f"p{number}", times=2)
    assert len(node.probers()) == PROBERS_MAX


async def test_told_out_waits_for_every_balancer_and_names_the_one_that_does_not_ask() -> None:
    store, clock = MemoryStore(), Clock()
    node = draining(store, clock)
    assert await node.told_out(0) == ()
    ask(node, "a", "b", times=2)
    node.begin(OPERATOR, "")
    async with TaskGroup() as group:
        waiting = group.create_task(node.told_out(10))
        await asyncio.sleep(0)
        ask(node, "a")
        await asyncio.sleep(0)
        assert not waiting.done()
        assert await node.told_out(0.01) == ("b",)
        ask(node, "b")
    assert waiting.result() == ()


async def test_told_in_wants_an_answer_of_ready_since_the_end() -> None:
    store, clock = MemoryStore(), Clock()
    node = draining(store, clock)
    node.begin(OPERATOR, "")
    ask(node, "a", times=2)
    node.begin(rollout_key("x"), "")
    node.end(OPERATOR)
    assert await node.told_in(0) == ()
    node.end(rollout_key("x"))
    assert await node.told_in(0.01) == ("a",)
    node.answered("a", is_ready=False)
    assert await node.told_in(0.01) == ("a",)
    ask(node, "a")
    assert await node.told_in(0.01) == ()


async def test_an_answer_of_an_earlier_drain_tells_nothing_of_this_one() -> None:
    store, clock = MemoryStore(), Clock()
    node = draining(store, clock)
    node.begin(OPERATOR, "")
    ask(node, "a", times=2)
    node.end(OPERATOR)
    node.begin(OPERATOR, "")
    assert await node.told_out(0.01) == ("a",)


def test_the_operator_takes_back_what_people_asked_for_and_not_a_rollout() -> None:
    node = draining(MemoryStore(), Clock())
    for key in (OPERATOR, partner_key("main"), rollout_key("catalog")):
        node.begin(key, "")
    assert node.end_asked()
    assert [drain.key for drain in node.reasons()] == ["rollout:catalog"]
    assert not node.end_asked()


@pytest.mark.parametrize(
    ("remote", "named", "counts"),
    [
        ("10.0.0.9", (), True),
        ("10.0.0.9", ("10.0.0.2/32",), False),
        ("10.0.0.2", ("10.0.0.2/32",), True),
        ("::ffff:10.0.0.2", ("10.0.0.2/32",), True),
        ("127.0.0.1", ("10.0.0.2/32",), True),
        ("fd00::9%eth0", ("fd00::/64",), True),
        (None, ("10.0.0.2/32",), False),
    ],
)
def test_where_balancers_are_named_nobody_else_is_waited_for(
    remote: str | None, named: tuple[str, ...], counts: bool
) -> None:
    assert is_prober([ipaddress.ip_network(each) for each in named], remote) is counts


async def test_with_both_listeners_closed_no_switch_waits_for_who_asked_before() -> None:
    clock = Clock()
    node = draining(MemoryStore(), clock)
    ask(node, "haproxy", times=2)
    node.begin(rollout_key("catalog"), "")
    async with TaskGroup() as group:
        waiting = group.create_task(node.told_out(30.0))
        await asyncio.sleep(0)
        node.nobody_can_ask()
    assert waiting.result() == ()
    assert node.probers() == ()
