"""Keeping what peers cause from filling the events log: the first few of a kind, then how many there were."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

WINDOW_MS = 60_000
EACH_MAX = 3
"""Lines of one kind and source in a window."""
ALL_MAX = 60
"""Lines of all kinds and sources in a window: a stranger may have many addresses."""
KEYS_MAX = 1_024


@dataclass(slots=True)
class _Window:
    began_ms: int
    told: int = 0
    hushed: int = 0


class Quiet:
    """Pure; the caller hands in a monotonic clock."""

    def __init__(self) -> None:
        self._windows: OrderedDict[Hashable, _Window] = OrderedDict()
        self._all = _Window(0)

    def take(self, key: Hashable, now_ms: int) -> int | None:
        """None when this event must not be logged, else how many of its kind came since the last logged one."""
        if now_ms - self._all.began_ms >= WINDOW_MS:
            self._all = _Window(now_ms)
        window = self._windows.get(key)
        hushed = 0
        if window is None:
            window = self._windows[key] = _Window(now_ms)
            while len(self._windows) > KEYS_MAX:
                self._windows.popitem(last=False)
        elif now_ms - window.began_ms >= WINDOW_MS:
            hushed = window.hushed
            window = self._windows[key] = _Window(now_ms)
        self._windows.move_to_end(key)
        if window.told >= EACH_MAX or self._all.told >= ALL_MAX:
            window.hushed += 1 + hushed
            return None
        window.told += 1
        self._all.told += 1
        return hushed
