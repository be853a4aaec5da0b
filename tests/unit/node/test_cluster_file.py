"""The address of the cluster's database: in a private file of one line, and in no message."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.errors import ConfigError
from instep.node.cluster.address_file import cluster_address
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory
from instep.store.cluster.address import PostgresAddress, SqliteAddress, parse_cluster_address

SECRET = "s3cret-word"
DSN = f"postgresql://instep:{SECRET}@db1.example.org,db2.example.org:5433/cluster?sslmode=require"


def node(folder: Path, line: str | None, mode: int = 0o600) -> NodeDirectory:
    directory = NodeDirectory(folder)
    directory.create()
    file = folder / "address"
    if line is not None:
        file.write_text(line)
        file.chmod(mode)
    directory.config.write_text(f'name = "a"\ncluster_file = "{file}"\n')
    return directory


def refused(directory: NodeDirectory) -> ConfigError:
    with pytest.raises(ConfigError) as found:
        cluster_address(load(directory.path), directory)
    assert SECRET not in f"{found.value} {found.value.as_json()}"
    return found.value


def test_the_address_is_read_and_its_secret_never_shown(tmp_path: Path) -> None:
    found = cluster_address(load(node(tmp_path, f"\n{DSN}\n").path), NodeDirectory(tmp_path))
    assert isinstance(found, PostgresAddress)
    assert (found.dsn, found.hosts, found.wanted_server) == (DSN, 2, "read-write")
    assert found.shown == "postgresql://instep@db1.example.org,db2.example.org:5433/cluster"
    assert SECRET not in repr(found)


def test_without_a_file_the_node_has_a_database_of_its_own(tmp_path: Path) -> None:
    directory = NodeDirectory(tmp_path)
    directory.create()
    directory.config.write_text('name = "a"\n')
    assert cluster_address(load(tmp_path), directory) == SqliteAddress(tmp_path / "state/cluster.db")


@pytest.mark.parametrize(
    ("line", "mode", "code"),
    [
        (DSN, 0o640, "cluster_file_mode"),
        (DSN, 0o604, "cluster_file_mode"),
        (None, 0o600, "cluster_file"),
        ("", 0o600, "bad_cluster_address"),
        (f"{DSN}\n{DSN}", 0o600, "bad_cluster_address"),
        (f"mysql://instep:{SECRET}@db/cluster", 0o600, "bad_cluster_address"),
        (f"sqlite:{SECRET}", 0o600, "bad_cluster_address"),
        (f"postgresql://instep:{SECRET}@[::1/x", 0o600, "bad_cluster_address"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_without_its_secret(
    tmp_path: Path, line: str | None, mode: int, code: str
) -> None:
    assert refused(node(tmp_path, line, mode)).error_code == code


@pytest.mark.parametrize("key", ["cluster_file", "cluster_dsn", "health"])
def test_an_address_in_the_settings_is_refused_without_its_secret(tmp_path: Path, key: str) -> None:
    directory = node(tmp_path, None)
    directory.config.write_text(f'name = "a"\n{key} = "{DSN}"\n')
    with pytest.raises(ConfigError) as found:
        load(tmp_path)
    assert SECRET not in f"{found.value} {found.value.as_json()}"
    assert [problem["key"] for problem in found.value.facts["problems"]] == [key]  # type: ignore[attr-defined]


def test_options_with_a_password_are_hidden_too() -> None:
    found = parse_cluster_address(f"postgresql:///cluster?host=/run/pg&user=i&password={SECRET}", "the file")
    assert found.shown == "postgresql://i@/run/pg/cluster"
