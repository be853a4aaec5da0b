"""The node store in SQLite: the embedded default, always local. See ``store.port`` for its promises."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import apsw
import msgspec

from instep.errors import PeerError
from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.statrow import StatRow
from instep.store import page_table, stat_table
from instep.store.database import Database
from instep.store.port import EVENTS_KEPT, ROLLOUTS_KEPT, ChangeRow, ChangeSide, EventRow, LineRow

_T = TypeVar("_T")
_LOOKUP_BATCH = 500
_DELETE_BATCH = 1000
_OF_LINE = "fileset = ? AND origin = ?"
_NEWEST = f"SELECT {{}} FROM rollout WHERE {_OF_LINE} ORDER BY number DESC LIMIT ?"

_encode = msgspec.msgpack.Encoder().encode
_decode_generation = msgspec.msgpack.Decoder(SignedGeneration).decode
_decode_epoch = msgspec.msgpack.Decoder(SignedEpoch).decode
_decode_head = msgspec.msgpack.Decoder(HeadRef).decode


class SqliteStore:
    """Opening checks the file and brings it up to date: ``DamagedError`` (``state_damaged``) when it is not
    whole, ``RefusedError`` (``state_newer``) when a newer instep wrote it.

    With ``read_only`` (``status`` while the daemon is down) nothing is checked or changed; with ``is_checked``
    this process has opened the file before (the check reads all of it, a second a million files).
    """

    def __init__(self, path: Path, *, read_only: bool = False, is_checked: bool = False) -> None:
        self._database = Database(path, read_only=read_only, is_checked=is_checked)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        with self._database.write(durable=durable):
            yield

    def check(self) -> None:
        self._database.check_present()

    def close(self) -> None:
        self._database.close()

    def _value(self, sql: str, *values: apsw.SQLiteValue) -> apsw.SQLiteValue:
        with self._database.held() as connection:
            for row in connection.execute(sql, values):
                return row[0]
            return None

    def _rows(self, sql: str, *values: apsw.SQLiteValue) -> list[tuple[Any, ...]]:
        with self._database.held() as connection:
            return connection.execute(sql, values).fetchall()

    def _blob(self, sql: str, *values: apsw.SQLiteValue) -> bytes | None:
        value = self._value(sql, *values)
        assert value is None or isinstance(value, bytes)
        return value

    def _change(self, sql: str, *values: apsw.SQLiteValue, durable: bool = False) -> int:
        with self._database.write(durable=durable) as connection:
            connection.execute(sql, values)
            return connection.changes()

    def _change_each(self, sql: str, values: Iterable[apsw.SQLiteValue]) -> None:
        with self._database.write(durable=False) as connection:
            connection.executemany(sql, [(value,) for value in values])

    # pages

    def get_page(self, digest: Digest) -> bytes | None:
        return self._blob("SELECT raw FROM page JOIN page_body ON id = body WHERE digest = ?", digest)

    def has_pages(self, digests: Iterable[Digest]) -> set[Digest]:
        found: set[Digest] = set()
        for batch in _batched(digests, _LOOKUP_BATCH):
            with self._database.held() as connection:
                present, stale = page_table.find(connection, batch)
            if stale and not self._database.is_read_only:
                with self._database.write(durable=False) as connection:
                    page_table.spare(connection, stale)
                    present, _ = page_table.find(connection, batch)  # a sweep may have taken some meanwhile
            found.update(present)
        return found

    def put_pages(self, pages: Iterable[tuple[Digest, bytes]]) -> None:
        for batch in page_table.batches(pages):
            with self._database.write(durable=False) as connection:
                page_table.write(connection, batch)

    def delete_pages(self, digests: Iterable[Digest]) -> None:
        for batch in _batched(digests, _DELETE_BATCH):
            with self._database.write(durable=False) as connection:
                page_table.delete(connection, batch)

    def pages_count(self) -> int:
        count = self._value("SELECT count(*) FROM page")
        assert isinstance(count, int)
        return count

    def begin_sweep(self) -> int:
        with self._database.write(durable=False) as connection:
            ticket = connection.execute(
                "UPDATE counter SET value = value + 1 WHERE name = 'sweep' RETURNING value"
            ).get
        assert isinstance(ticket, int)
        return ticket

    def sweep_pages(self, keep: Iterable[Digest], ticket: int) -> int:
        with self._database.held() as connection:
            connection.execute("CREATE TEMP TABLE IF NOT EXISTS keep (digest BLOB PRIMARY KEY) WITHOUT ROWID")
            connection.execute("DELETE FROM keep")
        for batch in _batched(keep, stat_table.WRITE_BATCH):
            self._change_each("INSERT OR IGNORE INTO keep VALUES (?)", batch)
        dropped = 0
        last = b""
        while True:  # each round passes at least one digest on, so it ends with the table
            with self._database.write(durable=False) as connection:
                victims = page_table.unwanted(connection, last, ticket, _DELETE_BATCH)
                page_table.delete(connection, victims)
            dropped += len(victims)
            if len(victims) < _DELETE_BATCH:
                break
            last = victims[-1]
        with self._database.held() as connection:
            connection.execute("DELETE FROM keep")
        return dropped

    # blobs

    def get_blob(self, digest: Digest) -> bytes | None:
        return self._blob("SELECT raw FROM blob WHERE digest = ?", digest)

    def put_blob(self, digest: Digest, raw: bytes) -> None:
        self._change("INSERT INTO blob VALUES (?, ?) ON CONFLICT DO NOTHING", digest, raw)

    # generations and epochs

    def add_generation(self, generation: SignedGeneration, *, durable: bool = True) -> None:
        body = generation.body()
        with self._database.write(durable=durable) as connection:
            other = connection.execute(
                "SELECT id FROM generation WHERE fileset = ? AND origin = ? AND epoch = ? AND number = ?",
                (body.fileset, body.origin, body.epoch, body.number),
            ).get
            if other is not None and other != generation.id:
                raise PeerError(
                    f"line {body.line} has two generations {body.number} in epoch {body.epoch}",
                    code="generation_conflict",
                    line=str(body.line),
                    ids=[bytes(other).hex() if isinstance(other, bytes) else None, generation.id.hex()],
                )
            connection.execute(
                "INSERT INTO generation VALUES (?, ?, ?, ?, ?, ?)"
                " ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                (generation.id, body.fileset, body.origin, body.epoch, body.number, _encode(generation)),
            )

    def generation(self, generation_id: Digest) -> SignedGeneration | None:
        raw = self._blob("SELECT record FROM generation WHERE id = ?", generation_id)
        return None if raw is None else _decode_generation(raw)

    def generation_at(self, line: LineId, epoch: int, number: int) -> SignedGeneration | None:
        sql = f"SELECT record FROM generation WHERE {_OF_LINE} AND epoch = ? AND number = ?"
        raw = self._blob(sql, *_of(line), epoch, number)
        return None if raw is None else _decode_generation(raw)

    def generations(self, line: LineId, limit: int = 100) -> list[SignedGeneration]:
        sql = f"SELECT record FROM generation WHERE {_OF_LINE} ORDER BY epoch DESC, number DESC LIMIT ?"
        return [_decode_generation(row[0]) for row in self._rows(sql, *_of(line), limit)]

    def delete_generations(self, generation_ids: Iterable[Digest]) -> None:
        self._change_each("DELETE FROM generation WHERE id = ?", generation_ids)

    def add_epoch(self, epoch: SignedEpoch) -> None:
        body = epoch.body()
        self._change(
            "INSERT INTO epoch VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (fileset, origin, epoch, id) DO UPDATE SET record = excluded.record",
            body.fileset, body.origin, body.epoch, epoch.id, _encode(epoch),
            durable=True,
        )  # fmt: skip

    def epochs(self, line: LineId) -> list[SignedEpoch]:
        rows = self._rows(f"SELECT record FROM epoch WHERE {_OF_LINE} ORDER BY epoch, id", *_of(line))
        return [_decode_epoch(row[0]) for row in rows]

    # lines

    def load_line(self, line: LineId) -> bytes | None:
        return self._blob(f"SELECT state FROM line WHERE {_OF_LINE}", *_of(line))

    def save_line(self, line: LineId, state: bytes, *, durable: bool = True) -> None:
        self._set_line(line, "state", state, durable=durable)

    def set_head(self, line: LineId, head: HeadRef) -> None:
        self._set_line(line, "head", _encode(head), durable=False)

    def set_live(self, line: LineId, live: HeadRef | None) -> None:
        self._set_line(line, "live", None if live is None else _encode(live), durable=False)

    def _set_line(self, line: LineId, column: str, value: bytes | None, *, durable: bool) -> None:
        self._change(
            f"INSERT INTO line (fileset, origin, {column}) VALUES (?, ?, ?)"
            f" ON CONFLICT (fileset, origin) DO UPDATE SET {column} = excluded.{column}",
            *_of(line), value,
            durable=durable,
        )  # fmt: skip

    def lines(self) -> list[LineRow]:
        rows = self._rows("SELECT fileset, origin, head, live FROM line ORDER BY fileset, origin")
        return [LineRow(_line(row[0], row[1]), _head(row[2]), _head(row[3])) for row in rows]

    # rollouts

    def load_rollout(self, line: LineId) -> bytes | None:
        return self._blob(f"SELECT state FROM rollout_state WHERE {_OF_LINE}", *_of(line))

    def save_rollout(self, line: LineId, state: bytes, *, durable: bool = True) -> None:
        self._change(
            "INSERT INTO rollout_state VALUES (?, ?, ?)"
            " ON CONFLICT (fileset, origin) DO UPDATE SET state = excluded.state",
            *_of(line), state,
            durable=durable,
        )  # fmt: skip

    def keep_rollout(self, line: LineId, finished: bytes, *, durable: bool = True) -> None:
        insert = "INSERT INTO rollout (fileset, origin, record) VALUES (?, ?, ?)"
        prune = f"DELETE FROM rollout WHERE {_OF_LINE} AND number NOT IN ({_NEWEST.format('number')})"
        with self._database.write(durable=durable) as connection:
            connection.execute(insert, (*_of(line), finished))
            connection.execute(prune, (*_of(line), *_of(line), ROLLOUTS_KEPT))

    def rollouts(self, line: LineId, limit: int = 50) -> list[bytes]:
        return [row[0] for row in self._rows(_NEWEST.format("record"), *_of(line), limit)]

    # changes from elsewhere

    def load_changes(self, line: LineId, side: ChangeSide) -> bytes | None:
        look = f"SELECT state FROM change_state WHERE {_OF_LINE} AND side = ?"
        return self._blob(look, *_of(line), side.value)

    def save_changes(self, line: LineId, side: ChangeSide, state: bytes) -> None:
        self._change(
            "INSERT INTO change_state VALUES (?, ?, ?, ?)"
            " ON CONFLICT (fileset, origin, side) DO UPDATE SET state = excluded.state",
            *_of(line), side.value, state, durable=True,
        )  # fmt: skip

    def change(self, change_id: Digest) -> ChangeRow | None:
        found = self._rows("SELECT kept, answer FROM change_set WHERE id = ?", change_id)
        return ChangeRow(*found[0]) if found else None

    def keep_change(self, line: LineId, change_id: Digest, kept: bytes, at_ms: int, source: NodeName) -> None:
        self._change(
            "INSERT INTO change_set VALUES (?, ?, ?, ?, ?, NULL, ?)"
            " ON CONFLICT (id) DO UPDATE SET kept = excluded.kept, at_ms = excluded.at_ms WHERE answer IS NULL",
            change_id, *_of(line), at_ms, kept, source, durable=True,
        )  # fmt: skip

    def answer_change(
        self, line: LineId, change_id: Digest, answer: bytes, at_ms: int, source: NodeName
    ) -> None:
        self._change(
            "INSERT INTO change_set VALUES (?, ?, ?, ?, NULL, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET kept = NULL, answer = excluded.answer, at_ms = excluded.at_ms",
            change_id, *_of(line), at_ms, answer, source, durable=True,
        )  # fmt: skip

    def changes_of(self, line: LineId, source: NodeName) -> tuple[int, int]:
        look = f"SELECT sets, bytes FROM change_use WHERE {_OF_LINE} AND source = ?"
        return next(iter(self._rows(look, *_of(line), source)), (0, 0))

    def delete_changes(self, line: LineId, before_ms: int) -> int:
        return self._change(f"DELETE FROM change_set WHERE {_OF_LINE} AND at_ms < ?", *_of(line), before_ms)

    # odds and ends

    def get(self, key: str) -> bytes | None:
        return self._blob("SELECT value FROM named WHERE key = ?", key)

    def put(self, key: str, value: bytes, *, durable: bool = True) -> None:
        self._change(
            "INSERT INTO named VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            key, value, durable=durable,
        )  # fmt: skip

    def delete(self, key: str) -> None:
        self._change("DELETE FROM named WHERE key = ?", key, durable=True)

    # the stat cache

    def stat_rows(self, fileset: FilesetName, after: bytes = b"", below: bytes = b"") -> Iterator[StatRow]:
        (start, end), most = stat_table.key_range(after, below), stat_table.READ_BATCH_FIRST
        while True:
            with self._database.held() as connection:
                batch = stat_table.read_batch(connection, fileset, start, end, most)
            yield from batch
            if len(batch) < most:
                return
            start, most = stat_table.key_of(batch[-1].path), min(4 * most, stat_table.READ_BATCH)

    def stat_row(self, fileset: FilesetName, path: bytes) -> StatRow | None:
        with self._database.held() as connection:
            return stat_table.read_one(connection, fileset, path)

    def stat_by_inode(self, fileset: FilesetName, dev: int, ino: int) -> StatRow | None:
        with self._database.held() as connection:
            return stat_table.read_by_inode(connection, fileset, dev, ino)

    def put_stat_rows(self, fileset: FilesetName, rows: Iterable[StatRow]) -> None:
        for batch in _batched(rows, stat_table.WRITE_BATCH):
            with self._database.write(durable=False) as connection:
                stat_table.write(connection, fileset, batch)

    def delete_stat_rows(self, fileset: FilesetName, paths: Iterable[bytes]) -> None:
        for batch in _batched(paths, stat_table.WRITE_BATCH):
            with self._database.write(durable=False) as connection:
                stat_table.delete(connection, fileset, batch)

    def delete_stat_trees(self, fileset: FilesetName, directories: Iterable[bytes]) -> None:
        for batch in _batched(directories, stat_table.WRITE_BATCH):
            with self._database.write(durable=False) as connection:
                stat_table.delete_trees(connection, fileset, batch)

    # reports and events

    def save_report(self, line: LineId, partner: NodeName, report: bytes) -> None:
        self._change(
            "INSERT INTO report VALUES (?, ?, ?, ?)"
            " ON CONFLICT (fileset, origin, partner) DO UPDATE SET report = excluded.report",
            *_of(line), partner, report,
        )  # fmt: skip

    def reports(self, line: LineId) -> dict[NodeName, bytes]:
        rows = self._rows(f"SELECT partner, report FROM report WHERE {_OF_LINE} ORDER BY partner", *_of(line))
        return {NodeName(row[0]): row[1] for row in rows}

    def delete_report(self, line: LineId, partner: NodeName) -> None:
        self._change(f"DELETE FROM report WHERE {_OF_LINE} AND partner = ?", *_of(line), partner)

    def delete_reports(self, partner: NodeName) -> None:
        self._change("DELETE FROM report WHERE partner = ?", partner)

    def append_event(
        self, at_ms: int, kind: str, line: LineId | None, text: str, facts: Mapping[str, object]
    ) -> int:
        fileset, origin = (None, None) if line is None else _of(line)
        with self._database.write(durable=False) as connection:
            connection.execute(
                "INSERT INTO event (at_ms, kind, fileset, origin, text, facts) VALUES (?, ?, ?, ?, ?, ?)",
                (at_ms, kind, fileset, origin, text, msgspec.json.encode(facts)),
            )
            number = connection.last_insert_rowid()
            connection.execute("DELETE FROM event WHERE number <= ?", (number - EVENTS_KEPT,))
        return number

    def events(self, since_ms: int = 0, limit: int = 1000, after: int = 0) -> Sequence[EventRow]:
        rows = self._rows(
            "SELECT number, at_ms, kind, fileset, origin, text, facts FROM event WHERE at_ms >= ?"
            " AND number > ? ORDER BY number DESC LIMIT ?",
            since_ms, after, limit,
        )  # fmt: skip
        return [
            EventRow(
                number, at_ms, kind, None if fileset is None else _line(fileset, origin), text,
                msgspec.json.decode(facts, type=dict[str, object]),
            )
            for number, at_ms, kind, fileset, origin, text, facts in reversed(rows)
        ]  # fmt: skip


def _batched(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _of(line: LineId) -> tuple[FilesetName, NodeName]:
    """The values of ``_OF_LINE``."""
    return line.fileset, line.origin


def _line(fileset: str, origin: str) -> LineId:
    return LineId(FilesetName(fileset), NodeName(origin))


def _head(raw: bytes | None) -> HeadRef | None:
    return None if raw is None else _decode_head(raw)
