"""Publishing that waits: while a path of ``hold_while`` exists, such as git's lock, a program is half way through a
change of many files."""

from __future__ import annotations

from instep.core.vocabulary import Trouble
from instep.model.paths import shown

HOLD = "hold_while"
"""The code of a scan that was put off, and of the standing meanwhile."""
EXPIRED = "hold_expired"
HOLD_LOOK_MS = 1_000
HOLD_MOST_MS = 600_000
MOST = f"{HOLD_MOST_MS // 60_000} minutes"


class PublishHold:
    """Since when a path holds publishing, and whether that was long enough."""

    def __init__(self) -> None:
        self.trouble: Trouble | None = None
        """Why publishing waits now."""
        self.beside: bytes | None = None
        """The path that publishing waits for no more, though it is there."""
        self._since_ms: int | None = None
        self._look_ms = 0

    def is_waiting(self, now_ms: int) -> bool:
        """Whether the next look comes later."""
        return self.trouble is not None and now_ms < self._look_ms

    def may_wait(self, now_ms: int) -> bool:
        """Whether a scan may be put off, once more."""
        return self._since_ms is None or now_ms - self._since_ms < HOLD_MOST_MS

    def put_off(self, now_ms: int, trouble: Trouble) -> int:
        """A scan found a path there; the moment of the next look."""
        self.trouble = trouble
        self._since_ms = now_ms if self._since_ms is None else self._since_ms
        self._look_ms = min(now_ms + HOLD_LOOK_MS, self._since_ms + HOLD_MOST_MS)
        return self._look_ms

    def scanned(self, now_ms: int, path: bytes | None) -> bool:
        """A scan was made, with this path there or none; whether publishing goes on beside it from now on."""
        self.trouble = None
        if path is None:
            self._since_ms = self.beside = None
        if path is None or self.may_wait(now_ms):
            return False
        is_news, self.beside = path != self.beside, path
        return is_news


def beside_words(path: bytes) -> str:
    """That publishing does not wait any more."""
    return f"{shown(path)} has been there for {MOST}: changes are published without waiting for it"
