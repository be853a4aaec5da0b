"""A driver whose effects fail: the barrier holds, nothing is lost or done twice in a way that shows, nothing ends
it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from instep.errors import DamagedError, InstepError, ResourceError
from instep.node.runtime import driver as module
from instep.node.runtime.deferred import Deferred
from instep.node.runtime.driver import Driver
from instep.store.memory import MemoryStore
from tests.support.waiting import eventually_async

Effect = tuple[str, int]
EVENTS = 4


class Machine:
    """Saves each event and then sends it, as every machine of ours does."""

    def step(self, event: int, now_ms: int) -> tuple[Effect, ...]:
        return ("save", event), ("send", event), ("save", event * 10), ("send", event * 10)


@dataclass
class Disk:
    """A store whose writes fail from the n-th call on, ``times`` times; and the messages sent meanwhile."""

    fails_at: int
    error: Callable[[], Exception]
    times: int = 3
    calls: int = 0
    durable: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)

    async def perform(self, effect: Effect) -> None:
        kind, number = effect
        if kind == "save":
            self.calls += 1
            if self.fails_at <= self.calls < self.fails_at + self.times:
                raise self.error()
            self.durable.append(number)
        else:
            assert number in self.durable, "sent before it was durable"
            self.sent.append(number)


def full() -> Exception:
    return ResourceError("no space", code="store_full")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_MIN_S", 0.001)


async def until(check: Callable[[], bool], what: str) -> None:
    async def look() -> bool:
        return check()

    await eventually_async(look, 10, what)


async def run_events(
    disk: Disk, on_stuck: Callable[[InstepError | None], Awaitable[None]]
) -> Driver[int, Effect]:
    driver: Driver[int, Effect] = Driver("test", Machine(), disk.perform, lambda _: 0)
    driver.on_stuck = on_stuck
    for event in range(1, EVENTS + 1):
        driver.post(event)
    task = asyncio.get_running_loop().create_task(driver.run())
    try:
        await until(lambda: task.done() or len(disk.sent) == 2 * EVENTS, "all is sent")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return driver


@pytest.mark.parametrize(
    "error", [full, lambda: OSError(30, "Read-only file system"), lambda: OSError(5, "EIO")]
)
def test_a_store_that_fails_at_any_call_delays_and_changes_nothing(error: Callable[[], Exception]) -> None:
    for fails_at in range(1, 2 * EVENTS + 1):
        disk = Disk(fails_at, error)
        told: list[str | None] = []

        async def on_stuck(trouble: InstepError | None, told: list[str | None] = told) -> None:
            told.append(trouble.error_code if trouble is not None else None)

        driver = asyncio.run(run_events(disk, on_stuck))
        assert driver.failure is None
        assert disk.sent == [number for event in range(1, EVENTS + 1) for number in (event, event * 10)]
        assert len(told) == 2, told
        assert told[0] in ("store_full", "read_only", "disk_error")
        assert told[1] is None
        assert driver.stuck is None


def test_damage_and_broken_invariants_still_stop_the_line() -> None:
    async def on_stuck(trouble: InstepError | None) -> None:
        raise AssertionError(trouble)

    for error in (lambda: DamagedError("gone", code="state_lost"), lambda: AssertionError("broken")):
        disk = Disk(2, error)
        driver = asyncio.run(run_events(disk, on_stuck))
        assert driver.failure is not None
        assert disk.sent == [1]


def test_a_driver_that_is_cancelled_ends_as_cancelled_and_is_no_failure() -> None:
    async def go() -> None:
        disk = Disk(0, full)
        driver: Driver[int, Effect] = Driver("test", Machine(), disk.perform, lambda _: 0)
        driver.post(1)
        task = asyncio.get_running_loop().create_task(driver.run())
        await until(lambda: disk.sent == [1, 10], "it works")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert driver.failure is None

    asyncio.run(go())


def test_the_beginning_comes_before_what_was_asked_while_the_door_was_open_already() -> None:
    """Goal: an answer that no caller gets. A partner asked before the line ran, and the machine's start forgot it."""

    async def go() -> None:
        disk = Disk(0, full)
        driver: Driver[int, Effect] = Driver("test", Machine(), disk.perform, lambda _: 0)
        driver.post(2)
        driver.begin(1)
        task = asyncio.get_running_loop().create_task(driver.run())
        await until(lambda: len(disk.sent) == 4, "both are performed")
        assert disk.sent == [1, 10, 2, 20]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())


def test_an_operator_can_hurry_it_and_is_told_the_truth() -> None:
    async def go() -> None:
        disk = Disk(1, full, times=1_000_000)
        driver: Driver[int, Effect] = Driver("test", Machine(), disk.perform, lambda _: 0)
        driver.post(1)
        task = asyncio.get_running_loop().create_task(driver.run())
        await until(lambda: driver.stuck is not None, "it is stuck")
        with pytest.raises(ResourceError):
            await driver.hurry(0.1)
        disk.times = 0
        await driver.hurry(10)
        await until(lambda: disk.sent == [1, 10], "it went on")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(go())


def test_writes_that_may_come_late_keep_their_order_and_the_newest_of_a_key() -> None:
    store = MemoryStore()
    is_full = [True]

    def opened() -> MemoryStore:
        if is_full[0]:
            raise ResourceError("no space", code="store_full")
        return store

    noted: list[str] = []
    deferred = Deferred(opened, lambda kind, _: noted.append(kind))
    for number in range(3):
        deferred.append(lambda s, n=number: s.append_event(n, "kind", None, str(n), {}))  # type: ignore[misc]
        deferred.write("key", lambda s, n=number: s.put("key", b"%d" % n))  # type: ignore[misc]
    assert deferred.trouble is not None
    assert not deferred.flush()
    is_full[0] = False
    assert deferred.flush()
    assert [event.text for event in store.events()] == ["0", "1", "2"]
    assert store.get("key") == b"2"
    assert noted == ["state_unwritable", "state_writable"]
