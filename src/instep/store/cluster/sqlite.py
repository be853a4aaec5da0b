"""The cluster's database as one SQLite file: for one node, or for several nodes on one machine.

Each transaction is the only writer, and durable when it is committed. The statements run in one thread, in order.
Never put the file on network storage, whose locks cannot be trusted.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import ParamSpec, TypeVar

import apsw

from instep.errors import ContentionError, DamagedError, ResourceError, UnavailableError
from instep.store.cluster.migrating import lost, migrate
from instep.store.cluster.port import Row, Value

BUSY_MS = 5_000
"""How long a transaction waits for another process's."""
LOOK_S = 0.1
"""How often a listener looks whether another process changed anything."""
P = ParamSpec("P")
R = TypeVar("R")


def wall_ms() -> int:
    """The clock of this machine, which all nodes on the file share."""
    return time.time_ns() // 1_000_000


class SqliteClusterStore:
    """``now_ms`` is the database's clock. ``server`` names the server and its timeline: the inode of the file where
    it is not given, so a file that was replaced counts as another server."""

    def __init__(
        self, path: Path, now_ms: Callable[[], int] = wall_ms, server: Callable[[], str] | None = None
    ) -> None:
        self._path = path
        self._now_ms = now_ms
        self._server = server or self._inode
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cluster-store")
        self._turn = asyncio.Lock()
        self._listeners: list[Callable[[str], None]] = []
        self._connection: apsw.Connection | None = None

    @property
    def shown(self) -> str:
        return f"sqlite:{self._path}"

    async def open(self, *, is_only_looked_at: bool = False, cluster: str | None = None) -> None:
        """Open the file, make it where it is missing, and bring its tables to the newest form; unless it
        ``is_only_looked_at``, or must be the one of this ``cluster``."""
        if cluster is not None and not self._path.exists():
            raise lost(self.shown, cluster, "is not there")
        try:
            is_there = is_only_looked_at or cluster is not None
            await self._call(self._connect, 0 if is_there else os.O_CREAT)
            async with self._transaction() as transaction:
                await migrate(transaction, self.shown, is_only_looked_at=is_only_looked_at, cluster=cluster)
        except BaseException:
            await self.close()
            raise

    def _connect(self, flags: int) -> None:
        try:
            os.close(os.open(self._path, os.O_RDWR | flags | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise _not_writable(self._path, error.strerror or str(error)) from error
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(BUSY_MS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.create_scalar_function("instep_now_ms", lambda *_: self._now_ms(), 0)
        connection.create_scalar_function("instep_server", lambda *_: self._server(), 0)
        self._connection = connection

    def _inode(self) -> str:
        return str(self._path.stat().st_ino)

    @property
    def connection(self) -> apsw.Connection:
        if self._connection is None:
            raise self._is_closed()
        return self._connection

    def _is_closed(self) -> UnavailableError:
        return UnavailableError(f"the cluster database {self.shown} is closed", code="cluster_closed")

    async def _call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._begin_call(call, *args, **kwargs)

    def _begin_call(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[R]:
        def called() -> R:
            with _translated(self._path):
                return call(*args, **kwargs)

        try:
            return asyncio.get_running_loop().run_in_executor(self._pool, called)
        except (
            RuntimeError
        ) as error:  # the pool takes no more: a listener or transaction outlives the connection
            raise self._is_closed() from error

    def transaction(self) -> AbstractAsyncContextManager[SqliteTransaction]:
        return self._transaction()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[SqliteTransaction]:
        async with self._turn:
            transaction = SqliteTransaction(self)
            try:
                await transaction.script("BEGIN IMMEDIATE")
                yield transaction
                await transaction.script("COMMIT")
            except BaseException:
                # Shielded: in the one thread it runs behind whatever statement is under way there.
                await asyncio.shield(self._begin_call(self._undo))
                raise
        for topic in transaction.topics:
            for heard in self._listeners:
                heard(topic)

    def _undo(self) -> None:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")

    def run(self, sql: str, values: tuple[Value, ...]) -> tuple[list[Row], int]:
        """In the thread: the rows of one statement, and how many it changed."""
        named = {str(number): value for number, value in enumerate(values, 1)}
        found = list(self.connection.execute(sql, named))
        return found, self.connection.changes()

    async def listen(self, heard: Callable[[str], None]) -> None:
        self._listeners.append(heard)
        try:
            last = await self._call(self._version)
            while True:
                await asyncio.sleep(LOOK_S)
                if (now := await self._call(self._version)) != last:
                    last = now
                    heard("")
        finally:
            self._listeners.remove(heard)

    def _version(self) -> object:
        """It changes with each commit of another connection."""
        return self.connection.execute("PRAGMA data_version").get

    async def close(self) -> None:
        async with self._turn:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                await self._call(connection.close)
            self._pool.shutdown()


class SqliteTransaction:
    """The port's transaction on SQLite."""

    def __init__(self, store: SqliteClusterStore) -> None:
        self._store = store
        self.topics: list[str] = []

    async def rows(self, sql: str, *values: Value) -> list[Row]:
        return (await self._store._call(self._store.run, sql, values))[0]

    async def row(self, sql: str, *values: Value) -> Row | None:
        return next(iter(await self.rows(sql, *values)), None)

    async def change(self, sql: str, *values: Value) -> int:
        return (await self._store._call(self._store.run, sql, values))[1]

    async def announce(self, topic: str) -> None:
        self.topics.append(topic)

    async def schema_version(self) -> int:
        if await self.row("SELECT 1 FROM sqlite_master WHERE name = 'instep_schema'") is None:
            return 0
        row = await self.row("SELECT version FROM instep_schema")
        return 0 if row is None else int(row[0])

    async def lock_schema(self) -> None:
        """A transaction is the only writer of a file."""

    async def make_functions(self) -> None:
        """Each connection brings its own."""

    async def script(self, sql: str) -> None:
        await self._store._call(self._store.run, sql, ())


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Errors of SQLite as errors of ours."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise DamagedError(
            f"the cluster database {path} is damaged: {error}",
            code="cluster_damaged",
            hint=f"stop the nodes that use {path}, restore it from a backup or move it away, and start them",
            path=str(path),
        ) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise ContentionError(
            f"the cluster database {path} was busy for {BUSY_MS // 1000} s",
            code="cluster_busy",
            hint="another node writes to it; repeat the command",
            path=str(path),
        ) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError) as error:
        raise _not_writable(path, str(error)) from error
    except (apsw.FullError, apsw.IOError, apsw.NoMemError) as error:
        raise ResourceError(
            f"the cluster database {path} cannot be read or written: {error}",
            code="cluster_io",
            hint=f"look at the free space of {path.parent} and at the kernel log; instep goes on by itself",
            path=str(path),
        ) from error


def _not_writable(path: Path, why: str) -> ResourceError:
    return ResourceError(
        f"the cluster database {path} cannot be opened or written: {why}",
        code="cluster_not_writable",
        hint=f"check owner and mode of {path} and that its file system is writable; instep goes on by itself",
        path=str(path),
    )
