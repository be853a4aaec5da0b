"""A group of tasks that never forgets that its own task was cancelled."""

from __future__ import annotations

import asyncio
import sys
from types import TracebackType

__all__ = ["TaskGroup"]


class TaskGroup(asyncio.TaskGroup):  # noqa: TID251  the one place
    """As ``asyncio.TaskGroup``. Before Python 3.13 that one raises only the errors of its tasks when its own task is
    cancelled in the same turn: a handler of these errors then goes on, and the task that waits for the end never sees
    it. Here the cancellation is raised."""

    _parent_cancel_requested: bool
    """Of the class above: the group cancelled its own task, so that its block ends."""
    _before: int
    """Cancellations of the group's task that were under way when it began."""

    async def __aenter__(self) -> TaskGroup:
        await super().__aenter__()
        self._before = _cancellations()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.version_info >= (3, 13):
            return await super().__aexit__(kind, error, trace)
        was_requested = self._parent_cancel_requested
        try:
            await super().__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            task = asyncio.current_task()
            if task is not None and self._parent_cancel_requested and not was_requested:
                task.uncancel()  # The group's own, made after its block had ended: it is never taken back.
            if _cancellations() > self._before:
                raise asyncio.CancelledError from group
            raise


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()
