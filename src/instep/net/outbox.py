"""Messages that wait to leave for one partner: of each kind that is a level the newest for each line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from instep.model.ids import LineId
from instep.net.messages import messages as m
from instep.net.service import PeerStream

OTHERS_MAX = 2_048
"""Messages that wait to leave. All offers of a node fit."""


class Outbox:
    """Heads to a slow partner are replaced by newer ones, never queued: the newest is enough."""

    def __init__(self) -> None:
        self._heads: dict[LineId, m.StreamMessage] = {}
        self._notices: dict[LineId, m.StreamMessage] = {}
        self._words: dict[LineId, m.StreamMessage] = {}
        self._orders: dict[LineId, m.StreamMessage] = {}
        self._others: list[m.StreamMessage] = []
        self._members_due = False
        self._wake = asyncio.Event()

    def put(self, message: m.Head | m.HeadNotice | m.Fresh | m.OrderMessage) -> None:
        """In place of one of its kind and line that still waits."""
        match message:
            case m.Head(line):
                self._heads[line] = message
            case m.HeadNotice(line):
                self._notices[line] = message
            case m.Fresh(line):
                self._words[line] = message
            case m.OrderMessage(line):
                self._orders[line] = message
        self._wake.set()

    def add(self, message: m.StreamMessage) -> bool:
        """Behind the others; False where too many wait."""
        if len(self._others) >= OTHERS_MAX:
            return False
        self._others.append(message)
        self._wake.set()
        return True

    def put_members(self) -> None:
        self._members_due = True
        self._wake.set()

    @property
    def waiting(self) -> int:
        """How many messages wait that are no levels."""
        return len(self._others)

    async def pump(self, stream: PeerStream, members: Callable[[], m.Members]) -> None:
        """Send what waits, for ever. A word comes after the heads, and an order is about a head that the partner has
        already."""
        levels = (self._heads, self._notices, self._words, self._orders)
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._others or self._members_due or any(levels):
                if self._others:
                    await stream.send(self._others.pop(0))
                elif self._members_due:
                    self._members_due = False
                    await stream.send(members())
                else:
                    first = next(level for level in levels if level)
                    await stream.send(first.pop(next(iter(first))))
