"""Facts for peers: gathered at most once a second for a fileset, few at a time, however often they are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from instep.model.ids import FilesetName
from instep.node.facts import facts_for
from instep.node.settings import FilesetSettings, Settings

__all__ = ["FactCache"]

KEPT_S = 1.0
AT_ONCE = 2


@dataclass(frozen=True, slots=True)
class _Gathering:
    asked: tuple[object, ...]
    """What the answer depends on: another configuration is another question."""
    began: float
    task: asyncio.Task[dict[str, str]]


class FactCache:
    """One answer a fileset is kept; who asks meanwhile waits for the same one."""

    def __init__(self) -> None:
        self._known: dict[FilesetName, _Gathering] = {}
        self._room = asyncio.Semaphore(AT_ONCE)

    async def facts(
        self, settings: Settings, fileset: FilesetSettings, names: Iterable[str]
    ) -> dict[str, str]:
        """As ``facts_for``; at most ``KEPT_S`` older than the question."""
        asked = (settings.fingerprint, fileset, tuple(names))
        known = self._known.get(fileset.name)
        if (
            known is None
            or known.asked != asked
            or (known.task.done() and time.monotonic() - known.began > KEPT_S)
        ):
            if known is not None and not known.task.done():
                await asyncio.wait((known.task,))
                return await self.facts(settings, fileset, asked[2])
            task = asyncio.get_running_loop().create_task(self._gather(settings, fileset, asked[2]))
            known = self._known[fileset.name] = _Gathering(asked, time.monotonic(), task)
        return dict(await asyncio.shield(known.task))

    async def _gather(
        self, settings: Settings, fileset: FilesetSettings, names: tuple[str, ...]
    ) -> dict[str, str]:
        async with self._room:
            return await asyncio.to_thread(facts_for, settings, fileset, names)
