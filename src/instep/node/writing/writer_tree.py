"""The tree of a fileset that is written here: scanned, served, verified, restored from. Synchronous.

Everything runs in the fileset's worker thread but for ``shelf``, whose contents are read by requests of peers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec

from instep.api.looking import ChangeDocument
from instep.core.publish import vocabulary as v
from instep.model.definition import Definition
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry
from instep.net.messages.messages import BUNDLE_BYTES_MAX
from instep.node.runtime.driver import wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.keeping.history_rule import history_keeps
from instep.node.trees.keeping.hot_copies import HotCopies
from instep.node.trees.keeping.serving_checks import ServingChecks, note_rotten
from instep.node.trees.keeping.shared_history import SharedHistory, contents_in
from instep.node.trees.keeping.shelf import Shelf
from instep.node.trees.open_journal import refuse_open_journal
from instep.node.trees.placing import Taken
from instep.node.trees.scanning.scan_cost import CostWatch
from instep.node.trees.scanning.writer_scan import WriterScan, WriterScanned
from instep.node.trees.tree_comparison import Numbers, TreeComparison, changes_of
from instep.tree.archive.contents import Contents
from instep.tree.archive.lookup import ArchiveLookup
from instep.tree.journal.journal import Journal
from instep.tree.objects.fidelity import Local
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.root.writable import require_writable_folder
from instep.tree.scan.compare import Difference
from instep.tree.scan.settling import Settling

__all__ = ["WriterTree", "history_keeps"]

BUNDLE_CONTENT_MAX = 128 << 10
COMMIT_BEFORE = register("publish.commit.before")


class WriterTree:
    """The acts of an own line on its tree. ``contents`` are the small files that the last survey read. ``post`` hands
    an event to the line's machine."""

    def __init__(self, tree: FilesetTree, post: Callable[[v.TreeChanged | v.ContentMissed], None]) -> None:
        self._tree = tree
        self._post = post
        self._taken: Taken | None = None
        self._history: SharedHistory | None = None
        self.hot = HotCopies(tree.store, tree.name, lambda size: history_keeps(tree.fileset, size))
        self.loop: asyncio.AbstractEventLoop | None = None
        self._archive: ArchiveLookup | None = None
        self._checks = ServingChecks(self._rotten)
        self.contents: dict[Digest, bytes] = {}
        self._contents_bytes = 0

    @property
    def definition(self) -> Definition:
        definition = self._tree.fileset.definition
        assert definition is not None, "a fileset that is written here has its definition in instep.toml"
        return definition

    def taken(self) -> Taken:
        """The root with its marker, looked at again each time; raises when it is not ours or not there."""
        taken = self._tree.taken()
        if self._taken is None or self._taken.place != taken.place or self._history is None:
            self._history = SharedHistory(taken.place)
        self._taken = taken
        return taken

    def place(self) -> Place:
        return self.taken().place

    @property
    def history(self) -> SharedHistory:
        if self._history is None:
            self.taken()
        assert self._history is not None
        return self._history

    def shelf(self) -> Shelf:
        place = self.place()
        if self._archive is None or self._archive.place != place:
            self._archive = ArchiveLookup(place)
        return Shelf(place, self.history, self._archive, self._checks, self._missed)

    def _rotten(self, entry: Entry) -> None:
        """A file to be sent holds other bytes under the stat of its entry; called by the thread that answers."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._suspect, entry)

    def _missed(self, entry: Entry) -> None:
        """A partner asked for contents that have gone; called by the thread that answers it."""
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self._post, v.ContentMissed(entry.path))

    def sync_history(self) -> None:
        failpoint(COMMIT_BEFORE)
        self.history.sync()

    def _suspect(self, entry: Entry) -> None:
        """On the event loop. The next scan reads the file whatever its stat says, and finds it damaged."""
        note_rotten(self._tree.runtime, self._tree.line, entry.path)
        self._keep_suspects(self.suspects() | {entry.path})
        self._post(v.TreeChanged((entry.path,)))

    def survey(
        self, effect: v.Scan, is_full: bool, trees: list[bytes], touched: list[bytes]
    ) -> WriterScanned:
        taken = self.taken()
        require_writable_folder(taken.place.control)
        refuse_open_journal(Journal.load(taken.place), self._tree.name)
        self.contents = {}
        self._contents_bytes = 0
        suspects = self.suspects()
        marker = taken.marker
        assert marker is not None, "a writer does not observe"
        survey = WriterScan(
            taken.place,
            self._tree.name,
            self.definition,
            lambda: marker,
            self._sink,
            suspects,
            self._settling(effect),
            effect.since,
            effect.lets_go,
        )
        self.hot.begin(self.history)
        store = self._tree.store
        base = effect.base.root if effect.base is not None else None
        if is_full or base is None:
            watch = CostWatch()
            surveyed = survey.everything(store, base, wall_ms(), deep=effect.is_deep)
            surveyed = replace(surveyed, summary=replace(surveyed.summary, cost=watch.cost()))
        else:
            parents = {p.rpartition(b"/")[0] for p in (*trees, *touched)} - {b""}
            parents |= {p.path.rpartition(b"/")[0] for p in effect.again} - {b""}
            alone = [*touched, *parents, *sorted(suspects)]
            surveyed = survey.some(
                store, base, trees, alone, wall_ms(), effect.again, reads_open=effect.reads_open
            )
        surveyed = replace(surveyed, summary=replace(surveyed.summary, copied=self.hot.made))
        self._keep_suspects(surveyed.damaged)
        if self._definition_changed(effect.base):
            surveyed = replace(surveyed, summary=replace(surveyed.summary, definition_changed=True))
        return surveyed

    def _settling(self, effect: v.Scan) -> Settling:
        fileset, watch, history = self._tree.fileset, self._tree.watch, self.history
        return Settling(
            fileset.settle_ms * 1_000_000,
            fileset.settle_max_ms * 1_000_000,
            written=watch.written if watch is not None else frozenset(),
            hot=frozenset(effect.hot),
            cooling={each.path: each.quiet_ms * 1_000_000 for each in effect.cooling},
            copy=lambda path, digest, fd: self.hot.copy(history, path, digest, fd),
        )

    def all_contents(self) -> tuple[Contents, Path]:
        """Every content of the fileset on this node, and the archive that it was indexed from."""
        return contents_in(self.place(), self._tree.stat_rows, self.history)

    def suspects(self) -> frozenset[bytes]:
        """Files found damaged: recorded until their stat says that they were written anew (P10)."""
        raw = self._tree.store.get(f"damaged/{self._tree.name}")
        return frozenset(msgspec.msgpack.decode(raw, type=list[bytes])) if raw is not None else frozenset()

    def _keep_suspects(self, suspects: frozenset[bytes]) -> None:
        if suspects != self.suspects():
            store = self._tree.store
            store.put(f"damaged/{self._tree.name}", msgspec.msgpack.encode(sorted(suspects)))

    def _definition_changed(self, base: HeadRef | None) -> bool:
        signed = self._tree.store.generation(base.id) if base is not None else None
        return signed is not None and signed.body().definition != self.definition.digest

    def _sink(self, digest: Digest, data: bytes | None, fd: int) -> None:
        """Receives every file as it is read: history keeps it, and small ones go along with the head."""
        if data is not None:
            if history_keeps(self._tree.fileset, len(data)):
                self.history.put(digest, data, is_hashed=True)
            if len(data) <= BUNDLE_CONTENT_MAX and self._contents_bytes + len(data) <= BUNDLE_BYTES_MAX // 2:
                self.contents[digest] = data
                self._contents_bytes += len(data) + 32
        elif fd >= 0:
            size = os.fstat(fd).st_size
            if history_keeps(self._tree.fileset, size):
                self.history.put_file(digest, fd, size)

    def local(self) -> Local:
        return Local(preserve=frozenset(self.definition.preserve), is_own=True)

    def found_root(self, like: Digest) -> Digest:
        """The root of the tree as it lies there, before a restore to ``like``."""
        return self._inspection().whole_root(like, wall_ms(), suspects=self.suspects(), distrusts=True)

    def _inspection(self) -> TreeComparison:
        return self._tree.inspection(self.definition, self.local(), self.taken())

    def verify(self, head: HeadRef, is_deep: bool) -> Numbers:
        inspection = self._tree.verifying = self._inspection()
        damaged: set[bytes] = set()

        def noted() -> Iterator[Difference]:
            for each in inspection.everything(head.root, wall_ms(), deep=is_deep):
                if each.problem is not None and each.problem.what == "damaged":
                    damaged.add(each.path)
                if each.problem is None or each.expected is not None:
                    yield each

        numbers = inspection.numbers(noted())
        if damaged:
            self._keep_suspects(self.suspects() | damaged)
        return numbers

    def changes_now(self, head: HeadRef, limit: int) -> tuple[ChangeDocument, ...]:
        """What ``diff`` without generations shows: the tree against the head."""
        return changes_of(self._inspection().everything(head.root, wall_ms()), limit)
