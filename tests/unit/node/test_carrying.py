"""Messages to a line whose inbox is full: the newest of each kind waits, in order, and answers that rely on it wait."""

from __future__ import annotations

import asyncio

from instep.model.ids import LineId, fileset_name, node_name
from instep.net.messages import messages as m
from instep.net.task_group import TaskGroup
from instep.node.peers.carrying import LANE_MAX, Inbox, Lanes
from tests.support.virtual_time import in_virtual_time

A, B = (LineId(fileset_name(name), node_name("main")) for name in ("a", "b"))


class Room:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return self.event.is_set()

    async def room(self) -> None:
        await self.event.wait()


@in_virtual_time
async def test_the_newest_of_each_kind_waits_and_a_ping_passes_nothing() -> None:
    rooms = {A: Room(), B: Room()}
    lines: dict[LineId, Inbox] = dict(rooms)
    taken: list[m.StreamMessage] = []
    rooms[B].event.set()
    async with TaskGroup() as group:
        lanes = Lanes(lines, taken.append, group)
        for path in ("old", "new"):
            await lanes.put(m.OfferReply(A, True, path))
            await lanes.put(m.Nudge(A, path))
            await lanes.put(m.Ping(len(path)))
            await lanes.put(m.OfferReply(B, True, path))
        await lanes.put(m.Members(()))
        at_once = [m.OfferReply(B, True, "old"), m.OfferReply(B, True, "new"), m.Members(())]
        assert taken == at_once
        rooms[A].event.set()
    of_a = [m.OfferReply(A, True, "new"), m.Nudge(A, "old"), m.Nudge(A, "new")]
    assert taken[3:] == [*of_a, m.Ping(3)]


@in_virtual_time
async def test_what_waits_is_bounded_and_a_line_that_goes_away_holds_nothing_up() -> None:
    lines: dict[LineId, Inbox] = {A: Room()}
    taken: list[m.StreamMessage] = []
    nudges = [m.Nudge(A, f"{number}") for number in range(LANE_MAX + 1)]
    async with TaskGroup() as group:
        lanes = Lanes(lines, taken.append, group)
        for nudge in nudges[:-1]:
            await lanes.put(nudge)
        last = group.create_task(lanes.put(nudges[-1]))
        await asyncio.sleep(0)
        assert not taken and not last.done(), "the stream waits once a lane is full"
        del lines[A]
    assert taken == nudges
