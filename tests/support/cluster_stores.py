"""The databases that a cluster may use, each with a clock and a server name that a test moves."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Protocol

import asyncpg
import pytest

from instep.store.cluster.address import parse_cluster_address
from instep.store.cluster.opening import open_cluster_store
from instep.store.cluster.port import ClusterStore
from instep.store.cluster.sqlite import SqliteClusterStore
from tests.support.postgres import Bouncer, PostgresServer, missing_postgres, postgres_server

__all__ = ["ClusterGround", "cluster", "servers"]

KINDS = ("sqlite", "postgres", "pooled")
_numbers = itertools.count()


class ClusterGround(Protocol):
    """One empty database, and the world around it."""

    async def node(self) -> ClusterStore:
        """Open the database, as one more node does."""
        ...

    async def advance(self, ms: int) -> None:
        """Let the database's clock go on."""
        ...

    async def move_to(self, server: str) -> None:
        """Go on with the same content on another server, as after a failover."""
        ...


class SqliteGround:
    """All nodes on one file."""

    def __init__(self, folder: Path, ends: AsyncExitStack) -> None:
        self.path = folder / "cluster.db"
        self._ends = ends
        self._ahead_ms = 0
        self._server = "first"

    async def node(self) -> ClusterStore:
        made = SqliteClusterStore(
            self.path, lambda: time.time_ns() // 1_000_000 + self._ahead_ms, lambda: self._server
        )
        await made.open()
        self._ends.push_async_callback(made.close)
        return made

    async def advance(self, ms: int) -> None:
        self._ahead_ms += ms

    async def move_to(self, server: str) -> None:
        self._server = server


class PostgresGround:
    """A database of its own on the shared server; nodes go through ``dsn``. The two functions of the schema are
    replaced by ones that a test moves."""

    def __init__(self, direct: str, dsn: str, ends: AsyncExitStack) -> None:
        self._direct, self._dsn, self._ends = direct, dsn, ends
        self._ahead_ms = 0
        self._server = "first"
        self._is_made = False

    async def node(self) -> ClusterStore:
        made = await open_cluster_store(parse_cluster_address(self._dsn, "a test"))
        self._ends.push_async_callback(made.close)
        if not self._is_made:
            self._is_made = True
            await self._replace()
            await self._run("UPDATE instep_era SET server = instep_server()")
        return made

    async def _replace(self) -> None:
        clock = f"CAST(floor(extract(epoch FROM clock_timestamp()) * 1000) AS bigint) + {self._ahead_ms}"
        await self._run(
            "CREATE OR REPLACE FUNCTION instep_now_ms() RETURNS bigint LANGUAGE sql VOLATILE AS"
            f" $$ SELECT {clock} $$; CREATE OR REPLACE FUNCTION instep_server() RETURNS text LANGUAGE sql VOLATILE AS"
            f" $$ SELECT '{self._server}' $$"
        )

    async def _run(self, sql: str) -> None:
        connection = await asyncpg.connect(self._direct)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def advance(self, ms: int) -> None:
        self._ahead_ms += ms
        await self._replace()

    async def move_to(self, server: str) -> None:
        self._server = server
        await self._replace()


class Servers:
    """The server and the proxy that all tests of one run share, started by the first that asks."""

    def __init__(self, server: PostgresServer, bouncer: Bouncer) -> None:
        self.server, self.bouncer = server, bouncer


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """A real server and pgbouncer before it."""
    if reason := missing_postgres():
        pytest.skip(reason)
    with postgres_server() as server:
        bouncer = Bouncer(server.folder.parent / "bouncer", server)
        try:
            yield Servers(server, bouncer)
        finally:
            bouncer.close()


async def _database(server: PostgresServer) -> str:
    name = f"t{next(_numbers)}"
    connection = await asyncpg.connect(server.dsn())
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return name


@pytest.fixture(params=KINDS)
async def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ClusterGround]:
    """An empty database of each kind."""
    async with AsyncExitStack() as ends:
        if request.param == "sqlite":
            yield SqliteGround(tmp_path, ends)
            return
        found: Servers = request.getfixturevalue("servers")
        name = await _database(found.server)
        direct = found.server.dsn(name)
        yield PostgresGround(direct, direct if request.param == "postgres" else found.bouncer.dsn(name), ends)
