"""The edit of ``instep.toml`` that a change of writer needs, at the old writer, the new one and every other node."""

from __future__ import annotations

from typing import Any

import tomlkit

from instep.errors import ConfigError
from instep.model.definition import Definition, Preserve
from instep.model.ids import LineId, NodeName
from instep.model.rollout import DEFAULT_POLICY, RolloutPolicy, decode_policy
from instep.node.config.definitions import RolloutKeys, TravellingKeys
from instep.node.config.editing.edits import Document, edit, partner_row
from instep.node.config.keys import keys_of
from instep.node.config.loading import parse, read_text
from instep.node.directory import NodeDirectory
from instep.tree.objects.owners import BY_NAME


def change_writer(
    node: NodeDirectory,
    line: LineId,
    writer: NodeName,
    definition: Definition | None,
    address: str | None,
    *,
    keeps_owners: bool = False,
) -> bool:
    """Name the new writer and keep the line; whether the file changed.

    ``definition`` has the travelling keys, for the node that becomes the writer (it is written there from now on),
    None for any other (it is not). ``address`` is where to dial the new writer when no address is written yet; a row
    that is made for it lets nothing flow there. ``keeps_owners``: an operator of this node gave the line away, so its
    files go on belonging to their owners, by name; else no right is planted that was not asked for here."""

    def change(document: Document) -> None:
        table: Any = document.get("filesets", {}).get(line.fileset)
        has_owners = table is not None and Preserve.OWNER.value in table.get("preserve", ())
        if keeps_owners and definition is None and has_owners and "owners" not in table:
            table["owners"] = [BY_NAME]
        _change(document, line, writer, definition, address)

    return edit(node, change)


def check_change(node: NodeDirectory, line: LineId, writer: NodeName, definition: Definition) -> None:
    """``ConfigError`` when ``instep.toml``, edited so that this node is the writer, would not be right or would not
    make the same definition. Writes nothing."""
    document = tomlkit.parse(read_text(node.config))
    _change(document, line, writer, definition, None)
    settings = parse(tomlkit.dumps(document), directory=node.path, path=node.config)
    found = settings.filesets.get(line.fileset)
    if found is None or found.definition != definition:
        raise ConfigError(
            f"the travelling settings of {line.fileset} cannot be written down here as they are",
            hint=f"instep explain {line.fileset}",
            code="definition_differs",
        )


def _change(
    document: Document, line: LineId, writer: NodeName, definition: Definition | None, address: str | None
) -> None:
    filesets: Any = document.get("filesets", {})
    table = filesets.get(line.fileset)
    if table is None:
        return
    table["writer"] = str(writer)
    if "origin" in table or line.origin != writer:
        table["origin"] = str(line.origin)
    _travel(table, definition)
    if address is not None:
        row = partner_row(document, writer)
        if "address" not in row:
            row["address"] = address


def _travel(table: Any, definition: Definition | None) -> None:
    for key in keys_of(TravellingKeys):
        value = None if definition is None else key.kind.write(getattr(definition, key.field))
        if value is None or (value == key.default and key.name not in table):
            table.pop(key.name, None)
        else:
            table[key.name] = value
    table.pop("rollout", None)
    if definition is not None and definition.rollout:
        table["rollout"] = _rollout(decode_policy(definition.rollout))


def _rollout(policy: RolloutPolicy) -> Any:
    """The section as it would be typed: only what differs from the defaults."""
    table = tomlkit.inline_table()
    for key in keys_of(RolloutKeys):
        value = getattr(policy, key.field)
        if value != getattr(DEFAULT_POLICY, key.field):
            table.append(key.name, key.kind.write(value))
    return table
