"""Next steps in answers: the fields that hold them, and how all of an answer are changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

STEPS = frozenset({"hint", "next", "note", "troubles", "warning", "warnings"})
"""Fields of answers, and of documents that the command line makes, whose texts are steps or end with some."""


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
