"""The ticks of a cron line in a time zone.

A tick is named by its UTC second, so that all nodes name it alike and no second has two ticks. Lines have five fields,
or six with the second first. As in Debian's cron, a line that names its minutes and hours keeps to the wall clock: a
time that summer time skips comes when the skipped time ends, and a time that is there twice comes the first time only.
A line whose minute or hour begins with ``*`` comes whenever the wall clock shows such a time.

The ``cronsim`` library knows the fields, and is asked about times without a zone only. With a zone it works in whole
hours, also where clocks move by half an hour (Lord Howe), and runs a line of six fields twice when clocks go back.
"""

from __future__ import annotations

import bisect
import enum
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError

LINE_MAX = 200
_CHECKED_FROM = datetime(2024, 1, 1)  # noqa: DTZ001 - a time on the wall, in no zone
"""A line must come within fifty years from here: they have each day of the year on each day of the week."""
_NEVER = "never comes: the calendar has no such day"
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


class CatchUp(enum.Enum):
    """The ticks that are started late, after a time in which no node could start them."""

    LATEST = "latest"
    NONE = "none"


ON_TIME_S = 10
"""A tick that is not later than this is started whatever ``catch_up`` says."""


class BadCronLine(ValueError):
    """The line cannot be used; the message completes the sentence "... because it"."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A cron line in a zone. ``schedule_of`` checks the line first."""

    line: str
    zone: tzinfo

    def next_after(self, at_s: int) -> int | None:
        """The first tick after a UTC second; None where none comes within fifty years."""
        now = datetime.fromtimestamp(at_s, UTC)
        found = self._next_named(now) if _names_times(self.line) else self._next_shown(now)
        return None if found is None else int(found.timestamp())

    def latest_in(self, after_s: int, until_s: int) -> int | None:
        """The last tick later than ``after_s`` and not later than ``until_s``."""

        def has_none_left(at_s: int) -> bool:
            tick = self.next_after(at_s)
            return tick is None or tick > until_s

        if after_s >= until_s or has_none_left(after_s):
            return None
        return bisect.bisect_left(range(until_s + 1), True, lo=after_s, key=has_none_left)

    def _next_named(self, now: datetime) -> datetime | None:
        """The wall clock has shown, or jumped over, all times up to the one that it shows now."""
        for time in CronSim(self.line, now.astimezone(self.zone).replace(tzinfo=None)):
            tick = self._first_shown(time)
            if tick > now:
                return tick
        return None

    def _first_shown(self, time: datetime) -> datetime:
        """The first moment at which the wall clock shows a time, or jumps over it."""
        tick = time.replace(tzinfo=self.zone, fold=0).astimezone(UTC)
        if tick.astimezone(self.zone).replace(tzinfo=None) == time:
            return tick
        jump = self._first_change(tick - _DAY, tick)
        assert jump is not None, "a time that the wall clock never shows lies in a jump"
        return jump

    def _next_shown(self, now: datetime) -> datetime | None:
        """Looks at one stretch of time after another, in each of which clocks are not moved."""
        begin = now + _SECOND
        while True:
            offset = self._offset(begin)
            time = next(CronSim(self.line, begin.replace(tzinfo=None) + offset - _SECOND), None)
            if time is None:
                return None
            tick = (time - offset).replace(tzinfo=UTC)
            change = self._first_change(begin, tick)
            if change is None:
                return tick
            begin = change

    def _offset(self, at: datetime) -> timedelta:
        offset = at.astimezone(self.zone).utcoffset()
        assert offset is not None
        return offset

    def _first_change(self, begin: datetime, end: datetime) -> datetime | None:
        """The first moment after ``begin``, ``end`` at the latest, from which on clocks have another offset."""
        before = self._offset(begin)
        while begin < end:
            until = min(begin + _DAY, end)
            if self._offset(until) != before:
                seconds = range(int((until - begin).total_seconds()) + 1)
                late = bisect.bisect_left(
                    seconds, True, key=lambda late: self._offset(begin + late * _SECOND) != before
                )
                return begin + late * _SECOND
            begin = until
        return None


def schedule_of(line: str, zone: tzinfo) -> Schedule:
    """The schedule of a cron line. ``BadCronLine`` where it is none, or where it never comes."""
    if len(line) > LINE_MAX:
        raise BadCronLine(f"is longer than {LINE_MAX} characters")
    if len(line.split()) not in (5, 6):
        raise BadCronLine(
            'is not a cron line of five fields such as "15 2 * * *", or six with the second first'
        )
    try:
        first = next(CronSim(line, _CHECKED_FROM), None)
    except CronSimError as error:
        if _is_line(line.split()):
            raise BadCronLine(_NEVER) from None
        raise BadCronLine(
            f"has a value for {str(error).removeprefix('Bad ')} that cron does not know"
        ) from None
    if first is None:
        raise BadCronLine(_NEVER)
    return Schedule(line, zone)


def due_ticks(schedule: Schedule, after_s: int, now_s: int, catch_up: CatchUp) -> tuple[int, ...]:
    """The ticks to start now, where all up to ``after_s`` are dealt with: each of the last seconds, or with none there
    the latest that was missed."""
    begin_s = max(after_s, now_s - ON_TIME_S)
    found = []
    tick = schedule.next_after(begin_s)
    while tick is not None and tick <= now_s:
        found.append(tick)
        tick = schedule.next_after(tick)
    if not found and catch_up is CatchUp.LATEST:
        late = schedule.latest_in(after_s, begin_s)
        return () if late is None else (late,)
    return tuple(found)


def _is_line(fields: list[str]) -> bool:
    """Whether each field is known to cron. It refuses the 30th of February with the words of a wrong day."""
    try:
        CronSim(" ".join([*fields[:-2], "*", fields[-1]]), _CHECKED_FROM)
        CronSim(" ".join([*fields[:-3], "*", *fields[-2:]]), _CHECKED_FROM)
    except CronSimError:
        return False
    return True


def _names_times(line: str) -> bool:
    """Whether the line names its minutes and hours; one with ``*`` there is about the time between two ticks."""
    minute, hour = line.split()[-5:-3]
    return not minute.startswith("*") and not hour.startswith("*")
