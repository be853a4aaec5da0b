"""A layout file, read strictly: the forms of an application's files, and how the application is stopped and started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from instep.core.layout.layout import (
    Application,
    ItemVerb,
    Layout,
    LayoutForm,
    LayoutItem,
    PropertySetting,
)
from instep.errors import ConfigError
from instep.node.config.keys import NO_DEFAULT, key, section
from instep.node.config.kinds import BadValue, list_of, string, strings
from instep.node.config.table_reader import Table, by_line, counted, top_table
from instep.node.config.toml_lines import element

FORMS_MAX, ITEMS_MAX = 20, 1000


def _inside(raw: object) -> bytes:
    """A path of the installation, which no layout may leave."""
    text = string(raw)
    if any(part in ("", ".", "..") for part in text.split("/")) or text.lower().startswith(".instep"):
        raise BadValue("leads out of its folder, or is not a relative path such as conf/server")
    return os.fsencode(text)


def _target(raw: object) -> bytes:
    return b"" if raw == "." else _inside(raw)


def _yes(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise BadValue("is not true or false")
    return raw


def _inside_program(raw: object) -> tuple[str, ...]:
    words = strings(raw)
    if not words:
        raise BadValue('is not an argument list such as ["bin/server", "stop"]')
    if not words[0].startswith("/"):
        _inside(words[0])
    return words


@dataclass(frozen=True, slots=True, kw_only=True)
class _ItemRow:
    move: bytes | None = key(None, _inside)
    copy: bytes | None = key(None, _inside)
    to: bytes | None = key(None, _target)
    optional: bool = key(False, _yes)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SetRow:
    file: bytes = key(NO_DEFAULT, _inside)
    key_: str = key(NO_DEFAULT, string, name="key")
    value: str = key(NO_DEFAULT, string)


@dataclass(frozen=True, slots=True, kw_only=True)
class _FormRow:
    about: str = key(NO_DEFAULT, string)
    has: tuple[bytes, ...] = key([], list_of(_inside))
    lacks: tuple[bytes, ...] = key([], list_of(_inside))
    items: Any = section(_ItemRow, tuple, is_listed=True)
    setting: Any = section(_SetRow, None, "set")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ApplicationRow:
    pid_file: bytes | None = key(None, _inside)
    stop: tuple[str, ...] = key(None, _inside_program, absent=())
    start: tuple[str, ...] = key(None, _inside_program, absent=())


@dataclass(frozen=True, slots=True, kw_only=True)
class _LayoutRow:
    about: str = key(NO_DEFAULT, string)
    note: str = key(None, string, absent="")
    application: Any = section(_ApplicationRow, None)
    forms: Any = section(_FormRow, dict, is_named=True)


def read_layout(name: str, text: str, file: Path) -> Layout:
    """The layout that ``text`` is; ``ConfigError`` with every problem and its line."""
    top = top_table(text, partial(_refusal, file))
    reading = top.reading
    row = top.read(_LayoutRow)
    application = top.below("application").read(_ApplicationRow)
    tables = top.below("forms")
    if not 0 < len(tables.raw) <= FORMS_MAX:
        tables.wrong("", f"has {len(tables.raw)} forms, not one to {FORMS_MAX}", None)
    forms = tuple(_form(form, tables.below(form)) for form in tables.raw)
    if not reading.problems:
        for form in forms:
            for why in form.problems():
                tables.wrong(form.name, why, None)
    if reading.problems:
        raise _refusal(file, reading.problems)
    return Layout(name, row["about"], row["note"].strip(), forms, Application(**application))


def _form(name: str, table: Table) -> LayoutForm:
    row = table.read(_FormRow)
    raw = table.raw.get("items")
    if not isinstance(raw, list) or not 0 < len(raw) <= ITEMS_MAX:
        table.wrong("items", f"is not a list of one to {ITEMS_MAX} items", None)
        raw = []
    path = (*table.path, "items")
    items = [_item(Table.of(table.reading, (*path, element(at)), each)) for at, each in enumerate(raw)]
    setting = None
    if "set" in table.raw:
        found: Mapping[str, Any] = table.below("set").read(_SetRow)
        setting = PropertySetting(found["file"], found["key_"], found["value"])
    there = tuple(item for item in items if item is not None)
    return LayoutForm(name, row["about"], row["has"], row["lacks"], there, setting)


def _item(table: Table) -> LayoutItem | None:
    row = table.read(_ItemRow)
    verbs = [verb for verb in ItemVerb if verb.value in table.raw]
    if len(verbs) != 1:
        table.wrong("", "has not one of move and copy")
        return None
    source = row[verbs[0].value]
    if source is None:
        return None
    return LayoutItem(verbs[0], source, source if row["to"] is None else row["to"], row["optional"])


def _refusal(file: Path, problems: list[dict[str, Any]]) -> ConfigError:
    return ConfigError(
        f"layout {file} has {counted(problems)}",
        hint=f"edit {file}, then: instep layout show {file.stem}",
        code="bad_layout",
        file=str(file),
        problems=by_line(problems),
    )
