"""Short calls that the kernel may hold for ever, as a look at a dead mount: aside, few at once, with a deadline.

A thread that hangs in the kernel cannot be ended. It is counted until it comes back, and when too many hang the next
call is refused at once, so that neither threads nor the pool that everything else uses run out, and none of them keeps
the daemon from stopping.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class Hangs(Exception):
    """The call did not end in time, or so many hang already that it was not begun; the message says which."""


class Full(Hangs):
    """It was not begun."""


class Aside:
    """``most`` calls at once, each in a daemon thread of its own. Belongs to no loop: any may call."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._running = 0
        self._counting = threading.Lock()

    @property
    def running(self) -> int:
        """Calls that have not come back, also those that no caller waits for any more."""
        return self._running

    async def run(self, call: Callable[[], T], within_s: float) -> T:
        """What ``call`` returns or raises; ``Hangs`` when that takes longer than ``within_s``, ``Full`` when
        too many hang already."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        with self._counting:
            if self._running >= self._most:
                raise Full(f"{self._running} calls before it still hang; not begun")
            self._running += 1
        threading.Thread(target=self._work, args=(call, loop, future), name=self._name, daemon=True).start()
        try:
            async with asyncio.timeout(within_s):
                return await future
        except TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()
            raise Hangs(f"no answer within {within_s:g} s") from None

    def _work(
        self, call: Callable[[], T], loop: asyncio.AbstractEventLoop, future: asyncio.Future[T]
    ) -> None:
        settle: Callable[[], None]
        try:
            settle = partial(_answer, future, call())
        except Exception as error:  # noqa: BLE001  the waiting caller gets it
            settle = partial(_fail, future, error)
        finally:
            with self._counting:
                self._running -= 1
        with contextlib.suppress(RuntimeError):  # the loop was closed: no caller waits
            loop.call_soon_threadsafe(settle)


def _answer(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
