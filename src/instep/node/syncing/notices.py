"""What a profile's hooks hear of its runs: paths that people should look at, and runs that failed.

Each is given once: paths that wait for a review already, and a failure like the one before, are no news.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from blake3 import blake3

from instep.api.changes import sync as api
from instep.model.counts import counted
from instep.model.paths import path_of_fields
from instep.node.config.hooks import ON_COLLISION
from instep.node.config.sync import SyncSettings
from instep.node.lines.hook_notices import PATHS_MAX, HookNotice, HookNotices, NoticeSlot
from instep.node.runtime.runtime import Runtime

ON_FAILED = "on_sync_failed"
_PENDING, _KNOWN = "sync/notice/", "sync/failure/"


class SyncNotices(HookNotices):
    """One per node."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, self._slots_of_all)

    def _slots_of_all(self) -> Iterator[NoticeSlot]:
        for profile in tuple(self._runtime.settings.sync.values()):
            yield from (self._slot(profile, slot) for slot in (ON_COLLISION, ON_FAILED))

    def _slot(self, profile: SyncSettings, slot: str) -> NoticeSlot:
        near = profile.left if profile.left.home == self._runtime.name else profile.right
        return NoticeSlot(
            f"{_PENDING}{profile.name}/{slot}",
            slot,
            profile.name,
            near.fileset,
            getattr(profile.hooks, slot),
            {"INSTEP_SYNC": profile.name},
            {"profile": profile.name},
            gathers=slot == ON_COLLISION,
        )

    def ran(
        self, profile: SyncSettings, run: api.SyncRunDocument, new: Sequence[api.SyncListedDocument]
    ) -> None:
        """A run has ended; ``new`` are the paths that were not listed before."""
        if new:
            reason = f"{counted(len(new), 'path')} of {profile.name} to look at: {_first(new)}"
            self._notice(profile, ON_COLLISION, HookNotice("sync_collisions", reason, _paths(new)))
        known, failure = f"{_KNOWN}{profile.name}", _failure(run)
        if failure is None:
            self._runtime.store.delete(known)
            return
        mark = blake3(msgspec.msgpack.encode((failure.code, failure.paths))).digest()
        if self._runtime.store.get(known) != mark:
            self._runtime.store.put(known, mark)
            self._notice(profile, ON_FAILED, failure)

    def missed(self, profile: SyncSettings, reason: str) -> None:
        """A tick of the schedule passed without a run."""
        self._notice(profile, ON_FAILED, HookNotice("sync_missed", reason))

    def _notice(self, profile: SyncSettings, slot: str, notice: HookNotice) -> None:
        self.keep(self._slot(profile, slot), notice)
        self.wake()


def _failure(run: api.SyncRunDocument) -> HookNotice | None:
    """Why the run did not do all of its work."""
    if run.error is not None:
        word = "is held" if run.phase == "held" else "failed"
        return HookNotice(run.error.code, f"the run of {run.profile} {word}: {run.error.reason}")
    if run.undone:
        left = counted(len(run.undone), "path")
        return HookNotice("sync_undone", f"the run of {run.profile} left {left} undone", _paths(run.undone))
    return None


def _paths(
    documents: Sequence[api.SyncListedDocument] | Sequence[api.SyncUndoneDocument],
) -> tuple[bytes, ...]:
    return tuple(path_of_fields(each.path, each.path_b64) for each in documents[:PATHS_MAX])


def _first(listed: Sequence[api.SyncListedDocument]) -> str:
    more = len(listed) - 3
    return ", ".join(each.path for each in listed[:3]) + (f" and {more} more" if more > 0 else "")
