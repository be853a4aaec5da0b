"""The inverse of the union: a tree that was found, divided into the changes of this node's own line, changes of other
lines' paths, and new paths that have to wait.

Implements the section "The inverse" of ``docs/spec/replication.md``. The rule behind it: a path that the union shows
belongs to the line that has it, and only a path that no line shows is new here. So nothing of another line is ever
published as this node's own.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import NamedTuple

import msgspec

from instep.core.union.lines import KnownLines
from instep.core.union.merge import as_shown, entries_of, moved
from instep.core.union.ownership import Ownership, PathOfLine, from_top
from instep.core.union.unite import United
from instep.model.ids import Digest, NodeName
from instep.model.manifest.diff import Change, diff
from instep.model.manifest.entry import Entry, Kind, same_but_for_times_of_directories
from instep.model.manifest.pages import GetPage
from instep.model.manifest.walk import Reader
from instep.model.paths import parent_of, sort_key
from instep.model.replication.union import plain_directory


class ForeignChange(NamedTuple):
    """A path of other lines that was changed or is gone. ``sources`` are the lines that have it: none where its home
    removed it while the edit was offered. ``found`` is what lies at the shown ``path`` now."""

    path: bytes
    sources: tuple[PathOfLine, ...]
    found: Entry | None


class Waiting(NamedTuple):
    """A new path that is not published yet. ``behind`` is the shown path of another line whose change must be answered
    before, or the renamed directory of another line around it."""

    path: bytes
    found: Entry
    behind: bytes


class Divided(NamedTuple):
    """``own`` are the changes of the own line, in order. ``chmodded`` are directories whose mode or attributes were
    changed: they belong to no line."""

    own: tuple[tuple[bytes, Entry | None], ...]
    foreign: tuple[ForeignChange, ...]
    waiting: tuple[Waiting, ...]
    chmodded: tuple[bytes, ...]


def divide(
    laid: United,
    lines: KnownLines,
    own: NodeName,
    found: Digest,
    get: GetPage,
    now_ms: int,
    offered: Container[bytes] = frozenset(),
) -> Divided:
    """Divide the tree ``found``, which was ``laid`` from ``lines``. ``own`` is the origin of this node's line: it need
    not be among the lines. New paths are born ``now_ms``. Paths that are ``offered`` to other homes are never new."""
    return _Division(laid, lines, own, now_ms, offered).of([*diff(laid.root, found, get)])


def renames(
    laid: United, lines: KnownLines, own: NodeName, now_ms: int
) -> tuple[tuple[bytes, Entry | None], ...]:
    """The changes, in order, by which the own line takes over the names that its losers are shown under."""
    edits: dict[bytes, Entry | None] = {}
    for collision in laid.collisions:
        if collision.origin == own:
            edits.update((entry.path, None) for entry in lines.by_origin[own].within(collision.component))
            edits.update((entry.path, _born(entry, now_ms)) for entry in entries_of(collision, lines))
    return tuple(sorted(edits.items(), key=lambda edit: sort_key(edit[0])))


def births(laid: Digest, base: Digest, root: Digest, get: GetPage) -> tuple[tuple[bytes, Entry | None], ...]:
    """The changes, in order, by which ``root``, the own line's next manifest, has the births that its ``base`` gives
    paths of both: a path of a manifest that was not laid here looks new. A path of the own part that was ``laid`` keeps
    its birth: by it the tree has its names, and a commit moves no file."""
    was = Reader(get)
    return tuple(
        (each.path, _born(each.new, each.old.born_ms))
        for each in diff(base, root, get)
        if each.old is not None
        and each.new is not None
        and each.new.born_ms != each.old.born_ms
        and was.lookup(laid, each.path) is None
    )


class _Division:
    def __init__(
        self, laid: United, lines: KnownLines, own: NodeName, now_ms: int, offered: Container[bytes]
    ) -> None:
        self._offered = offered
        self._lines = lines
        self._ownership = Ownership(lines, laid.collisions)
        self._collisions = {
            each.component: each
            for each in laid.collisions
            if each.origin == own and each.born_ms is not None
        }
        self._own = own
        self._line = lines.by_origin.get(own)
        self._now_ms = now_ms
        self._edits: dict[bytes, Entry | None] = {}
        self._foreign: dict[bytes, ForeignChange] = {}
        self._waiting: list[Waiting] = []
        self._chmodded: list[bytes] = []

    def of(self, changes: Sequence[Change]) -> Divided:
        added = []
        for change in changes:
            if change.old is not None:
                self._differs(change.path, change.old, change.new)
            elif change.new is not None:
                added.append(change.new)
        gone = self._contents_gone()
        for entry in added:
            if entry.path in self._offered:
                self._foreign[entry.path] = ForeignChange(entry.path, (), entry)
                continue
            behind = self._waits_behind(entry, gone)
            if behind is None:
                self._add(entry)
            else:
                self._waiting.append(Waiting(entry.path, entry, behind))
        own = tuple(sorted(self._edits.items(), key=lambda edit: sort_key(edit[0])))
        return Divided(own, tuple(self._foreign.values()), tuple(self._waiting), tuple(self._chmodded))

    def _differs(self, path: bytes, old: Entry, new: Entry | None) -> None:
        """Something that was laid was changed, or is gone."""
        if new is not None and same_but_for_times_of_directories(old, new):
            return
        if new is not None and old.kind is Kind.DIR and new.kind is Kind.DIR:
            self._chmodded.append(path)
            return
        sources = self._ownership.of(path)
        foreign = tuple(each for each in sources if each.origin != self._own)
        for each in sources:
            if each.origin == self._own:
                self._replace(each, None if foreign else new)
        if foreign:
            self._foreign[path] = ForeignChange(path, foreign, new)

    def _replace(self, source: PathOfLine, found: Entry | None) -> None:
        """Edit a path of the own line. A file that the line had keeps its birth; with a directory everything below it
        goes, also what was too long to be shown."""
        born_ms = source.entry.born_ms
        if source.entry.kind is Kind.DIR:
            assert self._line is not None
            born_ms = self._now_ms
            for below in self._line.within(source.path):
                self._edits.setdefault(below.path, None)
        self._edits[source.path] = None if found is None else _born(as_shown(found, source.path), born_ms)

    def _contents_gone(self) -> dict[tuple[Kind, Digest, int], bytes]:
        """The contents of other lines that are not where they were laid, with one of their paths."""
        return {
            (source.entry.kind, source.entry.digest, source.entry.size): change.path
            for change in self._foreign.values()
            for source in change.sources
            if source.entry.size and change.found is None
        }

    def _waits_behind(self, entry: Entry, gone: dict[tuple[Kind, Digest, int], bytes]) -> bytes | None:
        """The shown path whose change has to be answered before this new path may be published: one that it was renamed
        from, or one that it lies below."""
        for above in from_top(entry.path):
            if above in self._foreign:
                return above
        collision = self._ownership.renamed(entry.path)
        if collision is not None and collision.origin != self._own:
            return collision.shown
        return gone.get((entry.kind, entry.digest, entry.size))

    def _add(self, found: Entry) -> None:
        collision = self._ownership.renamed(found.path)
        path = found.path
        if collision is not None:  # a loser of this node's own: its line has it under the old name
            path = moved(path, collision.shown, collision.component)
        for above in _parents(path):
            if above in self._collisions:
                self._settle(above)
            if self._has(above) is None:
                self._edits[above] = plain_directory(above)
        self._edits[path] = _born(as_shown(found, path), self._now_ms)

    def _settle(self, component: bytes) -> None:
        """Write the name that a file of the own line was given into the line, to make room for a directory."""
        collision = self._collisions.pop(component)
        kept = self._has(component)
        if kept is not None and kept.kind is not Kind.DIR:
            self._edits[component] = None
            self._edits[collision.shown] = _born(as_shown(kept, collision.shown), self._now_ms)

    def _has(self, path: bytes) -> Entry | None:
        """What the own line has at ``path`` after the edits so far."""
        if path in self._edits:
            return self._edits[path]
        return None if self._line is None else self._line.lookup(path)


def _born(entry: Entry, born_ms: int) -> Entry:
    if entry.kind is Kind.DIR or entry.born_ms == born_ms:
        return entry
    return msgspec.structs.replace(entry, born_ms=born_ms)


def _parents(path: bytes) -> Iterator[bytes]:
    """The directories above ``path``, the outermost first."""
    parent = parent_of(path)
    return from_top(parent) if parent else iter(())
