"""Copies wanted of a fileset's documents in ``instep.toml``. What nodes report is compared with them elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from instep.model.ids import NodeName
from instep.model.replication.copies import RULES_MAX, WANTED_MAX, CopiesRule
from instep.node.config.keys import NO_DEFAULT, key
from instep.node.config.kinds import BadValue, kind, whole_number
from instep.node.config.table_reader import Table
from instep.node.config.toml_lines import element
from instep.node.config.values import node_names, patterns


@kind(is_list=True)
def _some_patterns(raw: object) -> tuple[str, ...]:
    found = patterns(raw)
    if not found:
        raise BadValue("names no path")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiesSettings:
    """Copies wanted of the documents that this node writes, where other nodes have them: a check, it moves nothing.
    Where the fileset is followed it says nothing."""

    paths: tuple[str, ...] = key(NO_DEFAULT, _some_patterns)
    """The documents: gitignore patterns, such as `*.xml` or `/maps/**`."""
    wanted: int = key(1, whole_number(0, WANTED_MAX, f"is not a whole number from 0 to {WANTED_MAX}"))
    """How many nodes beside this one have to have each of them."""
    prefer: tuple[NodeName, ...] = key([], node_names)
    """Nodes that have to have each of them."""
    block: tuple[NodeName, ...] = key([], node_names)
    """Nodes that must have none of them; a copy there does not count."""


def read_copies(table: Table, own_name: str | None) -> tuple[CopiesRule, ...]:
    """The rules of the fileset, in the order of the file."""
    rows = table.raw.get("copies", [])
    if not isinstance(rows, list):
        table.wrong("copies", f"is no array of tables such as [[filesets.{table.path[-1]}.copies]]")
        return ()
    if len(rows) > RULES_MAX:
        table.wrong("copies", f"holds {len(rows)} rules, the limit is {RULES_MAX}", len(rows))
    found: list[CopiesRule] = []
    for index, row in enumerate(rows[:RULES_MAX]):
        below = Table.of(table.reading, (*table.path, "copies", element(index)), row)
        before = len(table.reading.problems)
        settings = CopiesSettings(**below.read(CopiesSettings))
        for name, nodes in (("prefer", settings.prefer), ("block", settings.block)):
            if own_name in nodes:
                below.wrong(name, "names this node itself, which has all that it writes", own_name)
        both = sorted({*settings.prefer} & {*settings.block})
        if both:
            below.wrong("block", f"names {', '.join(both)}, which prefer names too", both)
        if len(table.reading.problems) == before:
            found.append(CopiesRule(settings.paths, settings.wanted, settings.prefer, settings.block))
    return tuple(found)
