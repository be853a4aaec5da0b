"""Draws of a fault's rate or interval: each fault is in or out by itself, so that seeds differ in their mixture."""

from __future__ import annotations

from random import Random


class Draws:
    """From one stream."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng

    def maybe(self, share: float, low: float, high: float) -> float:
        """A probability, in this share of all seeds; else 0."""
        return round(self._rng.uniform(low, high), 4) if self._rng.random() < share else 0.0

    def every(self, share: float, low: int, high: int) -> int:
        """An interval, in this share of all seeds; else 0, which is never."""
        return self._rng.randrange(low, high) if self._rng.random() < share else 0
