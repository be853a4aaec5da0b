"""Numbered requests to a machine or a peer, and the callers that wait for the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

EventT = TypeVar("EventT")
AnswerT = TypeVar("AnswerT")


class Requests(Generic[EventT, AnswerT]):
    """``post`` hands a request on."""

    def __init__(self, post: Callable[[EventT], None]) -> None:
        self._post = post
        self._number = 0
        self._waiting: dict[int, asyncio.Future[AnswerT]] = {}
        self._gone: Callable[[], Exception] | None = None

    async def ask(self, make: Callable[[int], EventT], timeout_s: float) -> AnswerT:
        """Hand on the request that ``make`` makes of its number; return the answer. ``TimeoutError`` at the
        deadline, and the error of ``close`` once there is one."""
        if self._gone is not None:
            raise self._gone()
        self._number += 1
        number = self._number
        future: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            self._post(make(number))
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self._waiting.pop(number, None)

    def answer(self, number: int, answer: AnswerT) -> None:
        """The answer came; one for which no caller waits any more is dropped."""
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(answer)

    def close(self, gone: Callable[[], Exception] | None = None) -> None:
        """The other side has ended: no caller waits on; with ``gone`` these and all later callers get that error."""
        self._gone = gone
        for future in self._waiting.values():
            if gone is None:
                future.cancel()
            elif not future.done():
                future.set_exception(gone())
