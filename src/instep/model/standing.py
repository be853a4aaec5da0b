"""How a line stands on a node: always with reason, since, code and next step; where the command of a step is typed."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection

import msgspec

from instep.model.ids import Count

_PARTS = re.compile(
    r"(?<!goes )\b(?:on|at) (?!once\b)[^;:,()]{1,60}:|\bthere:|(?P<here>\bhere:)"
    r"|(?P<command>(?<![\w./-])instep )(?=(?P<word>[a-z]+)\b)"
)
_PROSE = frozenset({"goes", "runs"})
_AT_WRITER = "at the writer: "


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


def _ends_of_commands_here(text: str) -> list[tuple[int, str]]:
    """Behind each ``instep `` that is typed here, and the word that follows."""
    found, is_here = [], True
    for part in _PARTS.finditer(text):
        if part["command"] is None:
            is_here = part["here"] is not None
        elif is_here and part["word"] not in _PROSE:
            found.append((part.end(), part["word"]))
    return found


def typed_at(step: str, node: str, *, is_writer: bool) -> str:
    """A step of another node for a reader at this one: with the node where it is typed. ``is_writer``: the reader is
    at the writer, which the step may name."""
    if is_writer and step.startswith(_AT_WRITER):
        return step.removeprefix(_AT_WRITER)
    return f"on {node}: {step}" if _ends_of_commands_here(step) else step


def typed_with(text: str, option: str, commands: Collection[str]) -> str:
    """The text with an option in every command that is typed here."""
    for end, word in reversed(_ends_of_commands_here(text)):
        if word in commands:
            text = f"{text[:end]}{option} {text[end:]}"
    return text
