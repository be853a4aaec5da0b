"""The node store in memory: the twin of the SQLite one for simulation and tests. It passes the same exam."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from instep.errors import PeerError, UnavailableError
from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.paths import is_below, sort_key
from instep.model.statrow import StatRow
from instep.store.port import EVENTS_KEPT, ROLLOUTS_KEPT, ChangeRow, ChangeSide, EventRow, LineRow


@dataclass
class _Line:
    state: bytes | None = None
    head: HeadRef | None = None
    live: HeadRef | None = None


@dataclass
class _Tables:
    """Everything that a transaction can undo; values are replaced, never changed, so a shallow copy keeps it."""

    pages: dict[Digest, tuple[bytes, int]] = field(default_factory=dict)
    sweep: int = 0
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    generations: dict[Digest, SignedGeneration] = field(default_factory=dict)
    positions: dict[tuple[LineId, int, int], Digest] = field(default_factory=dict)
    epochs: dict[tuple[LineId, int, Digest], SignedEpoch] = field(default_factory=dict)
    lines: dict[LineId, _Line] = field(default_factory=dict)
    reports: dict[tuple[LineId, NodeName], bytes] = field(default_factory=dict)
    rollout_states: dict[LineId, bytes] = field(default_factory=dict)
    rollouts: dict[LineId, tuple[bytes, ...]] = field(default_factory=dict)
    change_states: dict[tuple[LineId, ChangeSide], bytes] = field(default_factory=dict)
    changes: dict[Digest, tuple[LineId, int, ChangeRow, NodeName]] = field(default_factory=dict)
    named: dict[str, bytes] = field(default_factory=dict)
    stat: dict[tuple[FilesetName, bytes], StatRow] = field(default_factory=dict)
    events: list[EventRow] = field(default_factory=list)
    events_seen: int = 0

    def copied(self) -> _Tables:
        twin = copy.copy(self)
        for name, table in vars(self).items():
            if isinstance(table, dict | list):
                setattr(twin, name, table.copy())
        return twin


class MemoryStore:
    """Nothing is durable; everything else is as the port says."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = threading.RLock()
        self._is_open = True

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        with self._lock:
            self.check()
            before = self._tables.copied()
            try:
                yield
            except BaseException:
                self._tables = before
                raise

    def check(self) -> None:
        if not self._is_open:
            raise UnavailableError("the store is closed", code="state_closed")

    def close(self) -> None:
        self._is_open = False

    # pages

    def get_page(self, digest: Digest) -> bytes | None:
        self.check()
        found = self._tables.pages.get(digest)
        return None if found is None else found[0]

    def has_pages(self, digests: Iterable[Digest]) -> set[Digest]:
        found = set()
        for digest in digests:
            page = self._tables.pages.get(digest)
            if page is not None:
                self._tables.pages[digest] = (page[0], self._tables.sweep)
                found.add(digest)
        return found

    def put_pages(self, pages: Iterable[tuple[Digest, bytes]]) -> None:
        for digest, raw in pages:
            self._tables.pages[digest] = (raw, self._tables.sweep)

    def delete_pages(self, digests: Iterable[Digest]) -> None:
        for digest in digests:
            self._tables.pages.pop(digest, None)

    def pages_count(self) -> int:
        return len(self._tables.pages)

    def begin_sweep(self) -> int:
        self._tables.sweep += 1
        return self._tables.sweep

    def sweep_pages(self, keep: Iterable[Digest], ticket: int) -> int:
        kept = set(keep)
        victims = [
            digest
            for digest, (_, sweep) in self._tables.pages.items()
            if sweep < ticket and digest not in kept
        ]
        self.delete_pages(victims)
        return len(victims)

    # blobs

    def get_blob(self, digest: Digest) -> bytes | None:
        return self._tables.blobs.get(digest)

    def put_blob(self, digest: Digest, raw: bytes) -> None:
        self._tables.blobs.setdefault(digest, raw)

    # generations and epochs

    def add_generation(self, generation: SignedGeneration, *, durable: bool = True) -> None:
        body = generation.body()
        position = (body.line, body.epoch, body.number)
        other = self._tables.positions.setdefault(position, generation.id)
        if other != generation.id:
            raise PeerError(
                f"line {body.line} has two generations {body.number} in epoch {body.epoch}",
                code="generation_conflict",
                line=str(body.line),
                ids=[other.hex(), generation.id.hex()],
            )
        self._tables.generations[generation.id] = generation

    def generation(self, generation_id: Digest) -> SignedGeneration | None:
        return self._tables.generations.get(generation_id)

    def generation_at(self, line: LineId, epoch: int, number: int) -> SignedGeneration | None:
        found = self._tables.positions.get((line, epoch, number))
        return None if found is None else self._tables.generations[found]

    def generations(self, line: LineId, limit: int = 100) -> list[SignedGeneration]:
        places = sorted((place for place in self._tables.positions if place[0] == line), reverse=True)
        return [self._tables.generations[self._tables.positions[place]] for place in places[:limit]]

    def delete_generations(self, generation_ids: Iterable[Digest]) -> None:
        for one in generation_ids:
            if self._tables.generations.pop(one, None) is not None:
                self._tables.positions = {k: v for k, v in self._tables.positions.items() if v != one}

    def add_epoch(self, epoch: SignedEpoch) -> None:
        body = epoch.body()
        self._tables.epochs[body.line, body.epoch, epoch.id] = epoch

    def epochs(self, line: LineId) -> list[SignedEpoch]:
        return [self._tables.epochs[key] for key in sorted(k for k in self._tables.epochs if k[0] == line)]

    # lines

    def load_line(self, line: LineId) -> bytes | None:
        found = self._tables.lines.get(line)
        return None if found is None else found.state

    def save_line(self, line: LineId, state: bytes, *, durable: bool = True) -> None:
        old = self._tables.lines.get(line, _Line())
        self._tables.lines[line] = _Line(state, old.head, old.live)

    def set_head(self, line: LineId, head: HeadRef) -> None:
        old = self._tables.lines.get(line, _Line())
        self._tables.lines[line] = _Line(old.state, head, old.live)

    def set_live(self, line: LineId, live: HeadRef | None) -> None:
        old = self._tables.lines.get(line, _Line())
        self._tables.lines[line] = _Line(old.state, old.head, live)

    def lines(self) -> list[LineRow]:
        return [LineRow(line, row.head, row.live) for line, row in sorted(self._tables.lines.items())]

    # rollouts

    def load_rollout(self, line: LineId) -> bytes | None:
        return self._tables.rollout_states.get(line)

    def save_rollout(self, line: LineId, state: bytes, *, durable: bool = True) -> None:
        self._tables.rollout_states[line] = state

    def keep_rollout(self, line: LineId, finished: bytes, *, durable: bool = True) -> None:
        kept = (*self._tables.rollouts.get(line, ()), finished)
        self._tables.rollouts[line] = kept[-ROLLOUTS_KEPT:]

    def rollouts(self, line: LineId, limit: int = 50) -> list[bytes]:
        return list(reversed(self._tables.rollouts.get(line, ())))[:limit]

    # changes from elsewhere

    def load_changes(self, line: LineId, side: ChangeSide) -> bytes | None:
        return self._tables.change_states.get((line, side))

    def save_changes(self, line: LineId, side: ChangeSide, state: bytes) -> None:
        self._tables.change_states[line, side] = state

    def change(self, change_id: Digest) -> ChangeRow | None:
        found = self._tables.changes.get(change_id)
        return found[2] if found is not None else None

    def keep_change(self, line: LineId, change_id: Digest, kept: bytes, at_ms: int, source: NodeName) -> None:
        found = self.change(change_id)
        if found is None or found.answer is None:
            self._tables.changes[change_id] = line, at_ms, ChangeRow(kept, None), source

    def answer_change(
        self, line: LineId, change_id: Digest, answer: bytes, at_ms: int, source: NodeName
    ) -> None:
        self._tables.changes[change_id] = line, at_ms, ChangeRow(None, answer), source

    def changes_of(self, line: LineId, source: NodeName) -> tuple[int, int]:
        found = self._tables.changes.values()
        rows = [row for of, _, row, from_ in found if (of, from_) == (line, source)]
        return len(rows), sum(len(row.kept or b"") + len(row.answer or b"") for row in rows)

    def delete_changes(self, line: LineId, before_ms: int) -> int:
        changes = self._tables.changes
        old = [name for name, (of, at_ms, _, _) in changes.items() if of == line and at_ms < before_ms]
        for name in old:
            del changes[name]
        return len(old)

    # odds and ends

    def get(self, key: str) -> bytes | None:
        return self._tables.named.get(key)

    def put(self, key: str, value: bytes, *, durable: bool = True) -> None:
        self._tables.named[key] = value

    def delete(self, key: str) -> None:
        self._tables.named.pop(key, None)

    # the stat cache

    def stat_rows(self, fileset: FilesetName, after: bytes = b"", below: bytes = b"") -> Iterator[StatRow]:
        rows = [row for (name, _), row in self._tables.stat.items() if name == fileset]
        for row in sorted(rows, key=lambda row: sort_key(row.path)):
            if sort_key(row.path) > sort_key(after) and is_below(row.path, below):
                yield row

    def stat_row(self, fileset: FilesetName, path: bytes) -> StatRow | None:
        return self._tables.stat.get((fileset, path))

    def stat_by_inode(self, fileset: FilesetName, dev: int, ino: int) -> StatRow | None:
        return next((row for row in self.stat_rows(fileset) if (row.dev, row.ino) == (dev, ino)), None)

    def put_stat_rows(self, fileset: FilesetName, rows: Iterable[StatRow]) -> None:
        for row in rows:
            self._tables.stat[fileset, row.path] = row

    def delete_stat_rows(self, fileset: FilesetName, paths: Iterable[bytes]) -> None:
        for path in paths:
            self._tables.stat.pop((fileset, path), None)

    def delete_stat_trees(self, fileset: FilesetName, directories: Iterable[bytes]) -> None:
        tops = tuple(directories)
        self._tables.stat = {
            (name, path): row
            for (name, path), row in self._tables.stat.items()
            if name != fileset or not any(path == top or is_below(path, top) for top in tops)
        }

    # reports and events

    def save_report(self, line: LineId, partner: NodeName, report: bytes) -> None:
        self._tables.reports[line, partner] = report

    def reports(self, line: LineId) -> dict[NodeName, bytes]:
        return {
            partner: self._tables.reports[line, partner]
            for partner in sorted(name for of, name in self._tables.reports if of == line)
        }

    def delete_report(self, line: LineId, partner: NodeName) -> None:
        self._tables.reports.pop((line, partner), None)

    def delete_reports(self, partner: NodeName) -> None:
        self._tables.reports = {k: v for k, v in self._tables.reports.items() if k[1] != partner}

    def append_event(
        self, at_ms: int, kind: str, line: LineId | None, text: str, facts: Mapping[str, object]
    ) -> int:
        tables = self._tables
        tables.events_seen += 1
        tables.events.append(EventRow(tables.events_seen, at_ms, kind, line, text, dict(facts)))
        del tables.events[:-EVENTS_KEPT]
        return tables.events_seen

    def events(self, since_ms: int = 0, limit: int = 1000, after: int = 0) -> Sequence[EventRow]:
        found = [event for event in self._tables.events if event.at_ms >= since_ms and event.number > after]
        return found[max(0, len(found) - limit) :]
