"""The changes in a writer's tree since the last scan, and when they are due to be published (design section 5).

Without a trigger file a change is due ``settle`` after the last one, ``settle_max`` after the first at the
latest. With one, writing the trigger makes everything due after ``settle``; other changes alone wait for
``trigger_max``.
"""

from __future__ import annotations

from collections.abc import Iterable

DIRTY_MAX = 10_000
"""Paths kept one by one; beyond that the next scan is a full one."""

YOUNG_MS = 2_000
"""An entry younger than this at its stat is read again (the racy-entry rule)."""


class Unpublished:
    """Starts all dirty: a writer scans fully at start."""

    def __init__(self) -> None:
        self._paths: dict[bytes, None] = {}
        self._is_all = True
        self._taken: tuple[bytes, ...] = ()
        self._taken_all = False
        self._first_ms: int | None = None
        self._last_ms = 0
        self._is_triggered = False

    @property
    def is_dirty(self) -> bool:
        return self._is_all or bool(self._paths)

    @property
    def is_all(self) -> bool:
        """Whether the next scan looks at everything."""
        return self._is_all

    @property
    def is_touched(self) -> bool:
        """Whether the watcher saw a change since the last scan took what there was."""
        return self._first_ms is not None

    def touch(
        self, paths: Iterable[bytes], now_ms: int, *, everything: bool = False, trigger: bytes | None = None
    ) -> None:
        """Changes were seen now; they start or prolong the settling."""
        paths = tuple(paths)
        self.remember(paths, everything=everything)
        self._first_ms = now_ms if self._first_ms is None else self._first_ms
        self._last_ms = now_ms
        if trigger is None or everything or trigger in paths:
            self._is_triggered = True

    def remember(self, paths: Iterable[bytes], *, everything: bool = False) -> None:
        """To be scanned with the next scan, without making one due."""
        if not everything and not self._is_all:
            for path in paths:
                self._paths[path] = None
        if everything or len(self._paths) > DIRTY_MAX:
            self._is_all = True
        if self._is_all:
            self._paths.clear()

    def due_ms(self, settle_ms: int, settle_max_ms: int, trigger_max_ms: int) -> int | None:
        """When a scan is due; None when nothing waits."""
        if self._first_ms is None:
            return None
        if self._is_triggered:
            return min(self._last_ms + settle_ms, self._first_ms + settle_max_ms)
        return self._first_ms + trigger_max_ms

    def take(self) -> tuple[bytes, ...]:
        """The paths to scan now; empty means all."""
        self._taken, self._taken_all = tuple(self._paths), self._is_all
        self._paths.clear()
        self._is_all = False
        self._first_ms = None
        self._is_triggered = False
        return () if self._taken_all else self._taken

    def give_back(self) -> None:
        """The taken paths were not published: the next scan must look at them again."""
        self.remember(self._taken, everything=self._taken_all)
