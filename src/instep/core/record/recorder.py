"""The flight recorder: the last events of one machine, with the state of the machine before them.

It holds two stretches of events at most. Each begins with the whole machine as it was then, so that the events can be
replayed. A record is text: a line that names the machine, a line with the machine, then one line an event.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from instep.core.changes.home import HomeMachine
from instep.core.changes.offer import OfferMachine
from instep.core.record.values import to_plain
from instep.core.rollout.machine import RolloutMachine

FORMAT = "instep-record-1"
STRETCH_EVENTS = 250
"""So many events follow one copy of the machine; a record holds at least as many, and at most twice as many."""


@dataclass(slots=True)
class RecordedStep:
    """One event and the effects that the machine returned; None where it broke."""

    at_ms: int
    wall_ms: int
    event: object
    effects: tuple[object, ...] | None = None


class RecordHead(msgspec.Struct, frozen=True):
    """The first line of a record."""

    format: str
    name: str
    version: str
    events: int
    broken: str | None


class StepLine(msgspec.Struct, frozen=True):
    """A step as a line of a record."""

    at_ms: int
    wall_ms: int
    event: dict[str, Any]
    effects: list[dict[str, Any]] | None


@dataclass(slots=True)
class _Stretch:
    machine: bytes
    steps: list[RecordedStep] = field(default_factory=list)


def step_of(machine: Any, event: object, at_ms: int, wall_ms: int) -> tuple[Any, ...]:
    """One step; a rollout writes the wall clock down as well, and change sets are dated by it."""
    if isinstance(machine, RolloutMachine | HomeMachine | OfferMachine):
        effects: tuple[Any, ...] = machine.step(event, at_ms, wall_ms)  # type: ignore[arg-type]
    else:
        effects = machine.step(event, at_ms)
    return effects


class FlightRecorder:
    """Runs the steps of one machine and keeps the last of them."""

    def __init__(self, name: str, machine: Any) -> None:
        self.name = name
        self.broken: str | None = None
        """The invariant that the last step broke."""
        self._machine = machine
        self._before: _Stretch | None = None
        self._now = _Stretch(_copy_of(machine))

    def step(self, event: object, at_ms: int, wall_ms: int) -> tuple[Any, ...]:
        """The machine's effects. When the machine breaks, the event stays as the last one of the record."""
        if len(self._now.steps) >= STRETCH_EVENTS:
            self._before, self._now = self._now, _Stretch(_copy_of(self._machine))
        taken = RecordedStep(at_ms, wall_ms, event)
        self._now.steps.append(taken)
        try:
            taken.effects = step_of(self._machine, event, at_ms, wall_ms)
        except Exception as error:  # whatever broke the machine is recorded, and raised again
            self.broken = f"{type(error).__name__}: {error}"
            raise
        return taken.effects

    @property
    def last(self) -> list[RecordedStep]:
        """The steps that are kept, the oldest first."""
        return [*(self._before.steps if self._before else ()), *self._now.steps]

    def text(self, version: str) -> bytes:
        """The record as a file. ``version`` is that of this program."""
        first = self._before or self._now
        head = RecordHead(FORMAT, self.name, version, len(self.last), self.broken)
        lines = [msgspec.json.encode(head), first.machine, *(_line_of(step) for step in self.last)]
        return b"\n".join(lines) + b"\n"


def _copy_of(machine: object) -> bytes:
    return msgspec.json.encode({"machine": to_plain(machine)})


def _line_of(step: RecordedStep) -> bytes:
    effects = None if step.effects is None else [to_plain(effect) for effect in step.effects]
    return msgspec.json.encode(StepLine(step.at_ms, step.wall_ms, to_plain(step.event), effects))
