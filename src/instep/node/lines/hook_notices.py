"""Notices for hooks of slots that no machine waits for, such as ``on_collision``.

A notice is saved before its hooks run, and forgotten when they ended: it outlives a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.spec import HookCall
from instep.model.ids import FilesetName
from instep.node.config.hooks import HookSettings
from instep.node.lines.hook_calls import spec_of
from instep.node.runtime.runtime import Runtime

PATHS_MAX = 10_000


class HookNotice(msgspec.Struct, frozen=True, array_like=True):
    """The input of hooks that have not heard it yet."""

    code: str
    reason: str
    paths: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class NoticeSlot:
    """The hooks of one slot. ``key`` is where the state keeps their notice, ``owner`` what they belong to, for people;
    ``extra`` adds variables, ``facts`` what its events
    say beside. Where ``gathers`` is true the paths of notices that were not given yet add up."""

    key: str
    slot: str
    owner: str
    fileset: FilesetName
    hooks: tuple[HookSettings, ...]
    extra: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    gathers: bool = False


class HookNotices:
    """``slots`` are those that have notices now; ``run`` calls their hooks, ``wake`` lets it look again."""

    def __init__(self, runtime: Runtime, slots: Callable[[], Iterable[NoticeSlot]]) -> None:
        self._runtime = runtime
        self._slots = slots
        self._wake = asyncio.Event()

    def keep(self, slot: NoticeSlot, notice: HookNotice) -> None:
        """Save a notice where a hook is there to hear it. From any thread; ``wake`` afterwards."""
        if not slot.hooks:
            return
        before = self._kept(slot)
        if before is not None and slot.gathers:
            paths = tuple(dict.fromkeys((*before.paths, *notice.paths)))[:PATHS_MAX]
            notice = msgspec.structs.replace(notice, paths=paths)
        self._runtime.store.put(slot.key, msgspec.msgpack.encode(notice))

    def wake(self) -> None:
        self._wake.set()

    def _kept(self, slot: NoticeSlot) -> HookNotice | None:
        raw = self._runtime.store.get(slot.key)
        return msgspec.msgpack.decode(raw, type=HookNotice) if raw is not None else None

    async def run(self) -> None:
        while True:
            self._wake.clear()
            for slot in tuple(self._slots()):
                notice = self._kept(slot)
                if notice is not None:
                    await self._give(slot, notice)
            await self._wake.wait()

    async def _give(self, slot: NoticeSlot, notice: HookNotice) -> None:
        call = HookCall(
            slot.slot, slot.fileset, None, None, notice.paths, slot.extra, notice.code, notice.reason
        )
        what = f"{slot.slot} of {slot.owner}"
        for hook in slot.hooks:
            outcome = await run_hook(spec_of(hook), call)
            if outcome.ok:
                self._runtime.note("hook", f"{what} went well", attempts=outcome.attempts, **slot.facts)
            else:
                said = outcome.output_tail[-2000:]
                reason = f"{what}: {outcome.explained}"
                self._runtime.note(
                    "hook_failed", reason, attempts=outcome.attempts, output=said, **slot.facts
                )
        if self._kept(slot) == notice:
            self._runtime.store.delete(slot.key)
        else:
            self._wake.set()
