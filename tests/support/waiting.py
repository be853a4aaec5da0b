"""The one way in which a test waits: ask again until it holds, fail at a deadline with the last answer."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

__all__ = ["crowding", "eventually", "eventually_async", "paced"]

_T = TypeVar("_T")
PATIENCE_S = 60.0
"""A deadline is for an event that never comes, not for one that comes late on a busy machine: a test waits at least
so long, and longer the more programs compete for each processor."""
CROWDED_MAX = 4.0
_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.1


def crowding() -> float:
    """How many programs compete for each processor: 1 where each has its own, and never more than counts here. A
    deadline in real seconds is multiplied by it, when it has come."""
    try:
        competing = os.getloadavg()[0] / (os.cpu_count() or 1)
    except OSError:
        return 1.0
    return min(max(competing, 1.0), CROWDED_MAX)


class _Nothing:
    def __repr__(self) -> str:
        return "nothing yet"


def eventually(
    check: Callable[[], _T],
    timeout: float = PATIENCE_S,
    describe: str | Callable[[], str] = "the expected state",
    *,
    patience_s: float = PATIENCE_S,
) -> _T:
    """The first truthy answer of ``check``, asked again until ``timeout`` seconds have passed, and ``patience_s`` at
    least.

    An ``AssertionError`` or ``OSError`` from ``check`` counts as "not yet". At the deadline the test fails
    with ``describe`` (text, or a function that renders the state of the world) and the last answer.
    """
    timeout = max(timeout, patience_s)
    begun = time.monotonic()
    pause = _FIRST_PAUSE_S
    clock = threading.Event()
    while True:
        last = _ask(check)
        if not isinstance(last, Exception) and last:
            return last
        if _is_over(begun, timeout):
            raise _gave_up(timeout, describe, last)
        clock.wait(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def paced(count: int, over_s: float) -> Iterator[int]:
    """The numbers below ``count``, spread over so many seconds: load, not a condition to wait for."""
    clock = threading.Event()
    first = time.monotonic()
    for number in range(count):
        clock.wait(max(0.0, first + over_s * number / count - time.monotonic()))
        yield number


async def eventually_async(
    check: Callable[[], Awaitable[_T]],
    timeout: float = PATIENCE_S,
    describe: str | Callable[[], str] = "the expected state",
) -> _T:
    """``eventually`` for a coroutine function; the loop keeps running meanwhile."""
    timeout = max(timeout, PATIENCE_S)
    begun = time.monotonic()
    pause = _FIRST_PAUSE_S
    last: object = _Nothing()
    while True:
        try:
            answer = await check()
        except (AssertionError, OSError) as error:
            last = error
        else:
            if answer:
                return answer
            last = answer
        if _is_over(begun, timeout):
            raise _gave_up(timeout, describe, last)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _is_over(begun: float, timeout: float) -> bool:
    passed = time.monotonic() - begun
    return passed >= timeout and passed >= timeout * crowding()


def _ask(check: Callable[[], _T]) -> _T | Exception:
    try:
        return check()
    except (AssertionError, OSError) as error:
        return error


def _gave_up(timeout: float, describe: str | Callable[[], str], last: object) -> AssertionError:
    wanted = describe if isinstance(describe, str) else describe()
    seen = f"{type(last).__name__}: {last}" if isinstance(last, Exception) else repr(last)
    return AssertionError(f"waited {timeout:g} s for {wanted}; last seen: {seen}")
