"""Backups: where they go, and which files and which database belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from instep.model.ids import fileset_name
from instep.node.config.keys import NO_DEFAULT, key, section
from instep.node.config.kinds import LATER, BadValue, kind, list_of, named, string, whole_number
from instep.node.config.table_reader import Table
from instep.node.config.values import absolute_path, private_file, program
from instep.tree.root.resolving import resolved


@kind(str)
def _folder(raw: object) -> Path:
    if isinstance(raw, str) and raw.startswith("s3://"):
        raise BadValue(f"names a bucket, which {LATER}: name a directory")
    return absolute_path(raw)


@kind()
def _queries(raw: object) -> Mapping[str, str]:
    if not isinstance(raw, dict):
        raise BadValue('is not a table such as { appdata = "SELECT path FROM document" }')
    return MappingProxyType({string(name): string(query) for name, query in raw.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupDatabaseKeys:
    """The database of a backup: PostgreSQL by its address, or programs of your own."""

    pg_dump: Path | None = key(None, private_file)
    """A file of mode 0600 with the address of the application's PostgreSQL database."""
    dump: tuple[str, ...] | None = key(None, program)
    """In its place: a program that writes a dump of the database to its standard output."""
    restore: tuple[str, ...] | None = key(None, program)
    """With `dump`: a program that replaces the database by the dump on its standard input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """What `instep backup create` takes together."""

    to: Path = key(NO_DEFAULT, _folder)
    """The directory of the backups, on another disk than the filesets."""
    filesets: tuple[str, ...] = key([], list_of(named(fileset_name, "is not a fileset name")))
    """The filesets whose files belong to a backup."""
    database: BackupDatabaseKeys | None = section(BackupDatabaseKeys, None)
    keep_last: int = key(7, whole_number(1, 10_000, "is not a whole number from 1 to 10000"))
    """How many whole backups stay; older ones go after a new one is whole."""
    freeze: tuple[str, ...] | None = key(None, program)
    """A program after which the application does not write until `thaw` runs."""
    thaw: tuple[str, ...] | None = key(None, program)
    """The program that lets it write again; run also after a backup that failed."""
    references: Mapping[str, str] = key({}, _queries)
    """Per fileset an SQL query that returns every path that the database names; `backup verify` looks for each."""


def read_backup(top: Table, filesets: Mapping[Any, Any]) -> BackupSettings | None:
    if "backup" not in top.raw:
        return None
    table = top.below("backup")
    row = table.read(BackupSettings)
    for name in row["filesets"] or ():
        if name not in filesets:
            table.wrong("filesets", f"names {name}, which is no fileset of this node", name)
    to = row["to"]
    for name, fileset in filesets.items():
        if isinstance(to, Path) and resolved(to).is_relative_to(resolved(fileset.path)):
            table.wrong("to", f"lies in the fileset {name}")
    if (row["freeze"] is None) != (row["thaw"] is None):
        table.wrong("", "has one of freeze and thaw, not both", None)
    found = None
    if "database" in table.raw:
        below = table.below("database")
        found = BackupDatabaseKeys(**below.read(BackupDatabaseKeys))
        if (found.pg_dump is None) == (found.dump is None):
            below.wrong("", "has not one of pg_dump and dump", None)
    for name in row["references"]:
        if name not in (row["filesets"] or ()) or found is None or found.pg_dump is None:
            table.wrong(
                "references", f"names {name}, and needs it in filesets, and a database with pg_dump", name
            )
    if not row["filesets"] and found is None:
        table.wrong("", "has neither filesets nor a database", None)
    return None if top.reading.problems else BackupSettings(**row, database=found)
