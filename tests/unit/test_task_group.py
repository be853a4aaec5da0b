"""A group of tasks is cancelled at the moment in which one of its tasks fails: its own task ends."""

from __future__ import annotations

import asyncio

from instep.errors import UnavailableError
from instep.net.task_group import TaskGroup

MOMENTS = range(6)
"""Turns of the loop between the child's failure and the cancellation."""


async def _is_cancelled(turns: int) -> bool:
    """Whether a task that carries on over the errors of its group ends when it is cancelled."""
    failing = asyncio.Event()

    async def child() -> None:
        await failing.wait()
        raise UnavailableError("the stream broke", code="closed")

    async def carry() -> None:
        while True:
            try:
                async with TaskGroup() as group:
                    group.create_task(child())
            except* UnavailableError:
                failing.clear()

    task = asyncio.get_running_loop().create_task(carry())
    await asyncio.sleep(0)
    failing.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return bool(done) and task.cancelled()


async def _each_moment() -> list[int]:
    return [turns for turns in MOMENTS if not await _is_cancelled(turns)]


def test_a_group_that_fails_while_it_is_cancelled_ends() -> None:
    assert asyncio.run(_each_moment()) == []


async def _fails_after_its_block() -> tuple[bool, int]:
    """Whether the errors of a task that fails once the block has ended are raised, and what counts as cancelled then."""

    async def child() -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        raise UnavailableError("the stream broke", code="closed")

    is_raised = False
    try:
        async with TaskGroup() as group:
            group.create_task(child())
    except* UnavailableError:
        is_raised = True
    task = asyncio.current_task()
    assert task is not None
    return is_raised, task.cancelling()


def test_a_task_that_fails_after_the_block_cancels_nobody() -> None:
    assert asyncio.run(_fails_after_its_block()) == (True, 0)
