"""Waiting for a state of the daemon's services, with a deadline that names the missing part."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from instep.api.command import Document
from instep.errors import ContentionError
from instep.node.commands.control import Speaker
from instep.node.node import Node

Done = TypeVar("Done")
Result = TypeVar("Result", bound=Document)

POLL_S = 1.0
AGAIN = "run the same command again: it goes on"


def deadline_in(seconds: float) -> float:
    """The moment of the event loop's clock by which a command ends."""
    return asyncio.get_running_loop().time() + seconds


def left(deadline: float) -> float:
    """Seconds until then, at least a little, so that a last question can still be answered."""
    return max(1.0, deadline - asyncio.get_running_loop().time())


@contextlib.asynccontextmanager
async def works_of(*works: Coroutine[Any, Any, Done]) -> AsyncIterator[list[asyncio.Task[Done]]]:
    """The works as tasks, in the same order; one that still runs when the block ends is cancelled and awaited."""
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(work) for work in works]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def change_within(changed: asyncio.Event, seconds: float) -> None:
    """Wait for a change of the node that was taken hold of before the caller looked, or for that time, or a second."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(min(seconds, POLL_S)):
            await changed.wait()


async def until(
    node: Node, holds: Callable[[], bool], deadline: float, what: str | Callable[[], str]
) -> None:
    """Return once ``holds``; ``ContentionError`` with ``what`` is missing when the deadline passes."""
    loop = asyncio.get_running_loop()
    while True:
        changed = node.runtime.changed
        if holds():
            return
        rest = deadline - loop.time()
        if rest <= 0:
            raise ContentionError(what if isinstance(what, str) else what(), hint=AGAIN, code="timed_out")
        await change_within(changed, rest)


async def watched(
    node: Node, document: Callable[[], Result], speaker: Speaker, *, is_watched: bool
) -> Result:
    """The document as it is now; where it is watched, an item for every change first, until the daemon stops."""
    last: Result | None = None
    while is_watched and not node.stopping.is_set():
        changed = node.runtime.changed
        now = document()
        if now != last:
            await speaker.item(now)
            last = now
        await change_within(changed, POLL_S)
    return document()
