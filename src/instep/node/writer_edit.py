"""The edit of ``instep.toml`` that a change of writer needs, at the old writer, the new one and everybody else."""

from __future__ import annotations

from typing import Any

import tomlkit

from instep.model.definition import Definition
from instep.model.ids import LineId, NodeName
from instep.node.config_edit import Document, edit
from instep.node.config_keys import FILESET
from instep.node.directory import NodeDirectory

__all__ = ["change_writer"]


def change_writer(
    node: NodeDirectory, line: LineId, writer: NodeName, definition: Definition | None, address: str | None
) -> bool:
    """Name the new writer and keep the line; whether the file changed.

    ``definition`` is what travels, for the node that becomes the writer (it is written there from now on), None for
    any other (it is not). ``address`` is where to dial the new writer when no address is written yet; a row that is
    made for it lets nothing flow there."""

    def change(document: Document) -> None:
        filesets: Any = document.get("filesets", {})
        table = filesets.get(line.fileset)
        if table is None:
            return
        table["writer"] = str(writer)
        if "origin" in table or line.origin != writer:
            table["origin"] = str(line.origin)
        _travel(table, definition)
        if address is not None:
            _dial(document, writer, address)

    return edit(node, change)


def _travel(table: Any, definition: Definition | None) -> None:
    for key in (key for key in FILESET if key.travels):
        value = None if definition is None else _value(definition, key.name)
        if value is None or (value == key.default and key.name not in table):
            table.pop(key.name, None)
        else:
            table[key.name] = value
    if definition is None:
        table.pop("rollout", None)


def _value(definition: Definition, key: str) -> object:
    fields = {
        "mode": definition.mode.value,
        "class": definition.fileset_class.value,
        "ignore": list(definition.ignore),
        "include": list(definition.include),
        "preserve": [each.value for each in definition.preserve],
        "packages": list(definition.packages),
        "gates": list(definition.gates),
    }
    return fields[key]


def _dial(document: Document, writer: NodeName, address: str) -> None:
    if "partners" not in document:
        document.add("partners", tomlkit.table(is_super_table=True))
    partners: Any = document["partners"]
    row = partners.get(writer)
    if row is None:
        row = tomlkit.table()
        for key in ("replicate", "data", "hub"):
            row.add(key, False)
        partners.add(str(writer), row)
    if "address" not in row:
        row["address"] = address
