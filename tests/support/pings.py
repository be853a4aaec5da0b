"""Pings of a hostile writer: whether the partner at the other end of a stream took all that was sent to it."""

from __future__ import annotations

import asyncio
import itertools

from instep.errors import InstepError
from instep.net.messages import messages as m
from instep.net.service import PeerStream

__all__ = ["Pings"]

PONG_S = 10.0


class Pings:
    """For the loop that serves the streams."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1 << 40)
        self._waiting: dict[PeerStream, dict[int, asyncio.Future[bool]]] = {}
        """The pings without an answer, by the streams that last."""

    def begun(self, stream: PeerStream) -> None:
        self._waiting[stream] = {}

    def answered(self, number: int) -> None:
        for waiting in self._waiting.values():
            if number in waiting and not waiting[number].done():
                waiting[number].set_result(True)

    def ended(self, stream: PeerStream) -> None:
        for answer in self._waiting.pop(stream).values():
            if not answer.done():
                answer.set_result(False)

    async def is_answered(self, stream: PeerStream) -> bool:
        """Send a ping; False when the stream ends before its answer."""
        waiting = self._waiting.get(stream)
        if waiting is None:
            return False
        number = next(self._numbers)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting[number] = answer
        try:
            await stream.send(m.Ping(number))
            async with asyncio.timeout(PONG_S):
                return await answer
        except (InstepError, TimeoutError):
            return False
        finally:
            waiting.pop(number, None)
