"""From the difference of two manifests to steps and objects to stage. Implements section 3 of
``docs/spec/journal.md``; streams, so its memory does not grow with the trees (but for candidates of moves).

It touches no file: it asks about the live tree through ``Live``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
from blake3 import blake3

from instep.errors import PeerError
from instep.model.ids import Digest
from instep.model.limits import DEPTH_MAX
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import Change
from instep.model.paths import is_below, parent_of, shown
from instep.tree.journal.journal import Op, Step

HINTS_MAX = 1 << 16
"""So many displaced files are kept by digest as sources of new paths."""

_OWNER_WRITES = 0o300
"""Without these bits only root can change what is in a directory, or move the directory elsewhere."""

_encode = msgspec.msgpack.Encoder().encode


class Live(Protocol):
    """The planner's questions about the live tree."""

    def children(self, path: bytes) -> list[bytes] | None:
        """The names in a live directory; None when ``path`` is not one."""

    def is_ignored(self, path: bytes, is_dir: bool) -> bool:
        """Whether the target's definition ignores ``path``."""

    def is_same(self, old: Entry, new: Entry) -> bool:
        """Whether both stand in the same local form, times of directories apart."""

    def target_directory(self, path: bytes) -> Entry | None:
        """The target's entry for the directory ``path``."""


@dataclass(frozen=True, slots=True)
class PlannedSteps:
    """A step, an object to stage at ``slot`` (relative to the stage), or both for a topmost object."""

    step: Step | None
    slot: bytes
    entry: Entry | None
    old: Entry | None
    page: Digest
    index: int

    @property
    def path(self) -> bytes:
        if self.entry is not None:
            return self.entry.path
        assert self.step is not None
        return self.step.path


@dataclass(slots=True)
class Moves:
    """The result of one look at the difference: directories moved as a whole (``dst`` to ``src``), displaced files by
    digest, and totals of new and changed entries."""

    directories: dict[bytes, bytes] = field(default_factory=dict)
    hints: dict[Digest, bytes] = field(default_factory=dict)
    entries: int = 0
    size_bytes: int = 0

    def live_path(self, path: bytes) -> bytes | None:
        """Where the live tree has what becomes ``path`` by a move; None when it is in no moved directory."""
        at = path
        while at:
            source = self.directories.get(at)
            if source is not None:
                return source + path[len(at) :]
            at = parent_of(at)
        return None


def object_key(path: bytes) -> bytes:
    """Where ``path`` is staged in ``o/``: depends on the path only."""
    return blake3(path).hexdigest(length=16).encode()


def find_moves(changes: Iterable[Change]) -> Moves:
    """Pair each removed topmost directory with a new one that holds exactly the same.

    Compared are relative path, kind, mode, size, digest, extra, and times of all but directories.
    """
    moves = Moves()
    gone: dict[bytes, bytes] = {}
    new: dict[bytes, bytes] = {}
    top: bytes | None = None
    top_is_new = False
    skipped = b""
    hasher = hashlib.blake2b(digest_size=32)

    def finish() -> None:
        if top is not None:
            (new if top_is_new else gone)[top] = hasher.digest()

    for change in changes:
        old, entry = change.old, change.new
        if entry is not None:
            moves.entries += 1
            moves.size_bytes += entry.size
        if old is not None and old.kind is Kind.FILE and len(moves.hints) < HINTS_MAX:
            moves.hints.setdefault(old.digest, change.path)
        if skipped and is_below(change.path, skipped):
            continue
        if top is not None and is_below(change.path, top):
            side = entry if top_is_new else old
            if side is not None:
                hasher.update(_likeness(side, top))
            continue
        finish()
        top = None
        is_new = entry is not None and entry.kind is Kind.DIR and old is None
        is_gone = old is not None and old.kind is Kind.DIR and entry is None
        if (
            not (is_new or is_gone)
            and _kind(old) is not _kind(entry)
            and Kind.DIR in (_kind(old), _kind(entry))
        ):
            # Paths below are staged or displaced with it, and move nowhere by themselves.
            skipped = change.path
        if is_new or is_gone:
            top, top_is_new = change.path, is_new
            hasher = hashlib.blake2b(digest_size=32)
            side = entry if is_new else old
            assert side is not None
            hasher.update(_likeness(side, top))
    finish()
    by_likeness = {likeness: path for path, likeness in gone.items()}
    for path, likeness in new.items():
        source = by_likeness.pop(likeness, None)
        if source is not None:
            moves.directories[path] = source
    return moves


def _kind(entry: Entry | None) -> Kind | None:
    return None if entry is None else entry.kind


def _likeness(entry: Entry, top: bytes) -> bytes:
    extra = entry.extra
    if extra is not None and extra.link_group is not None and is_below(extra.link_group, top):
        extra = msgspec.structs.replace(extra, link_group=b"/" + extra.link_group[len(top) :])
    time = 0 if entry.kind is Kind.DIR else entry.mtime_ns
    return _encode((entry.path[len(top) :], entry.kind, entry.mode, entry.size, time, entry.digest, extra))


def plan(changes: Iterable[Change], live: Live, moves: Moves, *, takes_over: bool) -> Iterator[PlannedSteps]:
    """Steps and objects in path order (removals of unknown paths in a merged directory come when it is left).

    ``takes_over``: there is no base, so the root itself is merged with its present contents. ``PeerError`` when the
    target's entries are not a tree.
    """
    return _Plan(live, moves).run(changes, takes_over=takes_over)


@dataclass(slots=True)
class _Merged:
    path: bytes
    names: set[bytes]


class _Plan:
    def __init__(self, live: Live, moves: Moves) -> None:
        self.live = live
        self.moves = moves
        self.sources = frozenset(moves.directories.values())
        self.timed: list[bytes] = []
        self.merged: list[_Merged] = []
        self.unit = b""
        """The topmost directory that is being staged, with ``unit_slot`` and ``unit_dirs`` on the way down."""
        self.unit_slot = b""
        self.unit_dirs: list[bytes] = []
        self.skipped = b""
        """A topmost directory whose entries need nothing more: removed, released or moved."""
        self.is_moved = False

    def run(self, changes: Iterable[Change], *, takes_over: bool) -> Iterator[PlannedSteps]:
        if takes_over:
            names = self.live.children(b"") or []
            self.merged.append(_Merged(b"", {n for n in names if n[:7].lower() != b".instep"}))
        for change in changes:
            path = change.path
            if self.skipped:
                if is_below(path, self.skipped):
                    if self.is_moved and change.new is not None and change.new.kind is Kind.DIR:
                        yield _only(Step(Op.TIME, path, mtime_ns=change.new.mtime_ns))
                    continue
                self.skipped = b""
            if self.unit:
                if is_below(path, self.unit):
                    yield self._in_unit(change)
                    continue
                self.unit = b""
            while self.merged and not is_below(path, self.merged[-1].path):
                yield from self._leave_merged()
            if self.merged and parent_of(path) == self.merged[-1].path:
                self.merged[-1].names.discard(path.rpartition(b"/")[2])
            yield from self._topmost(change)
        while self.merged:
            yield from self._leave_merged()

    def _topmost(self, change: Change) -> Iterator[PlannedSteps]:
        path, old, new = change.path, change.old, change.new
        if new is None:
            assert old is not None
            yield from self._gone(path, old)
        elif new.kind is Kind.DIR:
            yield from self._directory(change, new)
        else:
            if old is not None and old.kind is Kind.DIR:
                self._skip(path)
            elif old is not None and self.live.is_same(old, new):
                return
            yield from self._time_of_parent(path)
            yield self._object(Op.NEW if old is None else Op.CHANGE, change, new)

    def _skip(self, path: bytes, *, is_moved: bool = False) -> None:
        self.skipped, self.is_moved = path, is_moved

    def _gone(self, path: bytes, old: Entry) -> Iterator[PlannedSteps]:
        is_dir = old.kind is Kind.DIR
        if is_dir:
            self._skip(path)
        if self.live.is_ignored(path, is_dir):
            return
        yield from self._time_of_parent(path)
        if path not in self.sources:
            yield _only(Step(Op.REMOVE, path, object_key(path), old=old))

    def _directory(self, change: Change, new: Entry) -> Iterator[PlannedSteps]:
        path, old = change.path, change.old
        if old is not None and old.kind is Kind.DIR:
            if not self.live.is_same(old, new):
                yield _only(Step(Op.META, path, new=new, old=old), change)
            yield from self._time(path, new)
            return
        children = self.live.children(path) if old is None else None
        if children is not None:
            self.merged.append(_Merged(path, set(children)))
            yield _only(Step(Op.META, path, new=new), change)
            yield from self._time(path, new)
            return
        yield from self._time_of_parent(path)
        source = self.moves.directories.get(path)
        if source is not None:
            self._skip(path, is_moved=True)
            yield _only(Step(Op.MOVE, path, object_key(path), new=new, source=source))
            if new.mode & _OWNER_WRITES != _OWNER_WRITES:
                yield _only(Step(Op.MODE, path, new=new))
            yield _only(Step(Op.TIME, path, mtime_ns=new.mtime_ns))
            return
        planned = self._object(Op.NEW if old is None else Op.CHANGE, change, new)
        self.unit, self.unit_slot, self.unit_dirs = path, planned.slot, [path]
        yield planned

    def _object(self, op: Op, change: Change, new: Entry) -> PlannedSteps:
        key = object_key(change.path)
        step = Step(op, change.path, key, new=new, old=change.old)
        return PlannedSteps(step, b"o/" + key, new, change.old, change.page, change.index)

    def _in_unit(self, change: Change) -> PlannedSteps:
        path, new = change.path, change.new
        if path.count(b"/") >= DEPTH_MAX:
            raise PeerError(
                f"{shown(path)} lies too deep", code="too_deep", path=shown(path), limit=DEPTH_MAX
            )
        parent = parent_of(path)
        while self.unit_dirs and self.unit_dirs[-1] != parent:
            self.unit_dirs.pop()
        if new is None or change.old is not None or not self.unit_dirs:
            raise PeerError(
                f"{shown(path)} lies below a path that is no directory", code="bad_tree", path=shown(path)
            )
        if new.kind is Kind.DIR:
            self.unit_dirs.append(path)
        return PlannedSteps(
            None, self.unit_slot + path[len(self.unit) :], new, None, change.page, change.index
        )

    def _leave_merged(self) -> Iterator[PlannedSteps]:
        merged = self.merged.pop()
        for name in sorted(merged.names):
            path = merged.path + b"/" + name if merged.path else name
            is_dir = self.live.children(path) is not None
            if not self.live.is_ignored(path, is_dir):
                yield _only(Step(Op.REMOVE, path, object_key(path)))

    def _time_of_parent(self, path: bytes) -> Iterator[PlannedSteps]:
        parent = parent_of(path)
        if not parent:
            return
        while self.timed and self.timed[-1] != parent and not is_below(parent, self.timed[-1]):
            self.timed.pop()
        if self.timed and self.timed[-1] == parent:
            return
        entry = self.live.target_directory(parent)
        if entry is None:
            raise PeerError(f"{shown(path)} has no parent directory", code="bad_tree", path=shown(path))
        yield from self._time(parent, entry)

    def _time(self, path: bytes, entry: Entry) -> Iterator[PlannedSteps]:
        while self.timed and not is_below(path, self.timed[-1]):
            self.timed.pop()
        self.timed.append(path)
        if entry.mode & _OWNER_WRITES != _OWNER_WRITES:
            yield _only(Step(Op.MODE, path, new=entry))
        yield _only(Step(Op.TIME, path, mtime_ns=entry.mtime_ns))


def _only(step: Step, change: Change | None = None) -> PlannedSteps:
    page, index = (Digest(b""), 0) if change is None else (change.page, change.index)
    return PlannedSteps(step, b"", None, None, page, index)
