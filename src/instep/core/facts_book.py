"""What machines with durable facts have in common: the facts, numbers for requests, and notes."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from instep.core import vocabulary as w

FactsT = TypeVar("FactsT", bound=Any)
EffectT = TypeVar("EffectT")


class FactsBook(Generic[FactsT, EffectT]):
    """``facts`` are what the machine saved last. Effects of the present step collect in ``_out``."""

    def __init__(self, facts: FactsT) -> None:
        self._facts = facts
        self._saved: FactsT | None = facts
        self._out: list[EffectT | w.Note] = []
        self._last_req = 0

    @property
    def facts(self) -> FactsT:
        return self._facts

    def _set(self, **changes: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **changes)

    def _next_req(self) -> int:
        self._last_req += 1
        return self._last_req

    def _note(self, what: str, text: str, **facts: object) -> None:
        self._out.append(w.Note(what, text, tuple(facts.items())))
