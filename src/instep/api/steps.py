"""Next steps in answers: sentences with commands, each typed here or on the node that the sentence names before it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

_PARTS = re.compile(
    r"(?<!goes )\b(?:on|at) (?!once\b)[^;:,()]{1,60}:|\bthere:|(?P<here>\bhere:)"
    r"|(?P<command>(?<![\w./-])instep )(?=(?P<word>[a-z]+)\b)"
)
_PROSE = frozenset({"goes", "runs"})
_AT_WRITER = "at the writer: "
STEPS = frozenset({"hint", "next", "note", "troubles", "warning", "warnings"})
"""Fields of answers, and of documents that the command line makes, whose texts are steps or end with some."""


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


def with_steps(answer: Any, change: Callable[[str], str]) -> Any:
    """An answer, or a part of one, with all its steps changed."""
    match answer:
        case msgspec.Struct():
            fields = {name: getattr(answer, name) for name in answer.__struct_fields__}
            found = _changed(fields, change)
            return msgspec.structs.replace(answer, **found) if found else answer
        case Mapping():
            return {**answer, **_changed(answer, change)}
        case tuple() | list():
            return type(answer)(with_steps(each, change) for each in answer)
    return answer


def _changed(fields: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    found = {
        name: _step(value, change) if name in STEPS else with_steps(value, change)
        for name, value in fields.items()
    }
    return {name: value for name, value in found.items() if value is not fields[name]}


def _step(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple | list):
        return type(value)(_step(each, change) for each in value)
    return value
