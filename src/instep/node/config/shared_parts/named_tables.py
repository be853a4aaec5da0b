"""The tables of a section, each under a name that all nodes can read, and the settings that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from instep.model.ids import shared_name
from instep.node.config.kinds import BadValue, named
from instep.node.config.table_reader import Table

SettingsT = TypeVar("SettingsT", bound=Any)
_name = named(shared_name, "is not a name for it")


def named_tables(top: Table, section: str) -> Iterator[tuple[str, Table]]:
    """Name and table; a name that is none becomes a problem."""
    tables = top.below(section)
    for name in tables.raw:
        try:
            yield _name(name), tables.below(name)
        except BadValue as error:
            tables.wrong(name, str(error), name)


def read_named(
    top: Table,
    section: str,
    settings: type[SettingsT],
    check: Callable[[Table, dict[str, Any]], None],
) -> dict[str, SettingsT]:
    """The settings by name, without the tables that have a problem. ``check`` names the problems of one table's values
    that no single key shows."""
    found = {}
    for name, table in named_tables(top, section):
        before = len(top.reading.problems)
        row = table.read(settings)
        check(table, row)
        if len(top.reading.problems) == before:
            found[name] = settings(name=name, **row)
    return found
