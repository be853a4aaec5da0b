"""The hooks around a partner's switch that the machine does not know: freeze, thaw, repair, and on_failure.

Marks in the store outlive a crash: who was asked to freeze is thawed at least once, an owed repair runs at least once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from instep.errors import UnavailableError
from instep.fleet.hooks import HookCall
from instep.model.ids import FilesetName, HeadRef
from instep.model.standing import Standing, StandingRecord
from instep.node.hooks import run_slot
from instep.node.runtime import Runtime
from instep.node.settings import FilesetSettings

__all__ = ["Around", "FailureTeller"]

_TELLING = (Standing.FAILING, Standing.BLOCKED)


class Around:
    """One per followed fileset. ``fileset`` is replaced when the configuration changes."""

    def __init__(self, runtime: Runtime, fileset: FilesetSettings) -> None:
        self.runtime = runtime
        self.fileset = fileset
        self._frozen_key = f"frozen:{fileset.name}"
        self._repair_key = f"repair:{fileset.name}"

    def _call(self, hook: str, head: HeadRef | None, base: HeadRef | None) -> HookCall:
        return HookCall(hook, FilesetName(self.fileset.name), head, base)

    @contextlib.asynccontextmanager
    async def frozen(
        self, head: HeadRef, base: HeadRef | None, *, must_freeze: bool = True
    ) -> AsyncIterator[None]:
        """Freeze before and thaw after. ``UnavailableError`` when the freeze fails and ``must_freeze``."""
        hooks = self.fileset.hooks
        if not hooks.freeze and not hooks.thaw:
            yield
            return
        self.runtime.store.put(self._frozen_key, b"1")
        try:
            trouble = await run_slot(self.runtime, self.fileset, self._call("freeze", head, base))
            if trouble is not None and must_freeze:
                raise UnavailableError(trouble.reason, hint=trouble.hint, code="freeze_failed")
            yield
        finally:
            await self.thaw(head, base)

    async def thaw(self, head: HeadRef | None = None, base: HeadRef | None = None) -> None:
        """Thaw when a mark says so. The mark of one that failed stays: it is thawed again at the next recovery or
        switch, and ``hook_failed`` is noted."""
        store = self.runtime.store
        if store.get(self._frozen_key) is None:
            return
        if await run_slot(self.runtime, self.fileset, self._call("thaw", head, base)) is None:
            store.delete(self._frozen_key)

    async def repair(self, head: HeadRef, base: HeadRef | None) -> None:
        """Run the repair for a failure of ``head``, once; the mark is written before and settled after."""
        if not self.fileset.hooks.repair:
            return
        store = self.runtime.store
        if store.get(self._repair_key) == b"done:" + head.id:
            return
        store.put(self._repair_key, b"owed:" + head.id)
        await run_slot(self.runtime, self.fileset, self._call("repair", head, base))
        store.put(self._repair_key, b"done:" + head.id)

    async def settle(self) -> None:
        """What a crash left owing."""
        await self.thaw()
        store = self.runtime.store
        mark = store.get(self._repair_key)
        if mark is not None and mark.startswith(b"owed:"):
            await run_slot(self.runtime, self.fileset, self._call("repair", None, None))
            store.put(self._repair_key, b"done:" + mark.removeprefix(b"owed:"))


class FailureTeller:
    """Runs ``on_failure`` beside the work; of failures that come while it runs only the newest is told."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._next: tuple[FilesetSettings, HookCall] | None = None
        self._task: asyncio.Task[None] | None = None
        self._told: str | None = None

    def stands(self, fileset: FilesetSettings, record: StandingRecord, live: HeadRef | None) -> None:
        """Tell a failing or blocked standing, once until its code changes."""
        code = record.code if record.standing in _TELLING else None
        if code == self._told:
            return
        self._told = code
        if code is not None and fileset.hooks.on_failure:
            call = HookCall("on_failure", fileset.name, live, None, code=code, reason=record.reason)
            self._next = (fileset, call)
            if self._task is None or self._task.done():
                self._task = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        while self._next is not None:
            (fileset, call), self._next = self._next, None
            await run_slot(self._runtime, fileset, call)

    async def close(self) -> None:
        """End what is being told; it is told again after the next start if it still stands."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
