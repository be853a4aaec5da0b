"""An application's PostgreSQL database for a backup: dumped at a snapshot, restored beside, renamed into place.

The programs of PostgreSQL get the address by a service file in memory: no password is an argument, in the environment
or on a disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg

from instep.errors import RefusedError, ResourceError, UnavailableError
from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT

PROGRAM_TIMEOUT_S = 24 * 3600.0
CONNECT_S, STATEMENT_S = 20.0, 600.0
_OURS = "instep-backup"
_HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::(\d+))?")
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.-]{1,63}")


@dataclass(frozen=True, slots=True)
class ApplicationDatabase:
    """One database by its address. ``shown`` has no secret."""

    dsn: str
    shown: str

    @property
    def name(self) -> str:
        return self._fields()["dbname"]

    # By programs ----------------------------------------------------------------------------------------------------

    def dump(self, to_fd: int, snapshot: str) -> None:
        """Write a dump of the state of ``snapshot`` to ``to_fd``."""
        self._program("pg_dump", "-Fc", f"--snapshot={snapshot}", "-d", "service=instep", output=to_fd)

    def load(self, from_fd: int, database: str) -> None:
        """Fill the empty database of this name, of the same server, from a dump."""
        target = f"service=instep dbname={database}"
        self._program("pg_restore", "--exit-on-error", "-d", target, source=from_fd)

    def _program(self, name: str, *arguments: str, source: int = -1, output: int = -1) -> None:
        path = shutil.which(name, path=MINIMAL_ENVIRONMENT["PATH"])
        if path is None:
            raise ResourceError(
                f"{name} is not installed: it belongs to PostgreSQL's client programs",
                hint="apt install postgresql-client",
                code="no_pg_program",
                program=name,
            )
        with self._service() as service:
            try:
                done = subprocess.run(
                    [path, *arguments],
                    env={**MINIMAL_ENVIRONMENT, "PGSERVICEFILE": f"/proc/self/fd/{service}", "PGAPPNAME": _OURS},
                    stdin=subprocess.DEVNULL if source < 0 else source,
                    stdout=subprocess.DEVNULL if output < 0 else output,
                    stderr=subprocess.PIPE, pass_fds=(service,), cwd="/", check=False, timeout=PROGRAM_TIMEOUT_S,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise self._failed(f"{name} ran for longer than a day") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise self._failed(
                f"{name} exited with {done.returncode}: {said[-1] if said else 'it said nothing'}"
            )

    @contextlib.contextmanager
    def _service(self) -> Iterator[int]:
        lines = ["[instep]", *(f"{key}={value}" for key, value in self._fields().items())]
        fd = os.memfd_create("instep-service", 0)
        try:
            os.write(fd, ("\n".join(lines) + "\n").encode())
            yield fd
        finally:
            os.close(fd)

    def _fields(self) -> dict[str, str]:
        parts = urlsplit(self.dsn)
        fields = dict(parse_qsl(parts.query))
        account, _, hosts = parts.netloc.rpartition("@")
        user, _, password = account.partition(":")
        if hosts:
            named = [_HOST.fullmatch(host) for host in hosts.split(",")]
            fields["host"] = ",".join(one[1].strip("[]") for one in named if one is not None)
            fields["port"] = ",".join(one[2] or "5432" for one in named if one is not None)
        if user:
            fields["user"] = unquote(user)
        if password:
            fields["password"] = unquote(password)
        fields["dbname"] = (
            unquote(parts.path.strip("/")) or fields.pop("database", "") or fields.get("user", "")
        )
        return fields

    # By statements --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def connection(self, database: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """A connection to this database or to another one of its server. ``UnavailableError``."""
        try:
            connection = await asyncpg.connect(
                self.dsn, database=database, timeout=CONNECT_S, command_timeout=STATEMENT_S,
                server_settings={"application_name": _OURS},
            )  # fmt: skip
            try:
                yield connection
            finally:
                await connection.close(timeout=CONNECT_S)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            raise self._failed(str(error) or type(error).__name__) from error

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[str]:
        """The name of a snapshot that stays as it is until the end of the block."""
        async with (
            self.connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            yield str(await connection.fetchval("SELECT pg_export_snapshot()"))

    async def sessions(self) -> list[str]:
        """The programs that are connected to this database, but for our own."""
        async with self.connection() as connection:
            rows = await connection.fetch(
                "SELECT coalesce(nullif(application_name, ''), 'a program') || ' of ' || coalesce(usename, '?') ||"
                " ' at ' || coalesce(client_addr::text, 'this machine') AS said FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                " AND application_name <> $1 ORDER BY 1",
                _OURS,
            )
        return [str(row["said"]) for row in rows]

    async def create(self, database: str) -> None:
        """A new empty database with the owner and encoding of this one."""
        async with self.connection() as connection:
            row = await connection.fetchrow(
                "SELECT pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding,"
                " datcollate, datctype"
                " FROM pg_database WHERE datname = current_database()"
            )
            assert row is not None
            await connection.execute(
                f"CREATE DATABASE {_quoted(database)} TEMPLATE template0 OWNER {_quoted(row['owner'])}"
                f" ENCODING '{row['encoding']}' LC_COLLATE '{row['datcollate']}' LC_CTYPE '{row['datctype']}'"
            )

    async def exists(self, database: str) -> bool:
        async with self.connection("postgres") as connection:
            return bool(await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database))

    async def drop(self, database: str) -> None:
        async with self.connection() as connection:
            await connection.execute(f"DROP DATABASE IF EXISTS {_quoted(database)}")

    async def replace(self, new: str, kept: str) -> None:
        """Give this database the name ``kept``, and ``new`` its name. Cut off in between, the same call goes on."""
        is_kept = await self.exists(kept)
        if is_kept and await self.exists(self.name):
            return
        async with self.connection("postgres") as connection:
            if not is_kept:
                await connection.execute(f"ALTER DATABASE {_quoted(self.name)} RENAME TO {_quoted(kept)}")
            await connection.execute(f"ALTER DATABASE {_quoted(new)} RENAME TO {_quoted(self.name)}")

    async def texts(self, database: str, query: str) -> set[str]:
        """The first column of a query, as texts."""
        async with self.connection(database) as connection:
            return {str(row[0]) for row in await connection.fetch(query) if row[0] is not None}

    def _failed(self, why: str) -> UnavailableError:
        return UnavailableError(
            f"the database {self.shown}: {why}",
            hint="see that it runs, and what its user may do there; then repeat the command",
            code="backup_database",
            database=self.shown,
        )


def _quoted(name: str) -> str:
    if not _IDENTIFIER.fullmatch(name):
        raise RefusedError(
            f"{name!r} is not the name of a database or role that can be used here", code="bad_database_name"
        )
    return f'"{name}"'
