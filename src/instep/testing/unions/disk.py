"""The disk of a simulated home: its tree with directories, archive, history, stage, journal, and the node's state.

A file is its entry: contents are their digests. The tree, its own record and the journal survive everything; the state
can be lost or come back older.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import Digest, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import build
from instep.model.manifest.pages import PageMissing
from instep.model.paths import is_below, parent_of, sort_key
from instep.model.replication.union import UnionRecord, plain_directory

Step = tuple[bytes, Entry | None, Entry | None]
"""A path, what the union of before says there, and what the next one says."""


@dataclass(slots=True)
class State:
    """The node's directory."""

    facts: dict[str, Any] = field(default_factory=dict)
    pages: dict[Digest, bytes] = field(default_factory=dict)
    generations: dict[Digest, SignedGeneration] = field(default_factory=dict)
    epochs: dict[Digest, SignedEpoch] = field(default_factory=dict)
    records: dict[Digest, UnionRecord] = field(default_factory=dict)
    sets: dict[Digest, Any] = field(default_factory=dict)
    """Change sets under way, and the answers to others."""
    answers: dict[Digest, Any] = field(default_factory=dict)
    laid: Digest | None = None
    origins: tuple[NodeName, ...] = ()

    def copy(self) -> State:
        return State(
            dict(self.facts), dict(self.pages), dict(self.generations), dict(self.epochs), dict(self.records),
            dict(self.sets), dict(self.answers), self.laid, self.origins,
        )  # fmt: skip

    def get_page(self, digest: Digest) -> bytes:
        try:
            return self.pages[digest]
        except KeyError:
            raise PageMissing(digest) from None


@dataclass(slots=True)
class UnionJournal:
    """``base`` and ``target`` are the records of both unions; ``done`` counts the steps that were made."""

    base: UnionRecord | None
    target: UnionRecord
    steps: tuple[Step, ...]
    done: int = 0
    drifted: list[bytes] = field(default_factory=list)


class UnionDisk:
    """``on_replace`` is called with each file that is taken away by the node, not by a person."""

    def __init__(self) -> None:
        self.state = State()
        self.tree: dict[bytes, Entry] = {}
        self.held: UnionRecord | None = None
        """The tree's own record."""
        self.journal: UnionJournal | None = None
        self.archive: set[Digest] = set()
        self.changed: dict[Digest, Any] = {}
        """The outcomes of change sets, by the journal of each."""
        self.history: set[Digest] = set()
        self.stage: tuple[Digest, frozenset[Digest]] | None = None
        """Of a sealed stage the union, and the contents."""
        self.on_replace: Callable[[Entry], None] = lambda _: None

    def found(self, laid: Callable[[bytes], Entry | None]) -> Digest:
        """The root of the tree as it lies there. A file that is as laid has the birth that the union says."""
        entries = sorted(self.tree.values(), key=lambda entry: sort_key(entry.path))
        return build((as_found(entry, laid(entry.path)) for entry in entries), self.state.pages.__setitem__)

    def has(self, digest: Digest) -> bool:
        return (
            digest in self.archive
            or digest in self.history
            or any(entry.digest == digest for entry in self.tree.values())
        )

    # --- persons ----------------------------------------------------------------------------------------------

    def write(self, path: bytes, entry: Entry) -> bool:
        """A person makes or changes a file; False where something is in the way."""
        there, above = self.tree.get(path), parent_of(path)
        if there is not None and there.kind is Kind.DIR:
            return False
        if any(self.tree.get(each, _FINE).kind is not Kind.DIR for each in _upwards(above)):
            return False
        for each in _upwards(above):
            self.tree.setdefault(each, plain_directory(each))
        self.tree[path] = entry
        return True

    def within(self, path: bytes) -> list[bytes]:
        """The objects at and below a path, the deepest last."""
        return sorted((each for each in self.tree if each == path or is_below(each, path)), key=sort_key)

    # --- the switch -------------------------------------------------------------------------------------------

    def walk(self, journal: UnionJournal) -> Iterator[None]:
        """Make the steps that are not made yet; each is made before its ``next`` returns."""
        while journal.done < len(journal.steps):
            path, old, new = journal.steps[journal.done]
            self._replace(path, old, new, journal.drifted)
            journal.done += 1
            yield

    def _replace(self, path: bytes, old: Entry | None, new: Entry | None, drifted: list[bytes]) -> None:
        here = self.tree.get(path)
        if is_alike(here, new):
            return
        if not is_alike(here, old) and here is not None:
            drifted.append(path)
        if new is None:
            if here is not None and here.kind is Kind.DIR and len(self.within(path)) > 1:
                return  # something that is no union's lies in it
            self.take_away(path)
            return
        for above in _upwards(parent_of(path)):
            if self.tree.get(above, _FINE).kind is not Kind.DIR:
                self.take_away(above)
            self.tree.setdefault(above, plain_directory(above))
        if here is None or here.kind is not new.kind or here.kind is not Kind.DIR:
            self.take_away(path)
            self.tree[path] = as_laid(new)

    def take_away(self, path: bytes) -> None:
        """Move what lies there to the archive, with everything below it."""
        for each in reversed(self.within(path)):
            gone = self.tree.pop(each)
            if gone.kind is not Kind.DIR:
                self.archive.add(gone.digest)
                self.on_replace(gone)

    def restore(self, path: bytes, entry: Entry | None) -> None:
        """Set a path back to what the union says."""
        self._replace(path, None, entry, [])


_FINE = plain_directory(b"")


def _upwards(path: bytes) -> Iterator[bytes]:
    """The path and the directories above it, the outermost first."""
    if path:
        yield from _upwards(parent_of(path))
        yield path


def as_laid(entry: Entry) -> Entry:
    """How an entry lies on a disk, which knows no births."""
    return Entry(entry.path, entry.kind, entry.mode, entry.size, entry.mtime_ns, entry.digest, 0)


def is_alike(one: Entry | None, other: Entry | None) -> bool:
    return (None if one is None else as_laid(one)) == (None if other is None else as_laid(other))


def as_found(entry: Entry, laid: Entry | None) -> Entry:
    """How a scan sees a path of which the union says ``laid``."""
    if laid is not None and is_alike(entry, laid):
        return laid
    return entry


def in_order(steps: dict[bytes, Step]) -> tuple[Step, ...]:
    """Objects go before others come, the deepest first; each comes after its directory."""
    gone = sorted((s for s in steps.values() if s[2] is None), key=lambda s: sort_key(s[0]), reverse=True)
    come = sorted((s for s in steps.values() if s[2] is not None), key=lambda s: sort_key(s[0]))
    return (*gone, *come)
