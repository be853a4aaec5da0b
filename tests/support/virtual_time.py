"""An event loop whose idle time is skipped: a test of services waits for work that is done, never for a clock.

Time stands still while a coroutine, a thread or the kernel has something to do, however slow the machine is. When
nothing is left to do before the next timer, time jumps there.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, ParamSpec

from instep.node.runtime.driver import clocks, set_clocks, skip_time
from tests.support.waiting import crowding

__all__ = ["PATIENCE_S", "in_virtual_time", "reached"]

PATIENCE_S = 60.0
"""How long a test waits by the loop's own clock, which a busy machine does not move."""
LOOK_S = 0.01
LOOK_MAX_S = 2.0
_LOST_S = 1e-6
"""Added to each jump, so that rounding never leaves a timer just ahead."""
_SLICE_S = 0.02
_STUCK_S = 60.0
"""A thread that does not come back within so many real seconds hangs."""

P = ParamSpec("P")


class _Selector(selectors.DefaultSelector):
    """Asks the kernel, waits for threads, and else skips the time until the next timer."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or (timeout is not None and timeout <= 0):
            return found
        begun = time.monotonic()
        while timeout is None or self.loop.is_thread_busy():
            found = super().select(
                _SLICE_S
            )  # a thread that has answered lives on for a moment: it wakes nothing
            if found:
                return found
            passed = time.monotonic() - begun
            assert passed < _STUCK_S or passed < _STUCK_S * crowding(), (
                f"no thread came back and no file was ready within {_STUCK_S:g} s, or longer on a busy machine"
            )
        found = super().select(0)  # a thread that came back a moment ago has woken the loop
        if not found:
            self.loop.skip(timeout)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` begins at nought. ``skip`` also moves the clocks of the node's machines; with the loop ends all that
    moved them meanwhile, by the test's own hand too."""

    def __init__(self) -> None:
        self._clocks = clocks()
        self._now_s = 0.0
        self._in_threads = 0
        self._before = set(threading.enumerate())
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self._now_s

    def skip(self, by_s: float) -> None:
        self._now_s += by_s + _LOST_S
        skip_time(by_s + _LOST_S)

    def is_thread_busy(self) -> bool:
        """A call runs in a pool, or in a thread of its own; threads of pools that wait for work are no daemons."""
        return self._in_threads > 0 or any(
            thread.daemon for thread in threading.enumerate() if thread not in self._before
        )

    def run_in_executor(  # type: ignore[override]  # of any arguments, as the real one
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        made = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        made.add_done_callback(self._came_back)
        return made

    def _came_back(self, _: object) -> None:
        self._in_threads -= 1

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Without a deadline: a thread joins the pool, and the loop's clock would not wait for that."""
        await super().shutdown_default_executor()

    def close(self) -> None:
        set_clocks(self._clocks)
        super().close()


def in_virtual_time(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Make a test of a coroutine function that runs in a loop of its own."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


async def reached(
    check: Callable[[], Awaitable[bool]], describe: Callable[[], str], within_s: float = PATIENCE_S
) -> None:
    """Return once ``check`` holds; fail with ``describe()`` when it does not within so much of the loop's time."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + within_s, LOOK_S
    while not await check():
        assert loop.time() < until, f"not within {within_s:g} s of virtual time: {describe()}"
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, LOOK_MAX_S)
