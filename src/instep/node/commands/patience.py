"""Waiting for a state of the daemon's services, with a deadline that names the missing part, and for a tree, which may
hang."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from instep.api.command import Command, Document
from instep.core.vocabulary import Trouble, error_of
from instep.errors import ContentionError, InstepError, UsageError
from instep.node.access.door import Handler
from instep.node.commands.control import Speaker
from instep.node.commands.targets import service_of
from instep.node.lines.line_service import LineService
from instep.node.node import Node

Done = TypeVar("Done")
Result = TypeVar("Result", bound=Document)

POLL_S = 1.0
LOOK_S = 0.5
"""Between looks at the root of a command that runs."""
SILENT = "root_silent"
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


def needing_its_tree(node: Node, handler: Handler) -> Handler:
    """The handler of a command that needs a tree; it raises ``root_silent`` while the root of that tree hangs.

    A call into a file system that hangs cannot be taken back. So a command that finds its root silent is refused before
    it begins, and takes no thread. One that began earlier is no longer waited for: one that only reads is cancelled,
    and one that changes something goes on by itself when the root answers again."""
    left: set[asyncio.Future[Document]] = set()

    @functools.wraps(handler)
    async def handle(asked: Command[Any], speaker: Any) -> Document:
        service = _service(node, asked)
        if service is None:
            return await handler(asked, speaker)
        if _silence(service.root.trouble) is not None:
            await service.root.look()
        if (trouble := _silence(service.root.trouble)) is not None:
            raise error_of(trouble)
        work = asyncio.get_running_loop().create_task(_carried_out(handler, asked, speaker))
        left.add(work)
        work.add_done_callback(left.discard)
        return await _while_it_answers(service, work, is_change=asked.is_audited)

    return handle


async def _carried_out(handler: Handler, asked: Command[Any], speaker: Any) -> Document:
    return await handler(asked, speaker)


async def _while_it_answers(
    service: LineService, work: asyncio.Future[Document], *, is_change: bool
) -> Document:
    is_kept = False
    try:
        while not work.done():
            await asyncio.wait([work], timeout=LOOK_S)
            if work.done():
                break
            await service.root.look()
            if (trouble := _silence(service.root.trouble)) is not None:
                is_kept = is_change
                raise _left(trouble, is_change=is_change)
        return work.result()
    finally:
        if not work.done():
            work.add_done_callback(_forget)
            if not is_kept:  # its end is not waited for: it may wait for the file system even then
                work.cancel()


def _forget(work: asyncio.Future[Document]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        work.exception()


def _silence(trouble: Trouble | None) -> Trouble | None:
    return trouble if trouble is not None and trouble.code == SILENT else None


def _service(node: Node, asked: Command[Any]) -> LineService | None:
    """The service whose tree the command needs; None where the command itself says that there is none."""
    named: str | None = getattr(asked, "fileset", None) or getattr(asked, "name", None)
    try:
        return service_of(node, named)
    except (UsageError, KeyError):
        return None


def _left(trouble: Trouble, *, is_change: bool) -> InstepError:
    error = error_of(trouble)
    if is_change:
        error.hint = f"{error.hint}; then see whether the command was carried out: instep status"
    return error
