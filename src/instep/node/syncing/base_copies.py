"""Copies of the bases of a profile at its other initiators, from where a promoted one goes on when the home is dead."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from instep.core.sync.table import Side
from instep.errors import InstepError
from instep.model.ids import FilesetName, NodeName
from instep.net.messages.syncing import BasesRequest
from instep.net.service import SYNC_BASES, PeerCalls
from instep.node.config.sync import SyncSettings
from instep.node.lines.line_service import LineService
from instep.node.profiles.bases import SyncBases
from instep.node.runtime.runtime import Runtime
from instep.node.syncing.base_fetch import fetched_base
from instep.node.syncing.sync_runs import SyncRuns

COPY_S = 30.0
log = logging.getLogger(__name__)


class BaseCopies:
    """One per node. ``service_of`` finds the line of a fileset, ``calls_of`` a partner that this node dials."""

    def __init__(
        self,
        runtime: Runtime,
        runs: SyncRuns,
        service_of: Callable[[FilesetName], LineService | None],
        calls_of: Callable[[NodeName], PeerCalls | None],
    ) -> None:
        self._runtime = runtime
        self._runs = runs
        self._service_of = service_of
        self._calls_of = calls_of

    async def run(self) -> None:
        while True:
            for profile in tuple(self._runtime.settings.sync.values()):
                if profile.carrier != self._runtime.name:
                    await self.copy(profile)
            with suppress(TimeoutError):
                async with asyncio.timeout(COPY_S):
                    await asyncio.Event().wait()

    async def copy(self, profile: SyncSettings) -> None:
        """Take the newest base of the home that carries the runs out, where this node follows that home."""
        carrier = profile.carrier
        near = next(profile.side(side) for side in Side if profile.side(side).home == carrier)
        service, calls = self._service_of(near.fileset), self._calls_of(carrier)
        if service is None or service.writer != carrier or calls is None:
            return
        bases = SyncBases(self._runtime.store, profile)
        try:
            newest = (await calls.call(SYNC_BASES, BasesRequest(service.line, profile.name, None))).base
            if newest is None or any(each.mark == newest.mark for each in bases.kept()):
                return
            with self._runs.busy():
                base = await fetched_base(self._runtime, calls, service.line, profile.name, newest.mark)
                if base is not None:
                    bases.take(bases.pair, base)
        except InstepError as error:  # the next look asks again
            log.info("%s gave no base of %s: %s", carrier, profile.name, error.reason)
