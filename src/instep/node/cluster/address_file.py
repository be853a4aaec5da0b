"""The ``cluster_file``: one line with the address of the cluster's database, which only its owner may read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from instep.errors import ConfigError
from instep.node.config.settings import Settings
from instep.node.directory import NodeDirectory
from instep.store.cluster.address import ClusterAddress, SqliteAddress, parse_cluster_address

BYTES_MAX = 4096


def cluster_address(settings: Settings, directory: NodeDirectory) -> ClusterAddress:
    """Where the cluster's database is; without a ``cluster_file`` it is a file of this node's own. ``ConfigError`` when
    the file is missing, when others may read it, or when it does not hold one address."""
    if settings.cluster_file is None:
        return SqliteAddress(directory.state / "cluster.db")
    return address_in(settings.cluster_file)


def address_in(path: Path) -> ClusterAddress:
    """The address in a ``cluster_file``; ``ConfigError`` as above."""
    return parse_cluster_address(_line(path), str(path))


def _line(path: Path) -> str:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigError(
            f"the cluster_file {path} cannot be read: {error.strerror}",
            code="cluster_file",
            hint=f"write the address of the cluster's database into {path}, mode 0600",
            path=str(path),
        ) from error
    try:
        found = os.fstat(fd)
        _check(path, found)
        raw = os.read(fd, BYTES_MAX + 1)
    finally:
        os.close(fd)
    lines = [line.strip() for line in raw.decode("utf-8", "replace").splitlines() if line.strip()]
    if len(lines) != 1 or len(raw) > BYTES_MAX:
        raise ConfigError(
            f"the cluster_file {path} has {len(lines)} lines, and one is the address",
            code="bad_cluster_address",
            hint=f"leave one line in {path}: the address of the cluster's database",
            path=str(path),
        )
    return lines[0]


def _check(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(
            f"the cluster_file {path} is no ordinary file",
            code="cluster_file",
            hint=f"write the address of the cluster's database into a file of its own, and name it in place of {path}",
            path=str(path),
        )
    if mode & 0o077:
        raise ConfigError(
            f"the cluster_file {path} holds a secret, and others may read it: mode {mode:04o}",
            code="cluster_file_mode",
            hint=f"chmod 600 {path}",
            path=str(path),
            mode=f"{mode:04o}",
        )
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"the cluster_file {path} belongs to user {found.st_uid}: that user could change it",
            code="cluster_file_owner",
            hint=f"chown {os.geteuid()} {path}",
            path=str(path),
        )
