"""One stream with a peer while it lasts: what waits is sent, what comes is handed in, line by line.

All lines of a peer share its stream. While the inbox of one line is full, the messages to this line wait beside the
stream, the newest of each kind as they are all levels, and the stream goes on for the other lines.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from instep.errors import InstepError
from instep.model.ids import LineId
from instep.net.messages import messages as m
from instep.net.service import PeerStream
from instep.net.task_group import TaskGroup

LANE_MAX = 64
"""Messages that wait for the room of one line; with more of them the stream waits, too."""
LOOK_AGAIN_S = 5.0
"""A line that waits for room may be gone by then."""
_LEVELS = (m.Epochs, m.Fresh, m.Head, m.HeadNotice, m.Nudge, m.Offer, m.OfferReply, m.OrderMessage, m.Report)
"""Messages that end in the inbox of their line. Of each the newest is enough: of reports for each node, of nudges for
each wish."""
_TO_ALL = (m.Ping, m.Pong)
"""The sender relies on the order: all that it sent before is handed in first."""

Lane = dict[tuple[object, ...], m.StreamMessage]


class Inbox(Protocol):
    """A line as its messages arrive."""

    @property
    def has_room(self) -> bool: ...

    async def room(self) -> None:
        """Return once there is room."""


class Lanes:
    """Hands messages to ``take``, those of a line only while its inbox has room."""

    def __init__(
        self,
        lines: Mapping[LineId, Inbox],
        take: Callable[[m.StreamMessage], None],
        group: TaskGroup,
    ) -> None:
        self._lines = lines
        self._take = take
        self._group = group
        self._lanes: dict[LineId | None, Lane] = {}
        """By line; None for messages to all lines, which wait for all of them."""
        self._tasks: dict[LineId | None, asyncio.Task[None]] = {}

    def close(self) -> None:
        """The stream has ended: what waits is lost, as with the stream. The next one brings the present state."""
        for task in self._tasks.values():
            task.cancel()

    async def put(self, message: m.StreamMessage) -> None:
        """Hand in one message, or let it wait in the lane of its line."""
        if not isinstance(message, _LEVELS + _TO_ALL):
            self._take(message)
            return
        line: LineId | None = getattr(message, "line", None)
        lane = self._lanes.get(line)
        if lane is None:
            if self._has_room(line):
                self._take(message)
                return
            lane = self._lanes[line] = {}
            self._tasks[line] = self._group.create_task(self._drain(line, lane))
        key = type(message), *(getattr(message, name, None) for name in ("node", "what", "number"))
        if key not in lane and len(lane) >= LANE_MAX:
            await asyncio.wait([self._tasks[line]])
            self._take(message)
        else:
            lane[key] = message

    def _has_room(self, line: LineId | None) -> bool:
        if line is None:
            return not self._lanes and all(inbox.has_room for inbox in self._lines.values())
        return line not in self._lines or self._lines[line].has_room

    async def _drain(self, line: LineId | None, lane: Lane) -> None:
        try:
            while lane:
                if line is None:
                    await self._all_room()
                else:
                    await self._room(line)
                self._take(lane.pop(next(iter(lane))))
        finally:
            del self._lanes[line], self._tasks[line]

    async def _all_room(self) -> None:
        for line in list(self._lines):
            await self._room(line)
        others = [task for line, task in self._tasks.items() if line is not None]
        if others:
            await asyncio.wait(others)

    async def _room(self, line: LineId) -> None:
        """Return once the line has room, or is not here any more."""
        while not self._has_room(line):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._lines[line].room()


async def carry(
    stream: PeerStream,
    lines: Mapping[LineId, Inbox],
    take: Callable[[m.StreamMessage], None],
    heard: Callable[[], None],
    sending: Coroutine[Any, Any, None],
) -> m.Goodbye | None:
    """Read until the stream ends, its last message a goodbye or none, with ``sending`` beside it. ``heard`` is called
    for each message as it comes. The first error of either side is raised."""
    failed: BaseException | None = None
    last: m.Goodbye | None = None
    try:
        async with TaskGroup() as group:
            pump = group.create_task(sending)
            lanes = Lanes(lines, take, group)
            try:
                while last is None and (message := await stream.receive()) is not None:
                    heard()
                    if isinstance(message, m.Goodbye):
                        last = message
                    else:
                        await lanes.put(message)
            finally:
                pump.cancel()
                lanes.close()
    except* (InstepError, OSError) as errors:
        failed = errors.exceptions[0]
    if failed is not None:
        raise failed
    return last
