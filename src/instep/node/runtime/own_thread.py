"""A call that a dead file system may keep for ever: in a thread of its own, which no other work waits behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

R = TypeVar("R")


def in_own_thread(call: Callable[[], R]) -> asyncio.Future[R]:
    """The result of ``call``, or its error. Where it never comes back its thread ends with the process."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[R] = loop.create_future()

    def run() -> None:
        try:
            answer: Callable[[], None] = partial(_end, made, call())
        except BaseException as error:  # noqa: BLE001  raised where the call is awaited
            answer = partial(_fail, made, error)
        if not loop.is_closed():
            loop.call_soon_threadsafe(answer)

    threading.Thread(target=run, name="a call that may hang", daemon=True).start()
    return made


def _end(made: asyncio.Future[R], result: R) -> None:
    if not made.done():
        made.set_result(result)


def _fail(made: asyncio.Future[R], error: BaseException) -> None:
    if not made.done():
        made.set_exception(error)
