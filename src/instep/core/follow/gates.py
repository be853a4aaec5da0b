"""Gates: the relations that must hold between a fact of the writer and the same fact here before a generation is
applied.

A gate is a short text that travels in the definition: ``NAME``, ``NAME >=``, ``NAME contains``, each optionally with a
literal that stands for the writer's value: ``java >= 17``, ``plugins contains wps``, ``mode = production``.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

CLOCK = "clock"
BUILT_IN = ("instep", "protocol", "platform", "path", "mount", "run_as", "user", "service", "access", CLOCK)
"""Names that ``[facts]`` cannot take."""
GATES_MAX = 64
LITERAL_MAX = 200
SKEW_MAX_MS = 300_000
_TEXT = re.compile(r"([a-z][a-z0-9_-]{0,62})(?: (=|>=|contains)(?: ([!-~](?:[ -~]*[!-~])?))?)?")
_PART = re.compile(r"[0-9]+|[a-z]+")


class BadGate(ValueError):
    """A text that is no gate; the message says why."""


class Comparator(enum.Enum):
    EQUAL = "="
    AT_LEAST = ">="
    CONTAINS = "contains"


@dataclass(frozen=True, slots=True)
class Gate:
    name: str
    comparator: Comparator = Comparator.EQUAL
    literal: str | None = None
    """Stands for the writer's value."""

    def __str__(self) -> str:
        if self.literal is not None:
            return f"{self.name} {self.comparator.value} {self.literal}"
        return self.name if self.comparator is Comparator.EQUAL else f"{self.name} {self.comparator.value}"

    def holds(self, ours: str, wanted: str) -> bool:
        """Whether our value will do where ``wanted`` is the writer's or the literal."""
        match self.comparator:
            case Comparator.EQUAL:
                return ours == wanted
            case Comparator.AT_LEAST:
                return version_key(ours) >= version_key(wanted)
            case Comparator.CONTAINS:
                return set(_items(wanted)) <= set(_items(ours))


def parse_gate(text: str) -> Gate:
    """The gate of this text, or ``BadGate``."""
    found = _TEXT.fullmatch(text)
    if found is None:
        raise BadGate(
            "is no gate; write NAME, NAME >=, NAME contains, or one of them with a value: java >= 17"
        )
    name, sign, literal = found.groups()
    comparator = Comparator(sign or "=")
    if literal is not None and len(literal) > LITERAL_MAX:
        raise BadGate(f"has a value of {len(literal)} characters, the limit is {LITERAL_MAX}")
    if name == CLOCK and sign is not None:
        raise BadGate("clock takes no comparator: clocks may differ by 5 minutes")
    if comparator is Comparator.EQUAL and sign is not None and literal is None:
        raise BadGate("says = without a value; the name alone means equal")
    if comparator is Comparator.AT_LEAST and literal is not None and not _PART.search(literal.lower()):
        raise BadGate(f"compares with {literal}, which is no version")
    return Gate(name, comparator, literal)


def version_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Orders versions: numbers as numbers, ``1.0-rc1`` below ``1.0``, ``1.0`` equal to ``1.0.0``."""
    parts = [
        (2, int(part), "") if part.isdigit() else (0, 0, part)
        for part in _PART.findall(text.lower()[:LITERAL_MAX])
    ]
    while parts and parts[-1] == (2, 0, ""):
        parts.pop()
    return (*parts, (1, 0, ""))


def refusal_of(
    gate: Gate, ours: Mapping[str, str], theirs: Mapping[str, str], me: str, writer: str
) -> tuple[str, str, str | None, str | None] | None:
    """Code, reason and both values (ours, theirs) of a gate that does not hold; None when it holds."""
    mine = ours.get(gate.name)
    wanted = gate.literal if gate.literal is not None else theirs.get(gate.name)
    whose = "the gate asks for" if gate.literal is not None else writer
    if mine is None:
        return ("no_such_fact", f"gate {gate}: no such fact on {me}, {whose} {wanted}", None, wanted)
    if wanted is None:
        return ("no_such_fact", f"gate {gate}: no such fact on {writer}, {me} {mine}", mine, None)
    if gate.name == CLOCK:
        apart = int(mine) - int(wanted)
        if abs(apart) <= SKEW_MAX_MS:
            return None
        reason = f"gate clock: {me} is {apart / 1000:+.0f} s from {writer}, at most 300 s"
        return ("gate_differs", reason, mine, wanted)
    # A value in angle brackets says why a fact cannot be had: two of them never agree.
    if not mine.startswith("<") and not wanted.startswith("<") and gate.holds(mine, wanted):
        return None
    reason = f"gate {gate}: {whose} {_shown(wanted)}, {me} {_shown(mine)}"
    return ("gate_differs", reason, mine, wanted)


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.splitlines() if item.strip()]


def _shown(value: str) -> str:
    return ", ".join(_items(value))[:400] or "(empty)"
