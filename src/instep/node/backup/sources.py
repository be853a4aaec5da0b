"""What a node's settings say of its backups: where they go, the filesets, and the database."""

from __future__ import annotations

from pathlib import Path

from instep.errors import ConfigError, RefusedError
from instep.fleet.database import ApplicationDatabase
from instep.model.ids import FilesetName
from instep.node.cluster.address_file import address_in
from instep.node.config.filesets import FilesetSettings
from instep.node.config.settings import Settings
from instep.node.config.shared_parts.backups import BackupSettings
from instep.store.cluster.address import PostgresAddress
from instep.tree.root.resolving import resolved


def backup_settings(settings: Settings) -> BackupSettings:
    if settings.backup is None:
        raise RefusedError(
            "instep.toml has no table [backup]",
            hint='write one: see the guide\'s page "Back up and restore"',
            code="no_backup_settings",
        )
    return settings.backup


def database_of(backup: BackupSettings) -> ApplicationDatabase | None:
    """The PostgreSQL database, where it is one."""
    if backup.database is None or backup.database.pg_dump is None:
        return None
    address = address_in(backup.database.pg_dump)
    if not isinstance(address, PostgresAddress):
        raise ConfigError(
            f"{backup.database.pg_dump} names no PostgreSQL database",
            hint="write its address into that file: postgresql://USER:PASSWORD@HOST/DATABASE",
            code="bad_cluster_address",
        )
    return ApplicationDatabase(address.dsn, address.shown)


def filesets_of(settings: Settings, backup: BackupSettings) -> dict[FilesetName, FilesetSettings]:
    """By name. ``RefusedError`` ``root_missing`` where a root is not there."""
    found: dict[FilesetName, FilesetSettings] = {}
    for name, each in settings.filesets.items():
        if name in backup.filesets:
            if not Path(each.path).is_dir():
                raise RefusedError(
                    f"{name}: {each.path} is not there",
                    hint=f"mount or make {each.path}",
                    code="root_missing",
                )
            found[name] = each
    return found


def require_outside(folder: Path, settings: Settings) -> None:
    """``RefusedError`` ``inside_a_fileset`` or ``among_the_backups`` for a directory whose files a node would publish,
    or that would be part of the directory of backups."""
    hint, real = "name a new directory outside", resolved(folder)
    for name, each in settings.filesets.items():
        root = resolved(Path(each.path))
        if real.is_relative_to(root) or root.is_relative_to(real):
            raise RefusedError(
                f"{folder} shares files with the fileset {name} ({each.path}), which would carry what is laid out there"
                " to other nodes",
                hint=hint,
                code="inside_a_fileset",
                fileset=name,
            )
    backups = backup_settings(settings).to
    if real.is_relative_to(resolved(backups)):
        raise RefusedError(
            f"{folder} lies in the directory of backups ({backups})", hint=hint, code="among_the_backups"
        )
