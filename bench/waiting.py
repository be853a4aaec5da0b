"""The one way the bench waits: ask again until it is so, or say what was still awaited at the deadline."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["DeadlinePassed", "until"]


class DeadlinePassed(Exception):
    """The awaited state did not come in time; the message names it, and the state that was seen last."""


def until(ready: Callable[[], object], within_s: float, what: str, every_s: float = 0.002) -> None:
    """Return as soon as ``ready()`` is true; its last false value, if any, is shown when the time is over."""
    deadline = time.monotonic() + within_s
    while True:
        seen = ready()
        if seen is True or (seen and not isinstance(seen, str)):
            return
        if time.monotonic() > deadline:
            raise DeadlinePassed(
                f"{what}: not within {within_s:g} s" + (f" (last seen: {seen})" if seen else "")
            )
        time.sleep(every_s)
