"""The stat cache's table: rows in and out, in path order, on a connection that the caller holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from instep.model.ids import FilesetName
from instep.model.paths import sort_key
from instep.model.statrow import StatRow

READ_BATCH_FIRST = 16
"""Rows of the first batch: many callers want no more. Each batch behind it is four times as large."""
READ_BATCH = 4096
WRITE_BATCH = 4096

key_of = sort_key
_COLUMNS = "key, ino, dev, ctime_ns, mtime_ns, size, digest, chunks, read_at_ns"
_OF_FILESET = "fileset = (SELECT id FROM fileset WHERE name = ?)"
_TWO_64 = 1 << 64
_INT64_MAX = (1 << 63) - 1
_TIME_MIN = -2_500_000_000 * 10**9
"""Times before 1890 are taken for the wrapped ones of after 2262: ext4 has 1901 to 2446, XFS 1901 to 2486."""


def key_range(after: bytes, below: bytes) -> tuple[bytes, bytes | None]:
    """Exclusive bounds on keys: those after the path ``after`` and below the directory ``below``."""
    start, end = key_of(after), None
    if below:
        start = max(start, key_of(below) + b"\0")
        end = key_of(below) + b"\1"
    return start, end


def read_batch(
    connection: apsw.Connection, fileset: FilesetName, start: bytes, end: bytes | None, most: int
) -> list[StatRow]:
    """At most ``most`` rows with ``start < key < end``."""
    sql = f"SELECT {_COLUMNS} FROM stat WHERE {_OF_FILESET} AND key > ?"
    values: tuple[apsw.SQLiteValue, ...] = (fileset, start)
    if end is not None:
        sql += " AND key < ?"
        values += (end,)
    return [_row(*row) for row in connection.execute(f"{sql} ORDER BY key LIMIT {most}", values)]


def read_one(connection: apsw.Connection, fileset: FilesetName, path: bytes) -> StatRow | None:
    sql = f"SELECT {_COLUMNS} FROM stat WHERE {_OF_FILESET} AND key = ?"
    return next((_row(*row) for row in connection.execute(sql, (fileset, key_of(path)))), None)


def read_by_inode(connection: apsw.Connection, fileset: FilesetName, dev: int, ino: int) -> StatRow | None:
    which = f"{_OF_FILESET} AND ino = ? AND dev = ? ORDER BY key LIMIT 1"
    sql = f"SELECT {_COLUMNS} FROM stat INDEXED BY stat_inode WHERE {which}"
    return next((_row(*row) for row in connection.execute(sql, (fileset, _signed(ino), _signed(dev)))), None)


def write(connection: apsw.Connection, fileset: FilesetName, rows: Sequence[StatRow]) -> None:
    if not rows:
        return
    number = _fileset_number(connection, fileset)
    connection.executemany(
        "INSERT INTO stat VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (fileset, key) DO UPDATE SET"
        " ino = excluded.ino, dev = excluded.dev, ctime_ns = excluded.ctime_ns, mtime_ns = excluded.mtime_ns,"
        " size = excluded.size, digest = excluded.digest, chunks = excluded.chunks,"
        " read_at_ns = excluded.read_at_ns",
        [
            (
                number, row.path.replace(b"/", b"\0"), _signed(row.ino), _signed(row.dev),
                _signed(row.ctime_ns), _signed(row.mtime_ns), row.size, row.digest, row.chunks,
                _signed(row.read_at_ns),
            )
            for row in rows
        ],
    )  # fmt: skip


def delete(connection: apsw.Connection, fileset: FilesetName, paths: Iterable[bytes]) -> None:
    which = f"{_OF_FILESET} AND key = ?"
    connection.executemany(f"DELETE FROM stat WHERE {which}", [(fileset, key_of(path)) for path in paths])


def delete_trees(connection: apsw.Connection, fileset: FilesetName, directories: Iterable[bytes]) -> None:
    """Each directory's own row and all below it; every row of the fileset for the empty path."""
    keys = [key_of(directory) for directory in directories]
    # One range: with an OR for the own row SQLite looks at every row of the fileset for each directory.
    connection.executemany(
        f"DELETE FROM stat WHERE {_OF_FILESET} AND key >= ? AND key < ?",
        [(fileset, key, key + b"\1") for key in keys if key],
    )
    if b"" in keys:
        connection.execute(f"DELETE FROM stat WHERE {_OF_FILESET}", (fileset,))


def _fileset_number(connection: apsw.Connection, fileset: FilesetName) -> int:
    connection.execute("INSERT INTO fileset (name) VALUES (?) ON CONFLICT DO NOTHING", (fileset,))
    number = connection.execute("SELECT id FROM fileset WHERE name = ?", (fileset,)).get
    assert isinstance(number, int)
    return number


def _signed(value: int) -> int:
    if -(1 << 63) <= value <= _INT64_MAX:
        return value
    return (value + (1 << 63)) % _TWO_64 - (1 << 63)


def _row(key: bytes, ino: int, dev: int, ctime_ns: int, mtime_ns: int, *others: Any) -> StatRow:
    if ino < 0 or dev < 0 or ctime_ns < _TIME_MIN or mtime_ns < _TIME_MIN:
        ino, dev = _unwrapped(ino, 0), _unwrapped(dev, 0)
        ctime_ns, mtime_ns = _unwrapped(ctime_ns, _TIME_MIN), _unwrapped(mtime_ns, _TIME_MIN)
    return StatRow(key.replace(b"\0", b"/"), ino, dev, ctime_ns, mtime_ns, *others)


def _unwrapped(value: int, least: int) -> int:
    return value if value >= least else value + _TWO_64
