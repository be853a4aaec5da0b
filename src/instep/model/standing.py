"""How a line stands on a node: always with reason, since, code and next step."""

from __future__ import annotations

import enum

import msgspec

from instep.model.ids import Count


class Standing(enum.Enum):
    """The words of the glossary, in rising order of how much they need a person."""

    IN_STEP = "in_step"
    APPLYING = "applying"
    BEHIND = "behind"
    OBSERVING = "observing"
    PAUSED = "paused"
    HELD = "held"
    UNKNOWN = "unknown"
    UNREACHABLE = "unreachable"
    DRIFTED = "drifted"
    BLOCKED = "blocked"
    FAILING = "failing"
    DAMAGED = "damaged"


class StandingRecord(msgspec.Struct, frozen=True, array_like=True):
    """``since_ms`` is wall clock, for showing; ``next_steps`` are sentences or commands."""

    standing: Standing
    since_ms: Count
    reason: str | None = None
    code: str | None = None
    next_steps: tuple[str, ...] = ()
