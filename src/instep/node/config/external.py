"""The inventory of a fileset in ``instep.toml``: databases and other parts of the application that are not carried."""

from __future__ import annotations

import re
from dataclasses import dataclass

from instep.model.external import EXTERNALS_MAX, TEXT_MAX, External
from instep.model.ids import shared_name
from instep.node.config.keys import NO_DEFAULT, key
from instep.node.config.kinds import BadValue, choice, kind, named, string
from instep.node.config.table_reader import Table
from instep.node.config.toml_lines import element

KINDS = ("database", "files", "index", "service")
_NAME = named(shared_name, "is not a name for it")
_PASSWORD = re.compile(r"://[^/\s]*:[^/\s]*@|password\s*=", re.IGNORECASE)


@kind()
def _sentence(raw: object) -> str:
    text = string(raw).strip()
    if not text or not text.isprintable() or len(text) > TEXT_MAX:
        raise BadValue(f"is not one line of text of at most {TEXT_MAX} characters")
    if _PASSWORD.search(text):
        raise BadValue("has a password; name the program or the cluster, not an address with its secret")
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSettings:
    """A part of the application that is not carried. While neither of the last two keys is given, the fileset does not
    stand in step."""

    name: str = key(NO_DEFAULT, _NAME)
    """Its name in messages, such as `cms-db`."""
    kind: str = key("database", choice(*KINDS))
    """What it is: `database`, `files`, `index` or `service`."""
    covered_by: str | None = key(None, _sentence)
    """What keeps it in step instead, such as `streaming replication to db2`."""
    not_covered: str | None = key(None, _sentence)
    """Why nothing does, and nothing needs to."""


def read_external(table: Table) -> tuple[External, ...]:
    """The parts that the fileset names, in the order of the file."""
    rows = table.raw.get("external", [])
    if not isinstance(rows, list):
        table.wrong("external", f"is no array of tables such as [[filesets.{table.path[-1]}.external]]")
        return ()
    if len(rows) > EXTERNALS_MAX:
        table.wrong("external", f"holds {len(rows)} parts, the limit is {EXTERNALS_MAX}", len(rows))
    found: dict[str, External] = {}
    for index, row in enumerate(rows[:EXTERNALS_MAX]):
        below = Table.of(table.reading, (*table.path, "external", element(index)), row)
        before = len(table.reading.problems)
        settings = ExternalSettings(**below.read(ExternalSettings))
        if settings.covered_by is not None and settings.not_covered is not None:
            below.wrong("not_covered", "stands beside covered_by; it is one of the two")
        if settings.name in found:
            below.wrong("name", "is named twice")
        if len(table.reading.problems) == before:
            found[settings.name] = External(
                settings.name, settings.kind, settings.covered_by, settings.not_covered
            )
    return tuple(found.values())
