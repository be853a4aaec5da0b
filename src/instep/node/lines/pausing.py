"""Pauses of a line, the same whether the line is written or followed here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from instep.core.vocabulary import Paused, Resumed
from instep.node.runtime.driver import call_at_wall_ms

__all__ = ["Pausing"]


class PausableFacts(Protocol):
    """The saved facts of a line, in either role."""

    @property
    def is_paused(self) -> bool: ...

    @property
    def paused_until_wall_ms(self) -> int | None: ...


class Pausing:
    """``post`` hands an event to the line's machine; ``facts`` returns the facts that it saved last."""

    def __init__(self, post: Callable[[Paused | Resumed], None], facts: Callable[[], PausableFacts]) -> None:
        self._post = post
        self._facts = facts

    def pause(self, reason: str, until_wall_ms: int | None = None) -> None:
        """Publish or apply nothing until ``resume``, or until the wall clock shows ``until_wall_ms``."""
        self._post(Paused(reason, until_wall_ms))
        call_at_wall_ms(until_wall_ms, self._end)

    def resume(self) -> None:
        """End a pause; nothing happens where there is none."""
        self._post(Resumed())

    def go_on(self) -> None:
        """The daemon was restarted: a pause from before ends when it was to end."""
        call_at_wall_ms(self._facts().paused_until_wall_ms, self._end)

    def _end(self, until_ms: int) -> None:
        """The wall clock shows the end of a pause; a pause that was set since then has its own end."""
        facts = self._facts()
        if facts.is_paused and facts.paused_until_wall_ms == until_ms:
            self.resume()
