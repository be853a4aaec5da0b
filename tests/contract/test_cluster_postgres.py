"""What PostgreSQL alone can do wrong: refuse, be too old, be read-only, vanish and hang."""

from __future__ import annotations

import asyncio
import shutil
import socket
import struct
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from instep.errors import InstepError
from instep.net.task_group import TaskGroup
from instep.store.cluster import eras, members
from instep.store.cluster.address import PostgresAddress, parse_cluster_address
from instep.store.cluster.opening import open_cluster_store
from instep.store.cluster.port import ClusterStore
from tests.support.cluster_stores import Servers
from tests.support.cluster_stores import servers as servers
from tests.support.postgres import PORT
from tests.support.waiting import eventually_async

SECRET = "s3cret-word"


@asynccontextmanager
async def opened(dsn: str) -> AsyncIterator[ClusterStore]:
    store = await open_cluster_store(parse_cluster_address(dsn, "a test"))
    try:
        yield store
    finally:
        await store.close()


async def refusal(dsn: str) -> InstepError:
    with pytest.raises(InstepError) as found:
        async with opened(dsn):
            pass
    assert SECRET not in f"{found.value} {found.value.as_json()}"
    return found.value


async def run(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_database_that_cannot_be_reached_or_entered_is_named(
    servers: Servers, tmp_path: Path
) -> None:
    server = servers.server
    assert (await refusal(f"postgresql://i:{SECRET}@/x?host={tmp_path}")).error_code == "cluster_unreachable"
    assert (await refusal(server.dsn("not_there"))).error_code == "cluster_unreachable"
    assert (await refusal(server.dsn(user="stranger"))).error_code == "cluster_login_refused"


async def test_a_user_without_the_rights_changes_nothing_and_is_named(servers: Servers) -> None:
    server = servers.server
    await run(server.dsn(), "CREATE DATABASE rights", "CREATE ROLE guest LOGIN")
    assert (await refusal(server.dsn("rights", "guest"))).error_code == "cluster_rights"
    await run(server.dsn("rights"), "CREATE SCHEMA guest AUTHORIZATION guest")
    async with opened(server.dsn("rights", "guest")) as store, store.transaction() as tx:
        assert (await eras.current_era(tx)).era == 1, "the usual rights of an owner of a schema are enough"


async def test_a_server_that_takes_no_changes_is_named(servers: Servers) -> None:
    server = servers.server
    await run(server.dsn(), "CREATE DATABASE quiet")
    async with opened(server.dsn("quiet")) as store:
        await run(server.dsn(), "ALTER DATABASE quiet SET default_transaction_read_only = on")
        async with store.transaction() as tx:  # a default is no refusal
            await members.be_seen(tx, "a", "machine", "s", "1")


async def test_a_lost_connection_is_named_and_the_next_transaction_has_a_new_one(servers: Servers) -> None:
    server = servers.server
    await run(server.dsn(), "CREATE DATABASE lost")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lost' AND pid <> pg_backend_pid()"
    async with opened(server.dsn("lost")) as store:
        with pytest.raises(InstepError) as found:
            async with store.transaction() as tx:
                await members.be_seen(tx, "a", "machine", "s", "1")
                await run(server.dsn(), end)
                await members.members(tx)
        assert found.value.error_code == "cluster_unreachable"
        async with store.transaction() as tx:
            assert await members.members(tx) == []


async def test_a_listener_notices_a_lost_connection(servers: Servers) -> None:
    server = servers.server
    await run(server.dsn(), "CREATE DATABASE heard")
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'heard' AND pid <> pg_backend_pid()"
    async with opened(server.dsn("heard")) as store:
        async with TaskGroup() as group:

            async def ended() -> bool:
                await run(server.dsn(), end)
                return listening.done()

            async def listen() -> str:
                try:
                    await store.listen(lambda _: None)
                except InstepError as error:
                    return error.error_code
                return ""

            listening = group.create_task(listen())
            await eventually_async(ended)
        assert listening.result() == "cluster_unreachable"


async def test_tables_that_were_removed_are_named(servers: Servers) -> None:
    server = servers.server
    await run(server.dsn(), "CREATE DATABASE gone")
    async with opened(server.dsn("gone")) as store:
        await run(server.dsn("gone"), "DROP TABLE instep_member")
        with pytest.raises(InstepError) as found:
            async with store.transaction() as tx:
                await members.members(tx)
        assert found.value.error_code == "cluster_damaged"


# Servers that are none


def folder_of_a_socket() -> Path:
    return Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))


def address_in(folder: Path) -> PostgresAddress:
    return PostgresAddress(f"postgresql://instep@/x?host={folder}&port={PORT}", "postgresql://instep@false/x")


async def test_a_server_that_is_too_old_is_refused_before_anything_is_asked() -> None:
    folder, ended = folder_of_a_socket(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        await reader.readexactly(length - 4)
        settings = (
            ("server_version", "12.22"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
        )
        told = [
            ("R", struct.pack("!i", 0)),
            *(("S", f"{name}\0{value}\0".encode()) for name, value in settings),
        ]
        for kind, body in (*told, ("K", struct.pack("!ii", 1, 1)), ("Z", b"I")):
            writer.write(kind.encode() + struct.pack("!i", len(body) + 4) + body)
        while await reader.read(1000):  # each statement is carried out, as far as it says
            writer.write(b"C" + struct.pack("!i", 4 + 6) + b"BEGIN\0" + b"Z" + struct.pack("!i", 5) + b"I")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        ended.set()

    server = await asyncio.start_unix_server(serve, folder / f".s.PGSQL.{PORT}")
    with pytest.raises(InstepError) as found:
        await open_cluster_store(address_in(folder))
    await ended.wait()
    server.close()
    await server.wait_closed()
    shutil.rmtree(folder)
    assert found.value.error_code == "cluster_server_old"
    assert found.value.facts["found"] == 12


async def test_a_server_that_never_answers_is_given_up_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("instep.store.cluster.postgres.CONNECT_S", 0.2)
    folder = folder_of_a_socket()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(folder / f".s.PGSQL.{PORT}"))
        silent.listen()
        with pytest.raises(InstepError) as found:
            await open_cluster_store(address_in(folder))
    shutil.rmtree(folder)
    assert found.value.error_code == "cluster_unreachable"
