"""The one way in which an example waits: ask again until it holds, give up at a deadline with the last answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Failed", "eventually", "eventually_seen"]

T = TypeVar("T")
_CLOCK = threading.Event()


class Failed(Exception):
    """The example did not show what it promises; the message says what was seen."""


def eventually(check: Callable[[], T], what: str, timeout_s: float = 30.0) -> T:
    """The first truthy answer of ``check``. An ``OSError`` is "not yet"."""

    def seen() -> tuple[bool, T]:
        answer = check()
        return bool(answer), answer

    return eventually_seen(seen, what, timeout_s)


def eventually_seen(check: Callable[[], tuple[bool, T]], what: str, timeout_s: float = 30.0) -> T:
    """The state that ``check`` saw when it first held; ``Failed`` with the state that was seen last."""
    deadline = time.monotonic() + timeout_s
    last: object = "nothing"
    while True:
        try:
            holds, answer = check()
        except OSError as error:
            last = error
        else:
            if holds:
                return answer
            last = answer
        if time.monotonic() > deadline:
            raise Failed(f"waited {timeout_s:g} s for {what}; last seen: {last}")
        _CLOCK.wait(0.05)
