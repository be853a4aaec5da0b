"""The edit of ``instep.toml`` that a change of writer needs, at the old writer, the new one and everybody else."""

from __future__ import annotations

from typing import Any

import tomlkit

from instep.errors import ConfigError
from instep.model.definition import Definition
from instep.model.ids import LineId, NodeName
from instep.model.rollout import DEFAULT_POLICY, RolloutPolicy, decode_policy
from instep.node.config import parse
from instep.node.config_edit import Document, edit
from instep.node.config_keys import FILESET
from instep.node.directory import NodeDirectory

__all__ = ["change_writer", "check_change"]


def change_writer(
    node: NodeDirectory, line: LineId, writer: NodeName, definition: Definition | None, address: str | None
) -> bool:
    """Name the new writer and keep the line; whether the file changed.

    ``definition`` is what travels, for the node that becomes the writer (it is written there from now on), None for
    any other (it is not). ``address`` is where to dial the new writer when no address is written yet; a row that is
    made for it lets nothing flow there."""

    return edit(node, lambda document: _change(document, line, writer, definition, address))


def check_change(node: NodeDirectory, line: LineId, writer: NodeName, definition: Definition) -> None:
    """``ConfigError`` when ``instep.toml``, edited so that this node is the writer, would not be right or would not
    make the same definition. Writes nothing."""
    document = tomlkit.parse(node.config.read_text())
    _change(document, line, writer, definition, None)
    settings = parse(tomlkit.dumps(document), directory=node.path, path=node.config)
    found = settings.filesets.get(line.fileset)
    if found is None or found.definition != definition:
        raise ConfigError(
            f"what travels with {line.fileset} cannot be written down here as it is",
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
        _dial(document, writer, address)


def _travel(table: Any, definition: Definition | None) -> None:
    for key in (key for key in FILESET if key.travels):
        value = None if definition is None else _value(definition, key.name)
        if value is None or (value == key.default and key.name not in table):
            table.pop(key.name, None)
        else:
            table[key.name] = value
    table.pop("rollout", None)
    if definition is not None and definition.rollout:
        table["rollout"] = _rollout(decode_policy(definition.rollout))


def _rollout(policy: RolloutPolicy) -> Any:
    """The section as it would be typed: only what differs from the defaults."""
    typed: dict[str, object] = {
        "strategy": policy.strategy.value,
        "batch": policy.batch,
        "order": [str(name) for name in policy.order],
        "quorum": f"{policy.quorum_percent}%",
        "absent": policy.absent.value,
        "on_failure": policy.on_failure.value,
        "confirm_within": "off" if policy.confirm_within_ms is None else f"{policy.confirm_within_ms}ms",
        "finish_within": f"{policy.finish_within_ms}ms",
        "canary_for": f"{policy.canary_for_ms}ms",
    }
    table = tomlkit.inline_table()
    for key, value in typed.items():
        field = next(
            name for name in policy.__struct_fields__ if name.split("_percent")[0].removesuffix("_ms") == key
        )
        if getattr(policy, field) != getattr(DEFAULT_POLICY, field):
            table.append(key, value)
    return table


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
