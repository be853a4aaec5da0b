"""Numbered requests to a machine, and the callers that wait for its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

EventT = TypeVar("EventT")
AnswerT = TypeVar("AnswerT")


class Requests(Generic[EventT, AnswerT]):
    """``post`` hands an event to the machine."""

    def __init__(self, post: Callable[[EventT], None]) -> None:
        self._post = post
        self._number = 0
        self._waiting: dict[int, asyncio.Future[AnswerT]] = {}

    async def ask(self, make: Callable[[int], EventT], timeout_s: float) -> AnswerT:
        """Hand in the request that ``make`` makes of its number; return the answer. ``TimeoutError`` at the
        deadline."""
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
        """The machine answered; an answer for which no caller waits any more is dropped."""
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(answer)

    def close(self) -> None:
        """The machine has ended: no caller waits on."""
        for future in self._waiting.values():
            future.cancel()
