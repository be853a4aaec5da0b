"""A partner's look at its disk while a generation waits for room: no watch of files reports that there is room again,
and the next attempt by the clock may be long."""

from __future__ import annotations

import asyncio

from instep.errors import InstepError
from instep.node.lines.line_service import LineService

LOOK_S = 2.0


class RoomWatch:
    """Has the line retried when there is enough room where there was too little at the look before."""

    def __init__(self, service: LineService) -> None:
        self._service = service
        self._was_short = False

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """A line that fails although there is room is left to its own back-off."""
        service = self._service
        if service.standing.code != "no_space" or service.machine.phase is not None:
            self._was_short = False
            return
        try:
            room = await service.worker.run(service.room_needed)
        except (InstepError, OSError):
            return  # the root is not there: its own watch reports that
        if room is None:
            return
        was_short, self._was_short = self._was_short, not room.is_enough
        if was_short and room.is_enough:
            await service.retry()
