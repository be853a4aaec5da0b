"""The hooks around a partner's switch that the machine does not know: freeze, thaw, repair, and on_failure.

Marks in the store outlive a crash: an application that was asked to freeze is thawed at least once, a pending repair
runs at least once. A thaw that fails is retried with back-off until it goes well, and the machine gets the trouble,
so that the line's standing shows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable

import msgspec

from instep.core.backoff import Backoff
from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import InstepError, UnavailableError
from instep.fleet.hooks.spec import HookCall
from instep.model.ids import Digest, FilesetName, HeadRef
from instep.model.standing import Standing, StandingRecord
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.hook_calls import run_slot
from instep.node.runtime.driver import monotonic_ms, own_error
from instep.node.runtime.one_task import OneTask
from instep.node.runtime.runtime import Runtime

THAW_AGAIN_MS = 1_000
"""The first pause before a failed thaw is retried; the longest is a poll interval."""
REPAIRED_KEPT = 16
_TELLING = (Standing.FAILING, Standing.BLOCKED)


class _Frozen(msgspec.Struct, frozen=True, array_like=True):
    """The switch that the application was frozen for: ``thaw`` gets it, also after a crash."""

    head: HeadRef | None = None
    base: HeadRef | None = None


class _Repairs(msgspec.Struct, frozen=True, array_like=True):
    """Which generations were repaired after they failed in the root ``path``, and which repair is pending."""

    path: str
    done: tuple[Digest, ...] = ()
    owed: _Frozen | None = None


class SwitchHooks:
    """One per followed fileset. ``fileset`` is replaced when the configuration changes; ``owed`` is called with the
    reason why the last thaw failed, and with None once it went well."""

    def __init__(
        self, runtime: Runtime, fileset: FilesetSettings, owed: Callable[[Trouble | None], None]
    ) -> None:
        self.runtime = runtime
        self.fileset = fileset
        self._tell = owed
        self._frozen_key = f"frozen:{fileset.name}"
        self._repair_key = f"repair:{fileset.name}"
        self._held = asyncio.Lock()
        """From freeze to thaw: a thaw that is retried never falls into a switch."""
        self._backoff = Backoff(random.Random())
        self._hurry = asyncio.Event()
        self._thawing = OneTask()
        self._is_owed = False

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
        async with self._held:
            self.runtime.store.put(self._frozen_key, msgspec.msgpack.encode(_Frozen(head, base)))
            try:
                trouble = await run_slot(self.runtime, self.fileset, self._call("freeze", head, base))
                if trouble is not None and must_freeze:
                    raise UnavailableError(trouble.reason, hint=trouble.hint, code="freeze_failed")
                yield
            finally:
                await self._thaw()

    async def _thaw(self) -> None:
        """Thaw when a mark says so; ``_held`` is held. The mark of one that failed stays, and it is retried."""
        raw = self.runtime.store.get(self._frozen_key)
        if raw is None:
            self._settled()
            return
        try:
            told = msgspec.msgpack.decode(raw, type=_Frozen)
        except msgspec.MsgspecError:
            told = _Frozen()  # a mark of before says only that
        try:
            trouble = await run_slot(self.runtime, self.fileset, self._call("thaw", told.head, told.base))
            if trouble is None:
                self.runtime.store.delete(self._frozen_key)
        except (InstepError, OSError) as error:
            trouble = trouble_of(own_error(error))
        if trouble is None:
            self._settled()
            return
        hint = (
            "the application may still be frozen: mend it or the hook; it is retried by itself, at once with: "
            f"instep retry {self.fileset.name}"
        )
        self._is_owed = True
        most_ms = self.runtime.settings.poll_ms
        self._backoff.fail("thaw", monotonic_ms(), min(THAW_AGAIN_MS, most_ms), most_ms)
        self._tell(Trouble("thaw_failed", trouble.reason, exit_code=UnavailableError.exit_code, hint=hint))
        if not self._thawing.is_running:
            self._thawing.begin(self._thaw_again())

    def _settled(self) -> None:
        self._backoff.clear("thaw")
        if self._is_owed:
            self._is_owed = False
            self._tell(None)

    async def _thaw_again(self) -> None:
        while self._is_owed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._backoff.wait_ms("thaw", monotonic_ms()) / 1000):
                    await self._hurry.wait()
            self._hurry.clear()
            async with self._held:
                if self._is_owed:
                    await self._thaw()

    def hurry(self) -> None:
        """Try a pending thaw now: an operator asked, or the configuration changed."""
        if self._is_owed:
            self._hurry.set()

    async def repair(self, head: HeadRef, base: HeadRef | None) -> None:
        """Run the repair for a failure of ``head`` in this root, once; the mark is written before and settled
        after."""
        if not self.fileset.hooks.repair:
            return
        known = self._repairs()
        if head.id in known.done:
            return
        owed = msgspec.structs.replace(known, owed=_Frozen(head, base))
        self.runtime.store.put(self._repair_key, msgspec.msgpack.encode(owed))
        await self._repair(owed)

    async def _repair(self, known: _Repairs) -> None:
        owed = known.owed
        assert owed is not None
        assert owed.head is not None
        await run_slot(self.runtime, self.fileset, self._call("repair", owed.head, owed.base))
        done = (*known.done, owed.head.id)[-REPAIRED_KEPT:]
        settled = _Repairs(known.path, done)
        self.runtime.store.put(self._repair_key, msgspec.msgpack.encode(settled))

    def _repairs(self) -> _Repairs:
        """The repairs recorded for this root; another root, or a mark of an older version, counts as none."""
        path = str(self.fileset.path)
        raw = self.runtime.store.get(self._repair_key)
        try:
            found = msgspec.msgpack.decode(raw, type=_Repairs) if raw is not None else _Repairs(path)
        except msgspec.MsgspecError:
            return _Repairs(path)
        return found if found.path == path else _Repairs(path)

    async def settle(self) -> None:
        """Run the steps that a crash left pending."""
        async with self._held:
            await self._thaw()
        known = self._repairs()
        if known.owed is not None and known.owed.head is not None:
            await self._repair(known)

    async def close(self) -> None:
        """End what is retried; its mark stays."""
        await self._thawing.close()


class FailureTeller:
    """Runs ``on_failure`` beside the work; of failures that come while it runs only the newest is reported."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._next: tuple[FilesetSettings, HookCall] | None = None
        self._task = OneTask()
        self._told: str | None = None

    def stands(self, fileset: FilesetSettings, record: StandingRecord, live: HeadRef | None) -> None:
        """Report a failing or blocked standing, once until its code changes."""
        code = record.code if record.standing in _TELLING else None
        if code == self._told:
            return
        self._told = code
        if code is not None and fileset.hooks.on_failure:
            call = HookCall("on_failure", fileset.name, live, None, code=code, reason=record.reason)
            self._next = (fileset, call)
            if not self._task.is_running:
                self._task.begin(self._tell())

    async def _tell(self) -> None:
        while self._next is not None:
            (fileset, call), self._next = self._next, None
            await run_slot(self._runtime, fileset, call)

    async def close(self) -> None:
        """End the running hook; the failure is reported again after the next start if it still stands."""
        await self._task.close()
