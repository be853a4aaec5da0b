"""Settings as items of ``instep.toml``, written as a person would write them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import Table

_TABLES = frozenset({"hooks", "golden", "archive", "rollout"})
"""Keys of a fileset that are written as tables, and not on one line."""


def toml_item(settings: Mapping[str, object]) -> Table:
    """A table as a person would write it: plain keys first, then tables with one hook a line, scripts on lines of
    their own."""
    made = tomlkit.table()
    for key, value in sorted(settings.items(), key=lambda pair: isinstance(pair[1], Mapping)):
        if isinstance(value, Mapping):
            inner = tomlkit.table()
            for name, one in value.items():
                inner.add(name, inline(one))
            made.add(key, inner)
        else:
            made.add(key, inline(value))
    return made


def inline(value: object) -> Any:
    if isinstance(value, str) and "\n" in value and "'''" not in value:
        return tomlkit.string(value, literal=True, multiline=True)
    if isinstance(value, Mapping):
        row = tomlkit.inline_table()
        for key, one in value.items():
            row.add(key, inline(one))
        return row
    if isinstance(value, list):
        items = tomlkit.array()
        for one in value:
            items.append(inline(one))
        return items
    return value


def plain(item: object) -> object:
    """The value without its form in the file."""
    return item.unwrap() if hasattr(item, "unwrap") else item


def merge(table: Any, key: str, value: object) -> None:
    """Set one key. A list is added to the present one; of a table of hooks or the like each key is set for itself."""
    now = plain(table.get(key))
    if key in _TABLES and isinstance(value, Mapping) and isinstance(now, Mapping):
        for inner, one in value.items():
            merge(table[key], inner, one)
        return
    if isinstance(value, list) and isinstance(now, list):
        value = [*now, *(item for item in value if item not in now)]
    if now != value:
        table[key] = toml_item({key: value})[key] if key in _TABLES else inline(value)
