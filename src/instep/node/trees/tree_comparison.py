"""A followed tree against a manifest: drift, attestation, comparison before an accept. Synchronous."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry, Kind, same_but_for_times_of_directories
from instep.model.manifest.entry import without_chunks as without_chunks
from instep.model.manifest.manifest import build, edit, iterate
from instep.model.manifest.walk import Reader
from instep.model.paths import is_below, sort_key
from instep.model.statrow import StatRow
from instep.node.trees.keeping.page_walk import must_have
from instep.node.trees.scanning.scan_tally import PageKeeper, paired
from instep.node.trees.scanning.stat_rows import Moved, RowBatch, covered_rows
from instep.store.port import NodeStore
from instep.tree.objects.fidelity import Local, expected_local
from instep.tree.objects.rows import RowsInOrder
from instep.tree.root.beneath import Root
from instep.tree.root.kernel import mounts_in
from instep.tree.root.marker import Marker
from instep.tree.root.place import Place
from instep.tree.scan.compare import Difference, compare, entries_of
from instep.tree.scan.cover import Cover, cover
from instep.tree.scan.listing import Problem
from instep.tree.scan.rules import LOST_AND_FOUND, Rules, is_in_lost_and_found
from instep.tree.scan.scan import Scanned, scan
from instep.tree.scan.subtree import holds_ignored
from instep.tree.stage.probes import mount_in_the_way

SAMPLE_MAX = 1_000
HIDES = ("unreadable", "mount")
IN_THE_WAY = ("pipe", "socket", "device")
NO_CONTENTS = Digest(bytes(32))
"""Stands for contents that cannot be read."""


@dataclass(slots=True)
class Numbers:
    """How a tree differs from a manifest: the counts that an apply would add, change and archive."""

    missing: int = 0
    changed: int = 0
    extra: int = 0
    sample: list[tuple[bytes, str]] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.missing + self.changed + self.extra


def why_differs(difference: Difference) -> str:
    """One word or two for a person."""
    expected, found = difference.expected, difference.found
    if difference.problem is not None:
        return difference.problem.what
    if found is None:
        return "missing"
    if expected is None:
        return "extra"
    if expected.kind is not found.kind:
        return f"a {found.kind.name.lower()} instead of a {expected.kind.name.lower()}"
    if expected.digest != found.digest:
        return "contents"
    if expected.mode != found.mode:
        return f"mode {found.mode:04o} instead of {expected.mode:04o}"
    if expected.mtime_ns != found.mtime_ns and expected.kind is not Kind.DIR:
        return "mtime"
    return "attributes"


class TreeComparison:
    """One tree on this node beside a generation. ``keep_rows`` off: nothing is accepted yet, so no stat row is used."""

    def __init__(
        self,
        store: NodeStore,
        place: Place,
        fileset: FilesetName,
        definition: Definition,
        local: Local,
        marker: Marker | None,
        *,
        keep_rows: bool = True,
    ) -> None:
        self._store = store
        self.place = place
        self._fileset = fileset
        self._definition = definition
        self.local = local
        self._marker = marker
        self._rules = Rules(definition)
        self._get = must_have(store.get_page)
        self._keep_rows = keep_rows
        self._learns = keep_rows and not local.is_own
        """A row says that the bytes need no more reading. At a writer the publish reads them, for its history."""
        self._fresh = RowBatch(store, fileset)
        self.read_bytes = 0
        """Bytes of files read so far by a deep look: for progress displays."""
        self.stopping: threading.Event | None = None
        """Once set, looking ends at the next entry; results from then on mean nothing."""

    def _expected(self, entries: Iterator[Entry]) -> Iterator[Entry]:
        local = self.local
        is_one_owner = local.owners.rules.everything is not None
        for entry in entries:
            if entry.extra is None and not entry.mode & ~local.modes(entry.kind) and not is_one_owner:
                yield entry
            else:
                yield without_chunks(expected_local(entry, local))

    def everything(self, root: Digest, now_ms: int, *, deep: bool = False) -> Iterator[Difference]:
        """All differences between the tree and ``root``."""
        found = self._scan_all(now_ms, deep=deep)
        yield from self._drift(compare(self._expected(iterate(root, self._get)), self._noting(found)))
        self._fresh.flush()

    def _scan_all(
        self, now_ms: int, *, deep: bool, suspects: frozenset[bytes] = frozenset()
    ) -> Iterator[Scanned | Problem]:
        rows = RowsInOrder(self._store.stat_rows(self._fileset)) if self._keep_rows else _no_row
        return scan(
            self.place,
            self._definition,
            rows,
            Moved(self._store, self._fileset) if self._keep_rows else None,
            now_ms * 1_000_000,
            local=self.local,
            marker=self._marker,
            rules=self._rules,
            deep=deep,
            sink=self._count if deep else None,
            suspects=suspects,
        )

    def _count(self, _: Digest, data: bytes | None, fd: int) -> None:
        self.read_bytes += len(data) if data is not None else os.fstat(fd).st_size

    def some(
        self, root: Digest, paths: Sequence[bytes], now_ms: int, *, alone: Sequence[bytes] = ()
    ) -> Iterator[Difference]:
        """Differences at ``paths`` and below them, and at ``alone`` without what is below."""
        yield from self._drift(self._all_of(root, paths, now_ms, alone))

    def _drift(self, differences: Iterator[Difference]) -> Iterator[Difference]:
        """Without directories that only stay because something ignored, or a mount, lies in them; without entries of a
        ``lost+found`` that an earlier version published, where this disk has its own."""
        for difference in differences:
            found = difference.found
            if found is None and not self.local.is_own and difference.path.startswith(LOST_AND_FOUND):
                with Root(self.place.root) as root:
                    if is_in_lost_and_found(root, difference.path):
                        continue
            if difference.expected is None and found is not None and found.kind is Kind.DIR:
                with Root(self.place.root) as root:
                    if any(is_below(mount, difference.path) for mount in mounts_in(root)):
                        continue
                    if holds_ignored(root, self._rules, difference.path):
                        continue
            yield difference

    def _all_of(
        self, root: Digest, paths: Sequence[bytes], now_ms: int, alone: Sequence[bytes] = ()
    ) -> Iterator[Difference]:
        covered = cover(paths, alone, self.local)
        reader = Reader(self._get)
        found = self._found(root, covered, now_ms)
        expected = entries_of(
            covered, lambda path: reader.lookup(root, path), lambda path: iterate(root, self._get, path)
        )
        yield from compare(self._expected(expected), self._noting(found))
        self._fresh.flush()

    def _found(self, root: Digest, covered: Cover, now_ms: int) -> Iterator[Scanned | Problem]:
        return scan(
            self.place,
            self._definition,
            RowsInOrder(covered_rows(self._store, self._fileset, covered)),
            Moved(self._store, self._fileset),
            now_ms * 1_000_000,
            covered=covered,
            local=self.local,
            marker=self._marker,
            rules=self._rules,
        )

    def found_root(self, root: Digest, paths: Sequence[bytes], now_ms: int) -> Digest:
        """The root of ``root`` with ``paths`` as the tree has them now: a revert starts from it. A pipe, a socket or a
        device is in the way of the expected object; a mount is for the operator to take away."""
        changes: dict[bytes, Entry | None] = {}
        for difference in self._all_of(root, paths, now_ms):
            problem = difference.problem
            if problem is not None and difference.expected is not None:
                if problem.what == "mount":
                    raise mount_in_the_way(self.place, problem.path, problem.path)
                if problem.what not in IN_THE_WAY:
                    continue
            changes[difference.path] = difference.found
            found, expected = difference.found, difference.expected
            if (
                expected is not None
                and expected.kind is Kind.DIR
                and (found is None or found.kind is not Kind.DIR)
            ):
                for below in iterate(root, self._get, after=difference.path):
                    if not is_below(below.path, difference.path):
                        break
                    changes[below.path] = None
        keeper = PageKeeper(self._store)
        ordered = sorted(changes.items(), key=lambda item: sort_key(item[0]))
        result = edit(root, ordered, keeper.get, keeper.put)
        keeper.flush()
        return result

    def whole_root(
        self, like: Digest, now_ms: int, *, suspects: frozenset[bytes] = frozenset(), distrusts: bool = False
    ) -> Digest:
        """The root of the tree as it is, with the entries of ``like`` where it holds just that: an apply starts from
        it where the tree's contents are unknown (a tree that is taken over, lost state). Streams. ``suspects`` are
        read whatever their stat says. With ``distrusts`` a file that cannot be read, or that holds other bytes than it
        was given, counts as another one: a restore then replaces it."""
        keeper = PageKeeper(self._store)
        found = build(self._as_found(like, now_ms, suspects, distrusts), keeper.put)
        keeper.flush()
        self._fresh.flush()
        return found

    def _as_found(
        self, like: Digest, now_ms: int, suspects: frozenset[bytes], distrusts: bool
    ) -> Iterator[Entry]:
        hidden: bytes | None = None
        found = self._noting(self._scan_all(now_ms, deep=False, suspects=suspects))
        for here, item in paired(iterate(like, self._get), found):
            if isinstance(item, Scanned):
                yield here if here is not None and self._is_exactly(here, item.entry) else item.entry
            elif here is not None and item is not None:
                # Nothing shows what is there: taken as the expected entry, and drift if it is not.
                is_lost = distrusts and _is_lost(item, here)
                yield msgspec.structs.replace(here, digest=NO_CONTENTS) if is_lost else here
                hidden = here.path if item.what in HIDES else None
            elif here is not None and hidden is not None and is_below(here.path, hidden):
                yield here

    def _is_exactly(self, entry: Entry, found: Entry) -> bool:
        """Also by a directory's time, which the apply then sets."""
        local = next(self._expected(iter((entry,))))
        return same_but_for_times_of_directories(local, found) and local.mtime_ns == found.mtime_ns

    def numbers(self, differences: Iterator[Difference]) -> Numbers:
        """Count differences and keep a sample."""
        numbers = Numbers()
        for difference in differences:
            if difference.found is None and difference.problem is None:
                numbers.missing += 1
            elif difference.expected is None:
                numbers.extra += 1
            else:
                numbers.changed += 1
            if len(numbers.sample) < SAMPLE_MAX:
                numbers.sample.append((difference.path, why_differs(difference)))
        return numbers

    def _noting(self, found: Iterator[Scanned | Problem]) -> Iterator[Scanned | Problem]:
        for item in found:
            if self.stopping is not None and self.stopping.is_set():
                return
            if not isinstance(item, Scanned):
                yield item
                continue
            if self._learns and item.row is not None and item.is_row_new:
                self._fresh.add(item.row)
            entry = without_chunks(item.entry)
            yield item if entry is item.entry else msgspec.structs.replace(item, entry=entry)


def _is_lost(problem: Problem, expected: Entry) -> bool:
    """Whether what lies there has to be replaced, were it to be what was expected: any file but one under a mount."""
    return expected.kind is not Kind.DIR and problem.what != "mount"


def _no_row(_: bytes) -> StatRow | None:
    return None
