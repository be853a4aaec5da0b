"""``backup``: files and database that belong together, made, listed, verified, restored. Needs no daemon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from instep.cli.output import printable, say, table
from instep.cli.session import Session, absolute, command, group
from instep.errors import DamagedError
from instep.model.counts import counted, sized
from instep.node.backup.catalogue import BackupRecord, Catalogue
from instep.node.backup.creating import BackupMaker
from instep.node.backup.restoring import BackupRestorer
from instep.node.backup.sources import backup_settings

backup = group("backup", "Back up files and the database that belong together.")
_SHOWN_MAX = 10


def _document(record: BackupRecord) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(record)
    return found


@command("create", parent=backup, example="instep backup create")
@click.option("--offline", is_flag=True, help="Only while no server uses the database or holds a lease.")
def backup_create(session: Session, offline: bool) -> None:
    """Back up the filesets and the database that [backup] of instep.toml names.

    The label says how they belong together: frozen, bracketed, or fuzzy with the paths that are in doubt.
    """
    record = BackupMaker(session.node, session.settings(), say).run(is_offline=offline)
    backup_id = record.id
    if not session.gave_json(_document(record)):
        print(f"backup {backup_id}: {record.label.value}, {record.files} files, {sized(record.bytes)}")
        for fileset, path in record.in_doubt[:_SHOWN_MAX]:
            print(f"  in doubt: {fileset}: {printable(path)}")
        print(f"  next: instep backup verify {backup_id}")


@command("list", parent=backup, example="instep backup list")
def backup_list(session: Session) -> int:
    """The whole backups, oldest first. Exit 10 when some are damaged, which are named."""
    catalogue = Catalogue(backup_settings(session.settings()).to)
    records, errors = catalogue.listed()
    document = {
        "to": str(catalogue.folder), "backups": [_document(each) for each in records],
        "damaged": [each.as_json() for each in errors],
    }  # fmt: skip
    if not session.gave_json(document):
        rows = [
            (
                each.id,
                each.label.value,
                each.files,
                sized(each.bytes),
                each.database or "no database",
                ", ".join(each.filesets),
            )
            for each in records
        ]
        table(rows, ("backup", "label", "files", "size", "database", "filesets"))
        for error in errors:
            print(f"damaged: {printable(error.reason)}")
    return DamagedError.exit_code if errors else 0


@command("verify", parent=backup, example="instep backup verify 20261130T021500Z")
@click.argument("backup_id", metavar="ID")
def backup_verify(session: Session, backup_id: str) -> None:
    """Read every file of a backup again, and restore its database into a scratch one, which is dropped.

    With references in [backup], every path that the restored rows name must be in the backup.
    """
    found = BackupRestorer(session.node, session.settings(), backup_id, say).verify()
    doubted = {tuple(each) for each in found["in_doubt"]}
    unnamed = [each for each in found["missing"] if tuple(each) not in doubted]
    if unnamed:
        raise DamagedError(
            f"backup {backup_id}: rows name {counted(len(unnamed), 'file')} that it lacks, such as {unnamed[0][1]}",
            hint="instep backup create",
            code="backup_lacks_files",
            **found,
        )
    if not session.gave_json(found):
        database = ", database restored into a scratch one" if found["restored_database"] else ""
        print(f"backup {backup_id}: {found['label']}, {found['files']} files as they were copied{database}")
        for fileset, path in found["in_doubt"][:_SHOWN_MAX]:
            print(f"  in doubt: {fileset}: {printable(path)}")


@command("restore", parent=backup, example="instep backup restore 20261130T021500Z --to /tmp/restored")
@click.argument("backup_id", metavar="ID")
@click.option(
    "--to", "directory", metavar="DIR", help="Lay it out in this new directory, and replace nothing."
)
def backup_restore(session: Session, backup_id: str, directory: str | None) -> None:
    """Put a backup in the place of the files and the database, which are kept beside.

    The daemon and the application are stopped first. Leases, runs and seats of before are not in force afterwards.
    """
    restorer = BackupRestorer(session.node, session.settings(), backup_id, say)
    found = restorer.restore() if directory is None else restorer.restore_to(Path(absolute(directory)))
    if session.gave_json(found):
        return
    if found["to"] is not None:
        print(f"backup {backup_id} is laid out in {found['to']}")
        if found["dump"] is not None:
            print(f"  the dump of the database is {found['dump']}")
        return
    print(f"backup {backup_id} is restored; era {found['era']} of the cluster's database begins")
    for fileset, kept in found["replaced"].items():
        print(f"  {fileset}: the replaced files are kept in {kept}")
    if found["database"] is not None:
        print(f"  the replaced database is kept as {found['database']}")
    print("  next: instep start")
