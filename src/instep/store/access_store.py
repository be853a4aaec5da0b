"""Users, tokens, sessions, wrong sign-ins and the audit, in a file beside the node's state.

The node's state can be rebuilt and is thrown away when it is damaged; nothing here can. Values are JSON of the callers.
Rows of the audit are ordered and atomic, and on disk with the next durable write: a power cut can take the last ones.
Errors are those of ``store.port``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from instep.store.database import Database

AUDIT_KEPT = 100_000
"""Older rows of the audit are pruned as new ones are appended."""


class AuditRow(NamedTuple):
    """One row of the audit; ``record`` is JSON."""

    number: int
    at_ms: int
    record: bytes


class Attempts(NamedTuple):
    """How many wrong sign-ins a bucket counted since a moment."""

    tried: int
    since_ms: int


class AccessStore:
    """May be used from any thread, one call at a time."""

    def __init__(self, path: Path) -> None:
        self._database = Database(path, migrations="access_migrations")

    def close(self) -> None:
        self._database.close()

    def _rows(self, sql: str, *values: apsw.SQLiteValue) -> list[tuple[Any, ...]]:
        with self._database.held() as connection:
            return connection.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self, *, durable: bool) -> Iterator[apsw.Connection]:
        with self._database.write(durable=durable) as connection:
            yield connection

    # records: users, tokens, sessions, links, answers

    def get(self, kind: str, key: str) -> bytes | None:
        rows = self._rows("SELECT value FROM record WHERE kind = ? AND key = ?", kind, key)
        return rows[0][0] if rows else None

    def all(self, kind: str) -> list[tuple[str, bytes]]:
        """Every record of a kind, by key."""
        return [
            (key, value)
            for key, value in self._rows("SELECT key, value FROM record WHERE kind = ? ORDER BY key", kind)
        ]

    def put(self, kind: str, key: str, at_ms: int, value: bytes, *, durable: bool = True) -> None:
        """Keep or replace; not ``durable`` for a moment of last use."""
        with self._writing(durable=durable) as connection:
            connection.execute(
                "INSERT INTO record VALUES (?, ?, ?, ?) ON CONFLICT (kind, key)"
                " DO UPDATE SET at_ms = excluded.at_ms, value = excluded.value",
                (kind, key, at_ms, value),
            )

    def take(self, kind: str, key: str) -> bytes | None:
        """Remove and return; of two callers one gets it."""
        with self._writing(durable=True) as connection:
            found = connection.execute(
                "DELETE FROM record WHERE kind = ? AND key = ? RETURNING value", (kind, key)
            ).get
        assert found is None or isinstance(found, bytes)
        return found

    def delete_older(self, kind: str, at_ms: int) -> None:
        """Forget records of a kind that were last written before this moment."""
        with self._writing(durable=False) as connection:
            connection.execute("DELETE FROM record WHERE kind = ? AND at_ms < ?", (kind, at_ms))

    # wrong sign-ins

    def attempts(self, bucket: str) -> Attempts | None:
        rows = self._rows("SELECT count, since_ms FROM attempt WHERE bucket = ?", bucket)
        return Attempts(*rows[0]) if rows else None

    def set_attempts(self, bucket: str, count: int, since_ms: int) -> None:
        """Not durable: a crash of the process keeps it, which is what a guesser could cause."""
        with self._writing(durable=False) as connection:
            connection.execute(
                "INSERT INTO attempt VALUES (?, ?, ?) ON CONFLICT (bucket)"
                " DO UPDATE SET count = excluded.count, since_ms = excluded.since_ms",
                (bucket, count, since_ms),
            )

    def forget_attempts(self, bucket: str) -> None:
        with self._writing(durable=False) as connection:
            connection.execute("DELETE FROM attempt WHERE bucket = ?", (bucket,))

    # the audit

    def append_audit(self, at_ms: int, record: bytes) -> int:
        """Append a row and prune the oldest; its number."""
        with self._writing(durable=False) as connection:
            connection.execute("INSERT INTO audit (at_ms, record) VALUES (?, ?)", (at_ms, record))
            number = connection.last_insert_rowid()
            connection.execute("DELETE FROM audit WHERE number <= ?", (number - AUDIT_KEPT,))
        return number

    def finish_audit(self, number: int, record: bytes) -> None:
        """Replace the record of a row, once the outcome of its command is known."""
        with self._writing(durable=False) as connection:
            connection.execute("UPDATE audit SET record = ? WHERE number = ?", (record, number))

    def audit(self, since_ms: int = 0, limit: int = 1_000, before: int | None = None) -> list[AuditRow]:
        """The newest ``limit`` rows since a moment with numbers below ``before``, newest first."""
        rows = self._rows(
            "SELECT number, at_ms, record FROM audit WHERE at_ms >= ? AND number < ?"
            " ORDER BY number DESC LIMIT ?",
            since_ms, before if before is not None else 1 << 62, limit,
        )  # fmt: skip
        return [AuditRow(*row) for row in rows]
