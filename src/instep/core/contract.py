"""The contract of a machine as data: its phases, and the invariants that hold after every step."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

MachineT = TypeVar("MachineT")
EffectsT = TypeVar("EffectsT", bound=tuple[Any, ...])

REST = "rest"
"""The name of no phase: the machine waits for no answer."""

Invariant = Callable[[MachineT, tuple[Any, ...]], bool]
"""A named function over a machine and the effects of its last step. Its docstring is the sentence that holds."""


class Broken(AssertionError):
    """A machine broke one of its invariants. ``name`` is the function that states it."""

    def __init__(self, name: str, sentence: str) -> None:
        super().__init__(f"{name}: {sentence}")
        self.name = name
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """One phase: the effects that begin it, the events that end it, and the phases that may follow, by name.

    A machine is level triggered: after an event it begins what is missing most, so several phases may follow one."""

    phase: str
    effects: tuple[type, ...]
    events: tuple[type, ...]
    follows: str

    @property
    def next(self) -> tuple[str, ...]:
        return tuple(self.follows.split())


def check_all(invariants: Iterable[Invariant[MachineT]], machine: MachineT, effects: EffectsT) -> EffectsT:
    """The effects of a step, once every invariant holds; raises ``Broken`` for the first that does not."""
    for holds in invariants:
        if not holds(machine, effects):
            raise Broken(holds.__name__, sentence_of(holds))
    return effects


def sentence_of(invariant: Invariant[MachineT]) -> str:
    """What the invariant states, in one line."""
    return " ".join((inspect.getdoc(invariant) or invariant.__name__).split())
