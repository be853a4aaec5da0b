"""The cluster's database on PostgreSQL, directly or behind a proxy that pools transactions.

Statements are prepared without a name and run inside a transaction, so each of its round trips meets one server. Only
``listen`` keeps a connection for itself; behind such a proxy it hears nothing, and the caller's own looks stand in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import asyncpg

from instep.errors import RefusedError, UnavailableError
from instep.store.cluster.address import PostgresAddress
from instep.store.cluster.migrating import migrate, postgres_functions
from instep.store.cluster.port import Row, Value
from instep.store.cluster.postgres_errors import UNDONE_BY_THE_SERVER, translated

CONNECT_S = 5.0
STATEMENT_S = 5.0
UNDO_S = 1.0
CONNECTIONS_MAX = 8
WAIT_S = 15.0
"""How long a transaction waits for one of those connections."""
ALIVE_S = 10.0
"""How often a listening connection is tried: a cut line is not noticed otherwise."""
CHANNEL = "instep"
OLDEST_SERVER = 13
SCHEMA_LOCK = 0x696E73746570
"""The key of the advisory lock of migrations: ``instep`` in ASCII."""


class PostgresClusterStore:
    """``oldest`` is the oldest version of PostgreSQL that is accepted."""

    def __init__(self, address: PostgresAddress, oldest: int = OLDEST_SERVER) -> None:
        self._address = address
        self._oldest = oldest
        self._pool: asyncpg.Pool | None = None
        self._listening: set[asyncpg.Connection] = set()

    @property
    def shown(self) -> str:
        return self._address.shown

    async def open(self, *, is_only_looked_at: bool = False, cluster: str | None = None) -> None:
        """Connect, check the server's version, and bring the tables to the newest form, unless the database
        ``is_only_looked_at``, or must be the one of this ``cluster``."""
        try:
            with translated(self.shown):
                self._pool = await asyncpg.create_pool(
                    self._address.dsn, min_size=0, max_size=CONNECTIONS_MAX, timeout=CONNECT_S,
                    command_timeout=STATEMENT_S, statement_cache_size=0, reset=_leave_as_it_is,
                    target_session_attrs=self._address.wanted_server,
                )  # fmt: skip
            async with self._transaction() as transaction:
                transaction.check_version(self._oldest)
                await migrate(transaction, self.shown, is_only_looked_at=is_only_looked_at, cluster=cluster)
        except BaseException:
            await self.close()
            raise

    def transaction(self) -> AbstractAsyncContextManager[PostgresTransaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[PostgresTransaction]:
        pool = self._open_pool()
        with translated(self.shown):
            connection = await pool.acquire(timeout=WAIT_S)
        made = PostgresTransaction(connection, self.shown)
        try:
            await made.script("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
            yield made
            await made.script("COMMIT")
        except BaseException as error:
            await self._undo(connection, error)
            raise
        finally:
            # A pool that has noticed the loss of the connection before has its holder free already.
            with suppress(asyncpg.InternalClientError):
                await asyncio.shield(pool.release(connection, timeout=UNDO_S))

    async def _undo(self, connection: asyncpg.Connection, error: BaseException) -> None:
        if isinstance(error, UNDONE_BY_THE_SERVER) or connection.is_closed():
            # The server may be another one by now, so that no connection is used again.
            _cut(connection)
            await self._open_pool().expire_connections()
            return
        try:
            await asyncio.shield(connection.execute("ROLLBACK", timeout=UNDO_S))
        except (OSError, TimeoutError, asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError):
            _cut(connection)
        else:
            if connection.is_in_transaction():
                _cut(connection)

    def _open_pool(self) -> asyncpg.Pool:
        if self._pool is None:
            raise UnavailableError(f"the cluster database {self.shown} is closed", code="cluster_closed")
        return self._pool

    async def listen(self, heard: Callable[[str], None]) -> None:
        loop = asyncio.get_running_loop()
        with translated(self.shown):
            connection = await asyncpg.connect(
                self._address.dsn, timeout=CONNECT_S, command_timeout=STATEMENT_S, statement_cache_size=0,
                target_session_attrs=self._address.wanted_server,
            )  # fmt: skip
            ended = loop.create_future()
            connection.add_termination_listener(lambda _: ended.cancel())
            self._listening.add(connection)
            try:
                await connection.add_listener(CHANNEL, lambda *told: heard(str(told[-1])))
                while not ended.done():
                    await asyncio.wait([ended], timeout=ALIVE_S)
                    await connection.execute("SELECT 1")
            finally:
                self._listening.discard(connection)
                with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    await asyncio.shield(connection.close(timeout=UNDO_S))

    async def close(self) -> None:
        pool, self._pool = self._pool, None
        for connection in self._listening:
            connection.terminate()
        if pool is not None:
            try:
                async with asyncio.timeout(UNDO_S):
                    await pool.close()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
                pool.terminate()


class PostgresTransaction:
    """The port's transaction on one connection."""

    def __init__(self, connection: asyncpg.Connection, shown: str) -> None:
        self._connection = connection
        self._shown = shown

    async def rows(self, sql: str, *values: Value) -> list[Row]:
        with translated(self._shown):
            return [tuple(record) for record in await self._connection.fetch(sql, *values)]

    async def row(self, sql: str, *values: Value) -> Row | None:
        with translated(self._shown):
            record = await self._connection.fetchrow(sql, *values)
        return None if record is None else tuple(record)

    async def change(self, sql: str, *values: Value) -> int:
        with translated(self._shown):
            status = await self._connection.execute(sql, *values)
        count = status.rsplit(" ", 1)[-1]
        return int(count) if count.isdecimal() else 0

    async def announce(self, topic: str) -> None:
        await self.rows("SELECT pg_notify($1, $2)", CHANNEL, topic)

    async def schema_version(self) -> int:
        # Not by to_regclass, whose cache may not know yet what another connection has just made.
        if (
            await self.row(
                "SELECT 1 FROM pg_class WHERE relname = 'instep_schema' AND pg_table_is_visible(oid)"
            )
            is None
        ):
            return 0
        row = await self.row("SELECT version FROM instep_schema")
        return 0 if row is None else int(row[0])

    async def lock_schema(self) -> None:
        await self.rows("SELECT pg_advisory_xact_lock($1)", SCHEMA_LOCK)

    async def make_functions(self) -> None:
        await self.script(postgres_functions())

    async def script(self, sql: str) -> None:
        with translated(self._shown):
            await self._connection.execute(sql)

    def check_version(self, oldest: int) -> None:
        """``RefusedError`` ``cluster_server_old`` for a server older than ``oldest``."""
        found = self._connection.get_server_version().major
        if found < oldest:
            raise RefusedError(
                f"the cluster database {self._shown} is PostgreSQL {found}, and instep needs {oldest} or newer",
                code="cluster_server_old",
                hint=f"upgrade the server to PostgreSQL {oldest} or newer",
                found=found,
                oldest=oldest,
            )


def _cut(connection: asyncpg.Connection) -> None:
    with suppress(asyncpg.InterfaceError):  # the pool has let go of it already: it was lost
        connection.terminate()


async def _leave_as_it_is(_: object) -> None:
    """A connection keeps no state between transactions, so nothing is reset."""
