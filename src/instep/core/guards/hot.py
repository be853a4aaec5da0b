"""Files that change all the time: how they are noticed, and how seldom they are published.

A file is **hot** once its contents had moved on twice within half an hour when a partner asked for them; or once it is
large and was published eight times within a minute, as a log that grows: each of its versions is a whole copy in the
history and in every archive. From then on
it is published only with a copy of its contents in the history, so that all contents that a generation names can
always be had; and only now and then, so that the copies stay few and all else goes on at its own pace. Between, the
file is held at its last entry.

A quiet file is published at once. How long that takes to know depends on the file: a program that wrote every 50 ms
has ended after a second, one that wrote every two seconds has not. So a file is quiet once it was left alone for
several times the longest pause that was seen between two changes of it, for ``settle`` at least, for ``settle_max`` at
most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from instep.core.vocabulary import MachineWord

MISSES = 2
WINDOW_MS = 1_800_000
PACE_FIRST_MS = 30_000
PACE_MOST_MS = 600_000
QUIET_PAUSES = 4
"""A file is quiet after so many times its longest pause."""
PAUSES_WITHIN_MS = 60_000
"""Pauses that ended so long ago are forgotten."""
PAUSES_MAX = 32
LARGE_BYTES = 256 << 10
LARGE_TIMES = 8
LARGE_WITHIN_MS = 60_000
HOT_FILES_MAX = 1_000
"""Of more, the oldest is forgotten; it is noticed again."""


T = TypeVar("T")


class ContentMissed(MachineWord):
    """A partner asked for contents of a recent generation, and the file has other ones by now."""

    path: bytes


class Cooling(NamedTuple):
    """A hot file that is not published yet, unless it did not change for ``quiet_ms``."""

    path: bytes
    quiet_ms: int


class _Heat:
    """One file."""

    __slots__ = (
        "changed_at_ms", "is_hot", "last_ms", "missed_at_ms", "next_ms", "pace_ms", "pauses", "published_at_ms"
    )  # fmt: skip

    def __init__(self, now_ms: int) -> None:
        self.missed_at_ms: list[int] = []
        self.is_hot = False
        self.pace_ms = PACE_FIRST_MS
        self.next_ms = now_ms
        self.last_ms = now_ms
        self.published_at_ms: int | None = None
        self.changed_at_ms: int | None = None
        self.pauses: deque[tuple[int, int]] = deque(maxlen=PAUSES_MAX)
        """When each ended, and how long it was: the longest first, behind each only shorter ones that ended later."""

    def changed(self, now_ms: int, settle_max_ms: int) -> None:
        """A pause of ``settle_max`` is none: the file was quiet."""
        before, self.changed_at_ms = self.changed_at_ms, now_ms
        if before is None or now_ms - before >= settle_max_ms:
            return
        while self.pauses and self.pauses[-1][1] <= now_ms - before:
            self.pauses.pop()
        self.pauses.append((now_ms, now_ms - before))

    def quiet_ms(self, now_ms: int, settle_ms: int, settle_max_ms: int) -> int:
        while self.pauses and now_ms - self.pauses[0][0] > PAUSES_WITHIN_MS:
            self.pauses.popleft()
        if not self.pauses:
            return settle_max_ms
        return min(settle_max_ms, max(settle_ms, QUIET_PAUSES * self.pauses[0][1]))


def _renewed(table: dict[bytes, T], path: bytes, value: T) -> T:
    """Put the value of a path last in a table that forgets the first of too many."""
    table.pop(path, None)
    table[path] = value
    while len(table) > HOT_FILES_MAX:
        del table[next(iter(table))]
    return value


class HotFiles:
    """Not persisted: after a restart two misses are enough to know a file again."""

    def __init__(self) -> None:
        self._files: dict[bytes, _Heat] = {}
        self._large: dict[bytes, deque[int]] = {}
        """When large files were published last."""
        self._told: dict[bytes, None] = {}
        """Large files that were reported: each once."""

    def missed(self, path: bytes, now_ms: int) -> bool:
        """A partner asked for contents that the file no longer has. True when the file must be looked at now: this
        node cannot give the contents that the head names."""
        heat = _renewed(self._files, path, self._files.get(path) or _Heat(now_ms))
        heat.last_ms = now_ms
        heat.missed_at_ms = [at for at in heat.missed_at_ms if now_ms - at < WINDOW_MS][-MISSES:]
        heat.missed_at_ms.append(now_ms)
        if len(heat.missed_at_ms) < MISSES or heat.is_hot:
            return False
        heat.is_hot = True
        return True

    def large_published(self, paths: Iterable[bytes], now_ms: int) -> list[bytes]:
        """New contents of these large files were published by themselves. The ones that are hot by that, and were not
        reported before."""
        found: list[bytes] = []
        for path in paths:
            at_ms = _renewed(self._large, path, self._large.get(path) or deque(maxlen=LARGE_TIMES))
            at_ms.append(now_ms)
            heat = self._files.get(path)
            if len(at_ms) < LARGE_TIMES or now_ms - at_ms[0] >= LARGE_WITHIN_MS or (heat and heat.is_hot):
                continue
            _renewed(self._files, path, heat or _Heat(now_ms)).is_hot = True
            if path not in self._told:
                found.append(path)
            _renewed(self._told, path, None)
        return found

    def published(self, paths: Iterable[bytes], now_ms: int) -> None:
        """Copies of these files were kept and published."""
        for path in paths:
            heat = self._files.get(path)
            if heat is None:
                continue
            # A file that changes on and on is published more and more seldom.
            is_steady = heat.published_at_ms is not None and now_ms - heat.published_at_ms < 2 * heat.pace_ms
            heat.pace_ms = min(2 * heat.pace_ms, PACE_MOST_MS) if is_steady else PACE_FIRST_MS
            heat.next_ms = now_ms + heat.pace_ms
            heat.published_at_ms = heat.last_ms = now_ms

    def hot(self, now_ms: int) -> tuple[bytes, ...]:
        """The files to be published with a copy."""
        self._files = {p: h for p, h in self._files.items() if now_ms - h.last_ms < WINDOW_MS}
        return tuple(path for path, heat in self._files.items() if heat.is_hot)

    def changed(self, paths: Iterable[bytes], now_ms: int, settle_max_ms: int) -> None:
        """The watch saw these change."""
        for path in paths if self._files else ():
            heat = self._files.get(path)
            if heat is not None:
                heat.changed(now_ms, settle_max_ms)

    def cooling(self, now_ms: int, settle_ms: int, settle_max_ms: int) -> tuple[Cooling, ...]:
        """The hot files that are not published unless they are quiet."""
        return tuple(
            Cooling(path, heat.quiet_ms(now_ms, settle_ms, settle_max_ms))
            for path, heat in self._files.items()
            if heat.is_hot and now_ms < heat.next_ms
        )
