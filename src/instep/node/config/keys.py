"""A key of ``instep.toml`` is declared once, as a field of the settings that it becomes.

``key`` makes a field of a dataclass of its TOML default and its kind; the text below the field is its sentence on the
reference page. ``section`` makes a field of a table below. The reader, the editor, the reference page, ``config show``
and completion ask ``keys_of`` and ``sections_of``. The keys of a class with ``travels = True`` are set where the
fileset is written, and are errors where it is followed.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from instep.node.config.kinds import ValueKind

T = TypeVar("T")
NO_DEFAULT: Any = object()
"""In place of a default: the key must be given."""
_UNITS = ("_ms", "_percent")
"""Ends of a field's name that the key's name lacks: the file writes the unit beside the number."""


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``default`` is a TOML value; ``absent`` what the field holds where the key is not given."""

    name: str
    field: str
    kind: ValueKind[Any]
    default: object
    absent: Any
    needs_restart: bool
    travels: bool = False
    declared: str = ""
    """``module:Class.field``, where the text below the field is its sentence."""

    @property
    def is_required(self) -> bool:
        return self.default is NO_DEFAULT


@dataclass(frozen=True, slots=True)
class Section:
    """Tables below a table: one, several by name (``is_named``), or one or an array of them (``is_listed``)."""

    name: str
    table: type
    is_named: bool = False
    is_listed: bool = False
    is_whole: bool = False
    """It is there with its defaults also where the file has nothing of it."""

    @property
    def travels(self) -> bool:
        return getattr(self.table, "travels", False)


def key(
    default: object,
    kind: Callable[[object], T],
    *,
    name: str = "",
    absent: Any = None,
    is_filled: bool = False,
    needs_restart: bool = False,
) -> T:
    """A field that holds a key. ``absent`` stands where a key without default is not given; a field that
    ``is_filled`` gets its value from the reader then. ``name`` where the field has another than the key."""
    made = kind if isinstance(kind, ValueKind) else ValueKind(kind)
    is_given = default is not None and default is not NO_DEFAULT
    value = made(default) if is_given else absent
    about = Key(name, "", made, default, value, needs_restart)
    if default is NO_DEFAULT or is_filled:
        found: Any = dataclasses.field(metadata={Key: about})
    elif isinstance(value, Mapping):
        found = dataclasses.field(default_factory=lambda: value, metadata={Key: about})
    else:
        found = dataclasses.field(default=value, metadata={Key: about})
    typed: T = found
    return typed


def section(
    table: type,
    default: Any,
    *names: str,
    is_named: bool = False,
    is_listed: bool = False,
    is_whole: bool = False,
) -> Any:
    """A field that comes of tables below: of the field's own name, or of ``names``."""
    about = {Section: tuple(Section(name, table, is_named, is_listed, is_whole) for name in names or ("",))}
    if callable(default):
        return dataclasses.field(default_factory=default, metadata=about)
    return dataclasses.field(default=default, metadata=about)


def inline(table: type) -> Any:
    """A field that comes of keys in the same table, which another class declares; None where they do not stand."""
    return dataclasses.field(default=None, metadata={"inline": table})


@functools.cache
def keys_of(table: type) -> tuple[Key, ...]:
    """The keys of a table, in the order of the reference page."""
    return tuple(_keys(table))


def _keys(table: type) -> Iterator[Key]:
    for field in dataclasses.fields(table):
        about = field.metadata.get(Key)
        if about is not None:
            name = about.name
            if not name:
                unit = next((end for end in _UNITS if field.name.endswith(end)), "")
                name = field.name.removesuffix(unit)
            yield dataclasses.replace(
                about,
                name=name,
                field=field.name,
                travels=getattr(table, "travels", False),
                declared=f"{table.__module__}:{table.__qualname__}.{field.name}",
            )
        elif "inline" in field.metadata:
            yield from keys_of(field.metadata["inline"])


@functools.cache
def sections_of(table: type) -> tuple[Section, ...]:
    """The tables below a table."""
    found: list[Section] = []
    for field in dataclasses.fields(table):
        found += (
            dataclasses.replace(one, name=one.name or field.name) for one in field.metadata.get(Section, ())
        )
        if "inline" in field.metadata:
            found += sections_of(field.metadata["inline"])
    return tuple(found)


def key_at(table: type, path: Sequence[str]) -> Key | None:
    """The key of a dotted path from a table on: ``hooks.reload.timeout`` of a fileset."""
    if len(path) == 1:
        return next((one for one in keys_of(table) if one.name == path[0]), None)
    below = next((one for one in sections_of(table) if path and one.name == path[0]), None)
    if below is None:
        return None
    return key_at(below.table, path[2:] if below.is_named else path[1:])
