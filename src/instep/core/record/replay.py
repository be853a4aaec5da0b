"""Replay of a record: the same events to the same machine, and the first step that ends otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from instep.core.changes.home import HomeMachine
from instep.core.changes.offer import OfferMachine
from instep.core.follow.machine import FollowMachine
from instep.core.publish.machine import PublishMachine
from instep.core.record.recorder import FORMAT, RecordHead, StepLine, step_of
from instep.core.record.values import from_plain, to_plain
from instep.core.rollout.machine import RolloutMachine
from instep.errors import DamagedError


class _Machine(msgspec.Struct, frozen=True):
    machine: dict[str, Any]


@dataclass(frozen=True, slots=True)
class FlightRecord:
    """A loaded record: whose it is, the machine before the first event, the steps."""

    name: str
    version: str
    broken: str | None
    machine: Any
    steps: tuple[StepLine, ...]


@dataclass(frozen=True, slots=True)
class Replayed:
    """One step of a replay. ``difference`` is None where it ended as recorded; ``broken`` is the invariant that the
    machine broke in this step, now."""

    number: int
    at_ms: int
    event: str
    effects: tuple[str, ...]
    difference: str | None = None
    broken: str | None = None


def load(text: bytes) -> FlightRecord:
    """The record of a file; ``DamagedError`` when it is none, or one of another version."""
    lines = text.splitlines()
    try:
        if len(lines) < 2:
            raise ValueError(f"{len(lines)} lines, and a record has at least 2")
        head = msgspec.json.decode(lines[0], type=RecordHead)
        if head.format != FORMAT:
            raise ValueError(f"its format is {head.format!r}, and this version reads {FORMAT!r}")
        plain = msgspec.json.decode(lines[1], type=_Machine).machine
        steps = tuple(msgspec.json.decode(line, type=StepLine) for line in lines[2:])
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedError(
            f"this is no record of a machine: {error}",
            hint="give a file from records/ in the node directory, or make one: instep debug record FILESET",
            code="bad_record",
        ) from error
    machine = from_plain(plain)
    if not isinstance(machine, FollowMachine | PublishMachine | RolloutMachine | HomeMachine | OfferMachine):
        raise DamagedError(
            f"the record holds a {type(machine).__name__} where a machine belongs",
            hint="give a file from records/ in the node directory, or make one: instep debug record FILESET",
            code="bad_record",
        )
    return FlightRecord(head.name, head.version, head.broken, machine, steps)


def replay(record: FlightRecord) -> Iterator[Replayed]:
    """Each step in turn; ends after the first that differs or breaks an invariant."""
    for number, step in enumerate(record.steps, 1):
        event = from_plain(step.event)
        words = _words(event)
        try:
            effects = step_of(record.machine, event, step.at_ms, step.wall_ms)
        except Exception as error:  # noqa: BLE001  what broke the machine is what a replay shows
            broken = f"{type(error).__name__}: {error}"
            difference = None if step.effects is None else "recorded: no invariant broke; replayed: one did"
            yield Replayed(number, step.at_ms, words, (), difference, broken)
            return
        difference = _difference(step.effects, [to_plain(effect) for effect in effects])
        yield Replayed(number, step.at_ms, words, tuple(map(_words, effects)), difference)
        if difference is not None:
            return


def _difference(recorded: list[dict[str, Any]] | None, found: list[Any]) -> str | None:
    if recorded is None:
        return "recorded: an invariant broke; replayed: none did"
    for index in range(max(len(recorded), len(found))):
        then = recorded[index] if index < len(recorded) else None
        now = found[index] if index < len(found) else None
        if then != now:
            return f"effect {index + 1} recorded: {_shown(then)}; replayed: {_shown(now)}"
    return None


def _shown(plain: dict[str, Any] | None) -> str:
    return "none" if plain is None else _words(from_plain(plain))


def _words(value: object) -> str:
    return repr(value)
