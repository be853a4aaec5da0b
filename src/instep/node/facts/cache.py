"""Gathering facts: each with a deadline, few at a time, at most once a second for a fileset however often asked for."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from instep.fleet.hooks.aside import Aside, Full, Hangs
from instep.model.ids import FilesetName
from instep.node.config.filesets import FilesetSettings
from instep.node.config.settings import Settings
from instep.node.facts import facts
from instep.node.facts.facts import Value, calls_for, calls_of

KEPT_S = 1.0
AT_ONCE = 4
HANGING_MAX = 32
TOGETHER_S = 15.0
"""The deadline of one gathering: a fact that is not known by then says so."""


@dataclass(frozen=True, slots=True)
class _Gathering:
    asked: tuple[object, ...]
    """The inputs of the answer: another configuration is another question."""
    began: float
    task: asyncio.Task[dict[str, Value]]


def _now_s() -> float:
    """By the event loop's own clock, as its deadlines are."""
    return asyncio.get_running_loop().time()


class FactCache:
    """One answer a fileset is kept; callers that ask meanwhile wait for the same one. A fact that hangs is not asked
    for again before it came back."""

    def __init__(self) -> None:
        self.key = os.urandom(32)
        """The key of this node's questions, fresh at each start."""
        self._known: dict[FilesetName, _Gathering] = {}
        self._aside = Aside("fact", HANGING_MAX)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._hanging: set[tuple[object, ...]] = set()

    async def facts(
        self, settings: Settings, fileset: FilesetSettings, names: Iterable[str]
    ) -> dict[str, Value]:
        """Facts for ``fileset``; at most ``KEPT_S`` older than the question."""
        asked = (settings.fingerprint, fileset, tuple(names))
        known = self._known.get(fileset.name)
        if known is None or known.asked != asked or (known.task.done() and _now_s() - known.began > KEPT_S):
            if known is not None and not known.task.done():
                await asyncio.wait((known.task,))
                return await self.facts(settings, fileset, asked[2])
            calls = calls_for(settings, fileset, asked[2])
            task = asyncio.get_running_loop().create_task(
                self._gather((settings.fingerprint, fileset.name), calls)
            )
            known = self._known[fileset.name] = _Gathering(asked, _now_s(), task)
        return dict(await asyncio.shield(known.task))

    async def of_node(self, settings: Settings) -> dict[str, Value]:
        """All facts that belong to no fileset, now."""
        return await self._gather((settings.fingerprint,), calls_of(settings))

    async def _gather(
        self, whose: tuple[object, ...], calls: Mapping[str, Callable[[], Value]]
    ) -> dict[str, Value]:
        until = _now_s() + TOGETHER_S
        found = await asyncio.gather(
            *(self._one((*whose, name), call, until) for name, call in calls.items())
        )
        return dict(zip(calls, found, strict=True))

    async def _one(self, key: tuple[object, ...], call: Callable[[], Value], until: float) -> Value:
        try:
            async with (
                asyncio.timeout_at(until),
                self._room,
            ):
                if key in self._hanging:
                    return "<still no answer to the last question>"
                self._hanging.add(key)
                return await self._aside.run(lambda: self._called(key, call), facts.FACT_S + 3.0)
        except Full as error:
            self._hanging.discard(key)
            return f"<{error}>"
        except Hangs as error:
            return f"<{error}>"
        except TimeoutError:
            return f"<not known within {TOGETHER_S:g} s>"
        except OSError as error:
            return f"<cannot be had: {error.strerror}>"

    def _called(self, key: tuple[object, ...], call: Callable[[], Value]) -> Value:
        """In the thread: whenever it comes back, the fact may be asked for again."""
        try:
            return call()
        finally:
            self._hanging.discard(key)
