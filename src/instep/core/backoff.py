"""Waiting longer after each failure: exponential, jittered, bounded, one count a kind of work."""

from __future__ import annotations

from typing import Protocol

DOUBLINGS_MAX = 20


class Chance(Protocol):
    """Where jitter comes from: a ``random.Random`` fits. Handed in, because ``core`` draws nothing by
    itself."""

    def random(self) -> float: ...


class Backoff:
    """``fail`` says until when to wait; ``clear`` after a success; keys are a machine's own fixed names."""

    def __init__(self, rng: Chance) -> None:
        self._rng = rng
        self._count: dict[str, int] = {}
        self._until: dict[str, int] = {}

    def fail(self, key: str, now_ms: int, least_ms: int, most_ms: int) -> int:
        """Count a failure; the moment before which ``key`` is not ready again."""
        count = self._count.get(key, 0)
        self._count[key] = min(count + 1, DOUBLINGS_MAX)
        delay = min(most_ms, least_ms << count)
        self._until[key] = now_ms + max(1, round(delay * (0.5 + self._rng.random() / 2)))
        return self._until[key]

    def is_ready(self, key: str, now_ms: int) -> bool:
        return now_ms >= self._until.get(key, now_ms)

    def wait_ms(self, key: str, now_ms: int) -> int:
        """How long until ``key`` is ready; 0 when it is."""
        return max(0, self._until.get(key, now_ms) - now_ms)

    def come_due(self, key: str) -> None:
        """The timer fired: ready now, the count stays."""
        self._until.pop(key, None)

    def clear(self, key: str) -> None:
        self._count.pop(key, None)
        self._until.pop(key, None)

    def clear_all(self) -> None:
        self._count.clear()
        self._until.clear()
