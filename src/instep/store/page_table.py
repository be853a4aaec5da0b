"""The tables of manifest and chunk-list pages, on a connection that the caller holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import apsw

from instep.model.ids import Digest

_BATCH = 512
_BATCH_BYTES = 8 << 20
_SPARE = "UPDATE page SET sweep = (SELECT value FROM counter WHERE name = 'sweep') WHERE digest = ?"


def batches(pages: Iterable[tuple[Digest, bytes]]) -> Iterator[list[tuple[Digest, bytes]]]:
    """Pages in lots that one transaction holds."""
    batch: list[tuple[Digest, bytes]] = []
    size = 0
    for digest, raw in pages:
        batch.append((digest, raw))
        size += len(raw)
        if len(batch) >= _BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def write(connection: apsw.Connection, batch: Sequence[tuple[Digest, bytes]]) -> None:
    """Keep pages; those known already are spared by a sweep that began."""
    sweep = _newest_sweep(connection)
    for digest, raw in batch:
        known = connection.execute("SELECT sweep FROM page WHERE digest = ?", (digest,)).get
        if known is None:
            connection.execute("INSERT INTO page_body (raw) VALUES (?)", (raw,))
            values = (digest, connection.last_insert_rowid(), sweep)
            connection.execute("INSERT INTO page VALUES (?, ?, ?)", values)
        elif known != sweep:
            connection.execute(_SPARE, (digest,))


def find(connection: apsw.Connection, digests: Sequence[Digest]) -> tuple[list[Digest], list[Digest]]:
    """The present ones of ``digests``, and of these the ones that the newest sweep would not spare."""
    newest = _newest_sweep(connection)
    look = f"SELECT digest, sweep FROM page WHERE digest IN ({','.join('?' * len(digests))})"
    present: list[Digest] = []
    stale: list[Digest] = []
    for digest, sweep in connection.execute(look, tuple(digests)):
        present.append(digest)
        if sweep < newest:
            stale.append(digest)
    return present, stale


def spare(connection: apsw.Connection, digests: Sequence[Digest]) -> None:
    connection.executemany(_SPARE, [(digest,) for digest in digests])


def unwanted(connection: apsw.Connection, after: bytes, ticket: int, limit: int) -> list[Digest]:
    """The next pages, by digest, that are neither in the temporary table ``keep`` nor spared."""
    rows = connection.execute(
        "SELECT digest FROM page WHERE digest > ? AND sweep < ?"
        " AND digest NOT IN (SELECT digest FROM keep) ORDER BY digest LIMIT ?",
        (after, ticket, limit),
    )
    return [Digest(row[0]) for row in rows]


def delete(connection: apsw.Connection, digests: Sequence[Digest]) -> None:
    names = [(digest,) for digest in digests]
    connection.executemany("DELETE FROM page_body WHERE id = (SELECT body FROM page WHERE digest = ?)", names)
    connection.executemany("DELETE FROM page WHERE digest = ?", names)


def _newest_sweep(connection: apsw.Connection) -> int:
    newest = connection.execute("SELECT value FROM counter WHERE name = 'sweep'").get
    assert isinstance(newest, int)
    return newest
