"""The thread of a fileset's tree, as others see it that outlive its service."""

from __future__ import annotations

import asyncio
import threading

import pytest

from instep.errors import UnavailableError
from instep.net.task_group import TaskGroup
from instep.node.runtime.runtime import Worker


async def test_who_waits_in_the_queue_or_comes_later_is_told_that_the_service_has_ended() -> None:
    worker, begun, goes_on = Worker("w"), threading.Event(), threading.Event()

    def first() -> str:
        begun.set()
        assert goes_on.wait(60)
        return "done"

    async def refused() -> None:
        with pytest.raises(UnavailableError, match="has ended"):
            await worker.run(lambda: "never")

    async with asyncio.timeout(60), TaskGroup() as group:
        under_way = group.create_task(worker.run(first))
        await asyncio.to_thread(begun.wait, 10)
        queued = group.create_task(refused())
        given_up = group.create_task(worker.run(lambda: "never"))
        await asyncio.sleep(0)
        given_up.cancel()
        closing = group.create_task(asyncio.to_thread(worker.close))
        await queued
        goes_on.set()
        await closing
        await refused()
    assert given_up.cancelled()
    assert under_way.result() == "done"
