"""A node's disk in memory, with crash semantics: writes that were not synced may be lost.

The tree is flat (paths without directories): real manifests are built over it. A switch writes its journal
durably before its first step; each step may be lost in a crash until the directories are synced; recovery
looks where each object lies and finishes or undoes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from blake3 import blake3

from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.cutter import Shape
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.pages import PageMissing
from instep.model.manifest.walk import iterate
from instep.testing.world.world import BrokenPromise

_NAMES = "EIO ENOSPC EDQUOT EPERM EACCES EBUSY EROFS EXDEV ETXTBSY ENOTEMPTY ELOOP EMFILE ENOENT ENAMETOOLONG"
ERRNOS = tuple(errno.errorcode[getattr(errno, name)] for name in _NAMES.split())
"""The errors that any system call of a tree job may return."""

SMALL = Shape(max_items=8, mask=0x3, inner_min=2)
"""Small pages, so that a dozen files make a manifest of several levels."""


def content_digest(data: bytes) -> Digest:
    return Digest(blake3(data).digest())


def entry_of(path: bytes, data: bytes, born_ms: int = 1) -> Entry:
    return Entry(path, Kind.FILE, 0o644, len(data), 1, content_digest(data), born_ms)


Plan = list[tuple[bytes, Digest | None, Digest | None]]
"""(path, digest before, digest after) of each step."""


class SimStore:
    """State of a node. ``put`` is volatile until the next ``barrier``; ``save`` is a barrier."""

    def __init__(self) -> None:
        self.pages: dict[Digest, bytes] = {}
        self.generations: dict[Digest, SignedGeneration] = {}
        self.epochs: dict[Digest, SignedEpoch] = {}
        self.history: dict[Digest, bytes] = {}
        self.facts: Any = None
        self._volatile: list[tuple[dict[Digest, Any], Digest]] = []
        self._durable_facts: Any = None
        self.rollout: Any = None
        """Facts of the line's rollout: durable when saved."""

    def put(self, table: dict[Digest, Any], key: Digest, value: Any) -> None:
        if key not in table:
            table[key] = value
            self._volatile.append((table, key))

    def get_page(self, digest: Digest) -> bytes:
        try:
            return self.pages[digest]
        except KeyError:
            raise PageMissing(digest) from None

    def put_page(self, digest: Digest, raw: bytes) -> None:
        self.put(self.pages, digest, raw)

    def entries(self, root: Digest) -> dict[bytes, Digest]:
        """The digest of each path of a manifest."""
        return {entry.path: entry.digest for entry in iterate(root, self.get_page)}

    def save(self, facts: Any, *, is_durable: bool = True) -> None:
        self.facts = facts
        self._volatile.clear()
        if is_durable:
            self._durable_facts = facts

    def flush(self) -> None:
        """All earlier writes are durable now."""
        self._volatile.clear()

    def crash(self) -> None:
        for table, key in self._volatile:
            table.pop(key, None)
        self._volatile.clear()
        self.facts = self._durable_facts

    def backup(self) -> tuple[Any, ...]:
        return (
            dict(self.pages),
            dict(self.generations),
            dict(self.epochs),
            dict(self.history),
            self._durable_facts,
            self.rollout,
        )

    def restore(self, backup: tuple[Any, ...] = ({}, {}, {}, {}, None, None)) -> None:
        """The node directory is this older copy, or an empty one."""
        self.pages, self.generations, self.epochs, self.history = (dict(t) for t in backup[:4])
        self.facts = self._durable_facts = backup[4]
        self.rollout = backup[5]
        self._volatile.clear()


class StepFailed(Exception):
    """One step of a tree job met an error of the disk, a right or a mount; ``args`` are its name and the path."""


Fault = Callable[[bytes], None]
"""Called with the path before each step; raises ``StepFailed`` where the step must fail."""


@dataclass(slots=True)
class SimJournal:
    """Durable once written. ``displaced`` has what steps moved away."""

    target: HeadRef
    plan: Plan
    displaced: dict[bytes, bytes | None] = field(default_factory=dict)
    is_finished: bool = False
    is_undoing: bool = False
    archives: bool = True
    """False in a planted bug: displaced files are lost."""


class SimPlace:
    """A fileset's root and control folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tree: dict[bytes, bytes] = {}
        self.has_marker = True
        self.stage: dict[Digest, bytes] = {}
        self.sealed_for: Digest | None = None
        self.journal: SimJournal | None = None
        self.archive: dict[Digest, bytes] = {}
        self.holds: HeadRef | None = None
        """The generation in the tree's own record: durable, and not part of the node's state."""
        self.stuck: dict[bytes, str] = {}
        """Paths that no step can change, and the error that says so: until an operator frees them."""
        self.is_copied = False
        """The disk came back file by file, every inode another: recovery takes each step for done."""
        self._unsynced: dict[bytes, bytes | None] = {}

    def digests(self) -> dict[bytes, Digest]:
        return {path: content_digest(data) for path, data in self.tree.items()}

    def plan_to(self, wanted: dict[bytes, Digest]) -> Plan:
        """The steps from this tree to one of these contents, by path."""
        there = self.digests()
        return [
            (p, there.get(p), wanted.get(p)) for p in sorted(there | wanted) if there.get(p) != wanted.get(p)
        ]

    def close(self) -> None:
        """A job is over: nothing of it is left to finish or to undo."""
        self.journal = self.sealed_for = None
        self.stage.clear()

    def drop_stage(self) -> None:
        """Empty staging, except for the stage that an unfinished journal names."""
        if self.journal is None or self.journal.is_finished:
            self.stage.clear()
        self.sealed_for = None

    def free(self, path: bytes) -> None:
        """An operator found what held the path, or it ended by itself."""
        self.stuck.pop(path, None)

    def content_of(self, digest: Digest) -> bytes | None:
        """Bytes of that digest from staging, archive or the tree itself."""
        found = self.stage.get(digest) or self.archive.get(digest)
        if found is not None:
            return found
        return next((d for _, d in sorted(self.tree.items()) if content_digest(d) == digest), None)

    def make_visible(
        self, path: bytes, data: bytes | None, expected: Digest | None, *, archives: bool = True
    ) -> bytes | None:
        """One step: the file there goes to the archive, ``data`` takes its place. Checks P1 and P5."""
        if data is not None and content_digest(data) != expected:
            raise BrokenPromise(
                "P1", f"{self.name}: {path!r} became visible with other bytes than its digest says"
            )
        old = self.tree.get(path)
        self._unsynced.setdefault(path, old)
        if old is not None and archives:
            self.archive[content_digest(old)] = old
        if data is None:
            self.tree.pop(path, None)
        else:
            self.tree[path] = data
        if old is not None and old != data and content_digest(old) not in self.archive:
            raise BrokenPromise("P5", f"{self.name}: the file at {path!r} is gone, and not in the archive")
        return old

    def sync(self) -> None:
        self._unsynced.clear()

    def put_back(self) -> None:
        """The disk is another one by now: nothing is under way on it."""
        self.close()
        self._unsynced.clear()

    def crash(self, rng: Random) -> None:
        for path, old in sorted(self._unsynced.items()):
            if rng.random() < 0.5:
                if old is None:
                    self.tree.pop(path, None)
                else:
                    self.tree[path] = old
        self._unsynced.clear()
        if self.sealed_for is None and (self.journal is None or self.journal.is_finished):
            self.stage = {d: data for d, data in sorted(self.stage.items()) if rng.random() < 0.5}

    def steps(self, journal: SimJournal, fault: Fault) -> Iterator[bytes | None]:
        """Do the steps that are not done yet, one a ``next``; yields a path that had drifted, else None."""
        if self.is_copied:
            self.sync()
            journal.is_finished = True
            return
        for path, before, after in journal.plan:
            there = self.tree.get(path)
            digest = None if there is None else content_digest(there)
            if digest == after:
                continue
            data = None if after is None else self.stage.get(after) or self.content_of(after)
            if after is not None and data is None:
                raise BrokenPromise(
                    "P2", f"{self.name}: the journal names contents of {path!r} that are not staged"
                )
            fault(path)
            old = self.make_visible(path, data, after, archives=journal.archives)
            journal.displaced.setdefault(path, old)
            yield path if old is not None and digest != before else None
        self.sync()
        journal.is_finished = True

    def undo(self, journal: SimJournal, fault: Fault) -> Iterator[None]:
        """Take the steps back that were done, one a ``next``, as many as can be; then the journal goes. Raises the
        first ``StepFailed`` when some could not: the journal stays, and this is begun again."""
        journal.is_undoing = True
        failed: StepFailed | None = None
        afters = {path: after for path, _, after in journal.plan}
        for path, old in sorted(journal.displaced.items(), reverse=True):
            there = self.tree.get(path)
            if (None if there is None else content_digest(there)) != afters[path]:
                continue  # written here since: it stays, and the displaced file is in the archive
            try:
                fault(path)
            except StepFailed as error:
                failed = failed or error
                continue
            self.make_visible(path, old, None if old is None else content_digest(old))
            yield
        if failed is not None:
            raise failed
        self.sync()
        self.journal = None
