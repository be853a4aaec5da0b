"""A task that runs beside its owner, one at a time, and never outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any

log = logging.getLogger(__name__)


class OneTask:
    """As a context it ends with its owner: awaited where that went well, cancelled where it did not."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None

    @property
    def is_running(self) -> bool:
        return self._task is not None and not self._task.done()

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """The task before has ended, or its end is of no interest."""
        self._task = asyncio.get_running_loop().create_task(work)

    def begin_alone(self, work: Coroutine[Any, Any, Any]) -> None:
        """As ``begin``, for work that no caller will join: the task before is dropped, and an error of this one is
        logged."""
        self.drop()
        self.begin(work)
        assert self._task is not None
        self._task.add_done_callback(_log_error)

    def drop(self) -> None:
        """Cancel without waiting for the end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    async def join(self) -> None:
        """Wait for the end of the task, where there is one; its error is raised."""
        task, self._task = self._task, None
        if task is not None:
            try:
                await task
            finally:
                task.cancel()

    async def close(self) -> None:
        """Cancel and await it; how it ends does not matter any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def __aenter__(self) -> OneTask:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await (self.join() if kind is None else self.close())


def _log_error(task: asyncio.Task[Any]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("a task ended with an error", exc_info=error)
