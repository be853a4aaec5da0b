"""Real nodes on one machine that share a cluster's database: SQLite, or a real PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.postgres import missing_postgres, postgres_server

__all__ = ["DATABASES", "database_line", "shared_nodes"]

DATABASES = ("sqlite", "postgres")


@contextmanager
def database_line(kind: str, folder: Path) -> Iterator[str]:
    """The line of a ``cluster_file``; the server ends with the block."""
    if kind == "sqlite":
        yield f"sqlite:{folder / 'cluster.db'}"
        return
    if reason := missing_postgres():
        pytest.skip(reason)
    with postgres_server() as server:
        yield server.dsn()


def shared_nodes(
    fleet: Fleet, line: str, names: Sequence[str], tables: str, *, is_started: bool = True
) -> list[Node]:
    """Nodes with these tables in ``instep.toml`` and one database."""
    file = fleet.base / "cluster"
    file.write_text(line + "\n")
    file.chmod(0o600)
    found = []
    for name in names:
        node = fleet.node(name)
        node.init()
        config = node.directory / "instep.toml"
        config.write_text(f'cluster_file = "{file}"\n{config.read_text()}\n{tables}')
        found.append(node)
    if is_started:
        for node in found:
            node.start()
    return found


def signal_node(node: Node, number: int) -> None:
    assert node.pid is not None
    os.kill(node.pid, number)
