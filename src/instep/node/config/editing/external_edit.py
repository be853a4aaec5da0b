"""The edit of ``instep.toml`` that names what a fileset's application has beside its files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tomlkit
from tomlkit.items import AoT

from instep.errors import UsageError
from instep.node.config.editing.edits import Document, edit
from instep.node.directory import NodeDirectory

_MARKS = ("covered_by", "not_covered")


def set_external(node: NodeDirectory, fileset: str, name: str, wanted: Mapping[str, str]) -> bool:
    """Name a part, or change the given keys of one. A new ``covered_by`` or ``not_covered`` ends the other one."""

    def change(document: Document) -> None:
        rows = _rows(_fileset(document, fileset))
        row: Any = next((each for each in rows if each.get("name") == name), None)
        if row is None:
            is_tables = isinstance(rows, AoT)
            rows.append(tomlkit.table() if is_tables else tomlkit.inline_table())
            row = rows[-1]
            row["name"] = name
        if any(key in wanted for key in _MARKS):
            for key in _MARKS:
                if key not in wanted:
                    row.pop(key, None)
        for key, value in wanted.items():
            if row.get(key) != value:
                row[key] = value

    return edit(node, change)


def remove_external(node: NodeDirectory, fileset: str, name: str) -> bool:
    """Take a part out of the inventory."""

    def change(document: Document) -> None:
        table = _fileset(document, fileset)
        rows = table.get("external", [])
        for at, row in reversed(list(enumerate(rows))):
            if row.get("name") == name:
                del rows[at]
        if "external" in table and not rows:
            del table["external"]

    return edit(node, change)


def _fileset(document: Document, name: str) -> Any:
    table = document.get("filesets", {}).get(name)
    if table is None:
        raise UsageError(
            f"there is no fileset {name} here", hint="instep fileset list", code="no_fileset", name=name
        )
    return table


def _rows(table: Any) -> Any:
    """The parts as the file has them, to change."""
    if "external" not in table:
        table["external"] = tomlkit.aot()
    return table["external"]
