"""The tables of a section, each under a name that all nodes can read."""

from __future__ import annotations

from collections.abc import Iterator

from instep.model.ids import shared_name
from instep.node.config.kinds import BadValue, named
from instep.node.config.table_reader import Table

_name = named(shared_name, "is not a name for it")


def named_tables(top: Table, section: str) -> Iterator[tuple[str, Table]]:
    """Name and table; a name that is none becomes a problem."""
    tables = top.below(section)
    for name in tables.raw:
        try:
            yield _name(name), tables.below(name)
        except BadValue as error:
            tables.wrong(name, str(error), name)
