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
