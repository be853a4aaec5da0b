"""What a profile's hooks hear of its runs: paths that people should look at, and runs that failed.

A notice is saved before its hook runs, and forgotten when that ended: it outlives a restart. It is given once: paths
that wait for a review already, and a failure like the one before, are no news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
from blake3 import blake3

from instep.api.changes import sync as api
from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.spec import HookCall
from instep.model.counts import counted
from instep.model.paths import path_of_fields
from instep.node.config.sync import SyncSettings
from instep.node.lines.hook_calls import spec_of
from instep.node.runtime.runtime import Runtime

ON_COLLISION, ON_FAILED = "on_collision", "on_sync_failed"
PATHS_MAX = 10_000
_PENDING, _KNOWN = "sync/notice/", "sync/failure/"


class SyncNotice(msgspec.Struct, frozen=True, array_like=True):
    """The input of a hook that has not heard it yet."""

    code: str
    reason: str
    paths: tuple[bytes, ...] = ()


class SyncNotices:
    """One per node; ``run`` calls the hooks."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._wake = asyncio.Event()

    def ran(
        self, profile: SyncSettings, run: api.SyncRunDocument, new: Sequence[api.SyncListedDocument]
    ) -> None:
        """A run has ended; ``new`` are the paths that were not listed before."""
        if new:
            reason = f"{counted(len(new), 'path')} of {profile.name} to look at: {_first(new)}"
            self._keep(profile, ON_COLLISION, SyncNotice("sync_collisions", reason, _paths(new)))
        known, failure = f"{_KNOWN}{profile.name}", _failure(run)
        if failure is None:
            self._runtime.store.delete(known)
            return
        mark = blake3(msgspec.msgpack.encode((failure.code, failure.paths))).digest()
        if self._runtime.store.get(known) != mark:
            self._runtime.store.put(known, mark)
            self._keep(profile, ON_FAILED, failure)

    def missed(self, profile: SyncSettings, reason: str) -> None:
        """A tick of the schedule passed without a run."""
        self._keep(profile, ON_FAILED, SyncNotice("sync_missed", reason))

    def _keep(self, profile: SyncSettings, slot: str, notice: SyncNotice) -> None:
        if not getattr(profile.hooks, slot):
            return
        pending = self._pending(profile, slot)
        if pending is not None and slot == ON_COLLISION:
            paths = tuple(dict.fromkeys((*pending.paths, *notice.paths)))[:PATHS_MAX]
            notice = msgspec.structs.replace(notice, paths=paths)
        self._runtime.store.put(_key(profile, slot), msgspec.msgpack.encode(notice))
        self._wake.set()

    def _pending(self, profile: SyncSettings, slot: str) -> SyncNotice | None:
        raw = self._runtime.store.get(_key(profile, slot))
        return msgspec.msgpack.decode(raw, type=SyncNotice) if raw is not None else None

    async def run(self) -> None:
        while True:
            self._wake.clear()
            for profile in tuple(self._runtime.settings.sync.values()):
                for slot in (ON_COLLISION, ON_FAILED):
                    notice = self._pending(profile, slot)
                    if notice is not None:
                        await self._give(profile, slot, notice)
            await self._wake.wait()

    async def _give(self, profile: SyncSettings, slot: str, notice: SyncNotice) -> None:
        near = profile.left if profile.left.home == self._runtime.name else profile.right
        call = HookCall(
            slot,
            near.fileset,
            None,
            None,
            notice.paths,
            {"INSTEP_SYNC": profile.name},
            notice.code,
            notice.reason,
        )
        for hook in getattr(profile.hooks, slot):
            outcome = await run_hook(spec_of(hook), call)
            what = f"{slot} of {profile.name}"
            if outcome.ok:
                self._runtime.note(
                    "hook", f"{what} went well", attempts=outcome.attempts, profile=profile.name
                )
            else:
                said = outcome.output_tail[-2000:]
                reason = f"{what}: {outcome.explained}"
                self._runtime.note("hook_failed", reason, attempts=outcome.attempts, output=said)
        if self._pending(profile, slot) == notice:
            self._runtime.store.delete(_key(profile, slot))
        else:
            self._wake.set()


def _key(profile: SyncSettings, slot: str) -> str:
    return f"{_PENDING}{profile.name}/{slot}"


def _failure(run: api.SyncRunDocument) -> SyncNotice | None:
    """Why the run did not do all of its work."""
    if run.error is not None:
        word = "is held" if run.phase == "held" else "failed"
        return SyncNotice(run.error.code, f"the run of {run.profile} {word}: {run.error.reason}")
    if run.undone:
        left = counted(len(run.undone), "path")
        return SyncNotice("sync_undone", f"the run of {run.profile} left {left} undone", _paths(run.undone))
    return None


def _paths(
    documents: Sequence[api.SyncListedDocument] | Sequence[api.SyncUndoneDocument],
) -> tuple[bytes, ...]:
    return tuple(path_of_fields(each.path, each.path_b64) for each in documents[:PATHS_MAX])


def _first(listed: Sequence[api.SyncListedDocument]) -> str:
    more = len(listed) - 3
    return ", ".join(each.path for each in listed[:3]) + (f" and {more} more" if more > 0 else "")
