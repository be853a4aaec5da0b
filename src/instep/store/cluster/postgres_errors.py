"""Errors of asyncpg as errors of ours. None of them shows a password: asyncpg never puts one into a message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from instep.errors import (
    ContentionError,
    DamagedError,
    InstepError,
    NotAllowedError,
    ResourceError,
    UnavailableError,
)

UNDONE_BY_THE_SERVER = (UnavailableError,)
"""After these the connection is of no use: the transaction is gone, or its outcome is not known."""
_AGAIN = "instep goes on by itself"
_BUSY = ("40001", "40P01", "55P03", "23505")
_READ_ONLY = ("25006", "0A000", "55000")
_SCHEMA_GONE = ("42P01", "42883", "42703")


@contextmanager
def translated(shown: str) -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _of_server(shown, error) from error
    except (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
        raise _unreachable(shown, str(error) or "no answer in time") from error


def _unreachable(shown: str, why: str) -> UnavailableError:
    return UnavailableError(
        f"the cluster database {shown} cannot be reached: {why}",
        code="cluster_unreachable",
        hint=f"see that its server runs and that this node reaches it; {_AGAIN}",
        database=shown,
    )


def _of_server(shown: str, error: asyncpg.PostgresError) -> InstepError:
    state, said = str(error.sqlstate or ""), error.args[0] if error.args else ""
    if state in _READ_ONLY:
        return UnavailableError(
            f"the server of the cluster database {shown} takes no changes: {said}",
            code="cluster_read_only",
            hint=f"let the address in cluster_file lead to the primary; {_AGAIN}",
            database=shown,
        )
    if state.startswith("28"):
        return NotAllowedError(
            f"the cluster database {shown} does not let this node in: {said}",
            code="cluster_login_refused",
            hint=f"put the right user and password into the cluster_file; {_AGAIN}",
            database=shown,
        ).later()
    if state == "42501":
        return NotAllowedError(
            f"the user of the cluster database {shown} lacks a right: {said}",
            code="cluster_rights",
            hint=f"let it be the owner of its own database or schema; {_AGAIN}",
            database=shown,
        ).later()
    if state in _BUSY:
        return ContentionError(
            f"another node was in the way in the cluster database {shown}: {said}",
            code="cluster_busy",
            hint="repeat the command",
            database=shown,
        )
    if state.startswith("53") and state != "53300":
        return ResourceError(
            f"the server of the cluster database {shown} lacks room: {said}",
            code="cluster_io",
            hint=f"free disk or memory on the server of the database; {_AGAIN}",
            database=shown,
        )
    if state in _SCHEMA_GONE:
        return DamagedError(
            f"tables of instep in the cluster database {shown} were changed or removed: {said}",
            code="cluster_damaged",
            hint="restore the database from a backup, then stop and start the nodes",
            database=shown,
        )
    return _unreachable(shown, f"{said} ({state})")
