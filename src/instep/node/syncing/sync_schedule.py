"""Runs of sync profiles at the ticks of their cron lines, started by the home that carries them out.

A tick that passes while this home is down, is in maintenance, or has a run of the profile under way is missed: it is
named and not made up for, as a run by night is not wanted in the morning. Which ticks are dealt with outlives restarts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec

from instep.core.cluster.schedule import ON_TIME_S, CatchUp, Schedule, due_ticks
from instep.core.sync.work import SyncWork
from instep.errors import InstepError
from instep.node.config.sync import SyncSettings
from instep.node.lines.snapshot import moment
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.syncing.notices import SyncNotices
from instep.node.syncing.sync_runs import SyncRuns

LOOK_S = 1.0
AUTHOR = "schedule"
_TICKS = "sync/ticks/"


class DealtTicks(msgspec.Struct, frozen=True, array_like=True):
    """Of a profile: up to which second the ticks of which schedule are dealt with, and the last one that was missed."""

    schedule: str
    until_s: int
    missed_s: int = 0
    reason: str = ""


class SyncSchedule:
    """One per node. ``is_resting`` says whether the node, or its cluster, is in maintenance."""

    def __init__(
        self, runtime: Runtime, runs: SyncRuns, is_resting: Callable[[], bool], notices: SyncNotices
    ) -> None:
        self._runtime = runtime
        self._notices = notices
        self._runs = runs
        self._is_resting = is_resting
        self._next: dict[str, tuple[str, int, int | None]] = {}
        """By profile: the schedule, the second after which, and the tick that was found."""

    async def run(self) -> None:
        while True:
            self.look(wall_ms() // 1000)
            changed = self._runtime.changed
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await changed.wait()

    def look(self, now_s: int) -> None:
        """Start the runs that are due, and name the ticks that were missed."""
        for profile in self._runtime.settings.sync.values():
            schedule = profile.schedule
            if schedule is not None and profile.carrier == self._runtime.name:
                self._look_at(profile, schedule, now_s)

    def _look_at(self, profile: SyncSettings, schedule: Schedule, now_s: int) -> None:
        dealt = self.dealt(profile)
        if dealt is None:
            self._save(profile, DealtTicks(_text(schedule), now_s))
            return
        tick = self._tick_after(profile.name, schedule, dealt.until_s)
        if tick is None or tick > now_s:
            return
        due = due_ticks(schedule, dealt.until_s, now_s, CatchUp.LATEST)
        self._save(profile, msgspec.structs.replace(dealt, until_s=now_s))
        if due:
            is_late = due[-1] < now_s - ON_TIME_S
            why = "this node was not running" if is_late else self._started(profile)
            if why is not None:
                self._miss(profile, due[-1], why)

    def _started(self, profile: SyncSettings) -> str | None:
        """Start a run; why not, else None."""
        if self._is_resting():
            return "it is in maintenance"
        work = SyncWork(AUTHOR, f"sync {profile.name} by its schedule", wall_ms())
        try:
            self._runs.begin(profile.name, work, self._runtime.name)
        except InstepError as error:
            return error.reason
        return None

    def _miss(self, profile: SyncSettings, tick_s: int, why: str) -> None:
        dealt = self.dealt(profile)
        assert dealt is not None
        self._save(profile, msgspec.structs.replace(dealt, missed_s=tick_s, reason=why))
        at = moment(tick_s * 1000)
        reason = f"the run of {profile.name} at {at} was missed: {why}"
        self._runtime.note("sync_missed", reason, profile=profile.name, tick=at)
        self._notices.missed(profile, reason)

    # --- what is known ------------------------------------------------------------------------------------------

    def next_s(self, profile: SyncSettings) -> int | None:
        """The next tick, as a UTC second."""
        schedule = profile.schedule
        return None if schedule is None else self._tick_after(profile.name, schedule, wall_ms() // 1000)

    def dealt(self, profile: SyncSettings) -> DealtTicks | None:
        """None with no schedule, or where it is a new one: its ticks count from now on."""
        raw, schedule = self._runtime.store.get(f"{_TICKS}{profile.name}"), profile.schedule
        found = msgspec.msgpack.decode(raw, type=DealtTicks) if raw is not None else None
        is_known = found is not None and schedule is not None and found.schedule == _text(schedule)
        return found if is_known else None

    def _tick_after(self, name: str, schedule: Schedule, after_s: int) -> int | None:
        """Kept until it has passed: a cron line costs more than a look once a second should."""
        text, known = _text(schedule), self._next.get(name)
        is_known = known is not None and known[0] == text and known[1] <= after_s
        if known is not None and is_known and (known[2] is None or known[2] > after_s):
            return known[2]
        found = schedule.next_after(after_s)
        self._next[name] = (text, after_s, found)
        return found

    def _save(self, profile: SyncSettings, dealt: DealtTicks) -> None:
        self._runtime.store.put(f"{_TICKS}{profile.name}", msgspec.msgpack.encode(dealt))


def _text(schedule: Schedule) -> str:
    return f"{schedule.line} {schedule.zone}"
