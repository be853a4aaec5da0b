"""One fileset's tree on this node: its thread, its root, its watch, its live generation, and how it differs from that.
Lines come and go on it, and none of this depends on whether the line is written or followed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from instep.api.looking import ChangeDocument
from instep.core.vocabulary import Trouble
from instep.errors import InstepError, UnavailableError
from instep.model.definition import Definition, decode_definition
from instep.model.ids import Digest, FilesetName, HeadRef, LineId
from instep.model.manifest.check import missing
from instep.model.manifest.entry import Entry
from instep.model.statrow import StatRow
from instep.node.config.filesets import FilesetSettings
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime, Worker
from instep.node.trees.drift_look import CostWatch, DriftFound, drift_in, readable
from instep.node.trees.keeping.chunk_lists import recut
from instep.node.trees.keeping.own_history import contents_in
from instep.node.trees.keeping.page_walk import must_have
from instep.node.trees.owner_rules import FollowedOwners
from instep.node.trees.placing import Taken, find_root, known_marker, see_root
from instep.node.trees.scanning.hook_writes import HookWrites
from instep.node.trees.scanning.stat_rows import LiveRows
from instep.node.trees.scanning.touched_paths import TouchedPaths
from instep.node.trees.scanning.watching import TreeWatch
from instep.node.trees.shown_changes import changes_shown
from instep.node.trees.tree_comparison import Numbers, TreeComparison
from instep.store.port import NodeStore
from instep.tree.archive.contents import Contents
from instep.tree.archive.history import History
from instep.tree.archive.lookup import ArchiveLookup
from instep.tree.archive.source import ArchiveSource
from instep.tree.journal.journal import Compare, Journal, Why
from instep.tree.objects.fidelity import Allow, Local
from instep.tree.root.control_folder import opened as control_opened
from instep.tree.root.os_errors import path_of_people, tree_error
from instep.tree.root.place import Place
from instep.tree.root.tree_generation import held_by_tree, note_held
from instep.tree.scan.compare import Difference
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import Identity
from instep.tree.stage.next_tree import Exchange
from instep.tree.stage.stage import Stage
from instep.tree.switch.recover import Recovered, recover
from instep.tree.switch.step_work import Switched
from instep.tree.switch.switch import switch

DEFINITIONS_KEPT = 4


class FilesetTree:
    """The tree that a line writes or follows, as the line needs it. Work on files runs in ``worker``."""

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, worker: Worker | None = None) -> None:
        """``worker`` is that of another view of the same root: one thread alone works on it."""
        self.runtime = runtime
        self.fileset = fileset
        self.worker = worker or Worker(f"tree-{fileset.name}", self._named)
        self.watch: TreeWatch | None = None
        self.live: HeadRef | None = None
        """The generation that this tree stands for: the last that a writer announced, or that a follower saved as
        live. An observed tree stands for none."""
        self.owners = FollowedOwners(lambda: self.store, fileset.name)
        self.touched = TouchedPaths()
        """Paths that the watch reported and that no look took in: unpublished paths, or possible drift."""
        self.hook_writes = HookWrites(lambda: self.watch.look() if self.watch is not None else None)
        self.guard: Callable[[], None] = lambda: None
        """Called before each step that changes the tree; it raises where that is another node's right by now."""
        self.clock_ahead_ms: Callable[[], int] = lambda: 0
        """By how much the clock of the file system is ahead of this machine's: a look compares times with it."""
        self._comparison: TreeComparison | None = None
        """The last verify that was begun."""
        self._history: History | None = None
        self._definitions: dict[Digest, Definition] = {}
        self._taken: Taken | None = None
        self._archived: ArchiveLookup | None = None

    @property
    def name(self) -> FilesetName:
        return self.fileset.name

    @property
    def line(self) -> LineId:
        return self.fileset.line

    @property
    def store(self) -> NodeStore:
        return self.runtime.store

    def _named(self, error: InstepError | OSError) -> InstepError:
        """An error of this tree that says on which node it was met; one of the kernel with the path and what helps."""
        if isinstance(error, OSError):
            path = path_of_people(error.filename)
            error = tree_error(error, self.name, self.fileset.path, path, "read or written")
        error.facts.setdefault("node", self.runtime.settings.name)
        return error

    def now_ms(self) -> int:
        """The time by the clock of the file system, which dates the files."""
        return wall_ms() + self.clock_ahead_ms()

    # The root -------------------------------------------------------------------------------------------------

    def taken(self) -> Taken:
        """The root with its marker, looked at again each time; raises when it is not ours or not there (P10)."""
        self._taken = taken = find_root(self.runtime, self.fileset, self._taken)
        if self.fileset.is_written_here and (self._history is None or self._history.place != taken.place):
            self._history = History(taken.place)
        return taken

    def seeing(self) -> Callable[[], Identity]:
        """A cheap look at the root, for any thread: ``see_root``."""
        return partial(see_root, self.fileset, self.runtime.name, known_marker(self.store, self.name))

    def place(self) -> Place:
        return self.taken().place

    @property
    def history(self) -> History:
        """The contents of older generations that a writer keeps."""
        if self._history is None:
            self.taken()
        assert self._history is not None, "a tree that is followed has no history of its own"
        return self._history

    @property
    def has_past(self) -> bool:
        """Whether history or archive hold anything: the fileset is not new here. True as well while they cannot be
        looked at, for then they may."""
        try:
            with control_opened(self.place()) as there:
                return any(os.listdir(folder) for folder in (there.history, there.archive) if folder.exists())
        except (InstepError, OSError):
            return True

    def contents(self) -> Contents:
        """Every content of the fileset on this node, for one job of the caller's own."""
        return contents_in(self.place(), self.stat_rows, self._history)

    def archived(self, place: Place) -> ArchiveSource:
        """The newest batches of the archive as a source: the index of each is read once."""
        if self._archived is None or self._archived.place != place:
            self._archived = ArchiveLookup(place)
        return self._archived.newest()

    def get_page(self, digest: Digest) -> bytes:
        """A page of a manifest or a chunk list. ``KeyError`` when it is not here."""
        return must_have(self.store.get_page)(digest)

    def stat_row(self, path: bytes) -> StatRow | None:
        """The row of one file in the stat cache."""
        return self.store.stat_row(self.name, path)

    def stat_rows(self) -> Iterator[StatRow]:
        """Every row of the stat cache, read by whichever thread asks."""
        return self.store.stat_rows(self.name)

    # The rules ------------------------------------------------------------------------------------------------

    def definition_of(self, head: HeadRef) -> Definition | None:
        """The definition that a known generation names, once it is here. The last few are kept: an apply asks often."""
        found = self._definitions.get(head.id) or definition_of(self.store, head)
        if found is not None and head.id not in self._definitions:
            if len(self._definitions) >= DEFINITIONS_KEPT:
                self._definitions.clear()
            self._definitions[head.id] = found
        return found

    def definition(self, head: HeadRef) -> Definition:
        """The definition by which the tree is compared with ``head``: a writer's own, else the generation's."""
        definition = self.fileset.definition or self.definition_of(head)
        if definition is None:
            raise UnavailableError(
                f"the definition of generation {head.number} is not here",
                hint="it is fetched with the next head",
                code="definition_missing",
            )
        return definition

    def local(self, definition: Definition) -> Local:
        """The metadata that this node keeps, and lets a manifest set where it follows (P7)."""
        preserve = frozenset(definition.preserve)
        if self.fileset.is_written_here:
            return Local(preserve=preserve, is_own=True)
        allow = frozenset(Allow(name) for name in self.runtime.settings.allow_preserve)
        return self.owners.local(self.fileset, preserve, allow, is_secret=definition.is_secret)

    # The watch ------------------------------------------------------------------------------------------------

    async def begin_watch(
        self,
        definition: Definition,
        touched: Callable[[tuple[bytes, ...], bool], None],
        told: Callable[[Trouble | None], None],
    ) -> None:
        """Watch for changes from now on: ``touched`` and ``told`` as ``TreeWatch`` calls them."""
        self.watch = TreeWatch(self.fileset.path, Rules(definition), touched, told, self.hook_writes.touched)
        await self.watch.start()

    def watch_anew(self, definition: Definition) -> None:
        """Watch by other rules, or another directory in the same place."""
        if self.watch is not None:
            self.watch.restart(self.fileset.path, Rules(definition))

    def take_touched(self) -> TouchedPaths:
        """The paths that the watch has reported up to now, which are in ``touched`` from now on as well."""
        drained = self.watch.drain() if self.watch is not None else TouchedPaths()
        self.touched.take_in(drained)
        return drained

    # The tree against a generation ------------------------------------------------------------------------------

    def comparison(self, head: HeadRef) -> TreeComparison:
        """A look at the tree as it lies there, by this node's own rules about owners and modes."""
        taken, definition = self.taken(), self.definition(head)
        return TreeComparison(
            self.store, taken.place, self.name, definition, self.local(definition), taken.marker
        )

    def verify(
        self, head: HeadRef, is_deep: bool, noting: Callable[[Difference], None] = lambda _: None
    ) -> Numbers:
        """How the tree differs from ``head``. ``noting`` gets each difference, also of paths that no manifest has."""
        comparison = self._comparison = self.comparison(head)

        def differing() -> Iterator[Difference]:
            for each in comparison.everything(head.root, self.now_ms(), deep=is_deep):
                noting(each)
                if each.problem is None or each.expected is not None:
                    yield each

        return comparison.numbers(differing())

    def looks_with(self, comparison: TreeComparison) -> None:
        """This is the verify under way."""
        self._comparison = comparison

    def verified_bytes(self) -> int:
        """How far the verify under way has read."""
        return self._comparison.read_bytes if self._comparison is not None else 0

    def changes_now(self, head: HeadRef | None, limit: int) -> tuple[ChangeDocument, ...]:
        """The tree against ``head``, as ``diff`` without generations shows it."""
        if head is None:
            return ()
        found = tuple(itertools.islice(self.comparison(head).everything(head.root, self.now_ms()), limit))
        return changes_shown(lambda: found, limit)

    async def drift(self, base: HeadRef, paths: Sequence[bytes]) -> DriftFound:
        """The differences from ``base``. A check that is cancelled, because a new head waits for the same thread, ends
        at the next entry and drops none of the watch's paths."""
        asked = self.touched.pop(paths)
        stopping = threading.Event()
        try:
            return await self.worker.run(self._drift_now, base, paths, asked, stopping)
        except BaseException:
            stopping.set()
            self.touched.take_in(asked)
            raise

    def _drift_now(
        self, base: HeadRef, paths: Sequence[bytes], asked: TouchedPaths, stopping: threading.Event
    ) -> DriftFound:
        """A path of which the watch said nothing is looked at with all below it."""
        comparison = self.comparison(base)
        comparison.stopping = stopping
        now, watch = self.now_ms(), CostWatch()
        if not paths:
            everything = readable(comparison.everything(base.root, now), comparison.place, comparison.local)
            return drift_in(everything, stopping)._replace(cost=watch.cost())
        entries = frozenset(asked.entries)
        trees = tuple(path for path in paths if path not in entries)
        alone = tuple(path for path in paths if path in entries)
        some = comparison.some(base.root, trees, now, alone=alone)
        found = drift_in(readable(some, comparison.place, comparison.local), stopping)
        return found._replace(looked=alone, trees=trees)

    # Stages and switches ----------------------------------------------------------------------------------------

    def open_stage(
        self,
        place: Place,
        target: HeadRef,
        live_root: Digest | None,
        *,
        previous: HeadRef | None,
        sources: Sequence[Callable[[Entry], int | None]],
        why: Why | None = None,
        exchange: Exchange | None = None,
        compare: Compare = Compare.NOTHING,
    ) -> Stage:
        """A stage that makes the tree, which holds ``live_root``, ``target``; the rest as ``Stage`` has it."""
        definition = self.definition(target)
        return Stage(
            place,
            target,
            live_root,
            self.get_page,
            definition,
            previous=previous,
            local=self.local(definition),
            live_row=LiveRows(self.store, self.name),
            sources=sources,
            recut=recut,
            why=why,
            exchange=exchange,
            compare=compare,
            union=self.union_record(target),
        )

    def union_record(self, _: HeadRef) -> bytes:
        """The record of a union, which goes into the journal and the tree's own record; empty for a generation."""
        return b""

    def switch(self, place: Place, journal: Journal) -> Switched:
        """Make the tree what the journal of a sealed stage says."""
        local = self.local(self.definition(journal.header.target))
        place = dataclasses.replace(place, guard=self.guard)
        return switch(place, journal, local=local, get_page=self.get_page, now_ms=wall_ms())

    def recover(self, place: Place, definition: Definition) -> Recovered:
        """Finish or undo a switch that was interrupted. Can be repeated."""
        local = self.local(definition)
        place = dataclasses.replace(place, guard=self.guard)
        return recover(place, local=local, get_page=self.get_page, now_ms=wall_ms())

    # The tree's own word: evidence against a state that is older than the tree (P4) -----------------------------

    def held_now(self, saved: HeadRef | None) -> HeadRef | None:
        """The generation that the tree says it holds. Where that is nothing, or less than ``saved``, what the state
        says is written beside the tree."""
        taken = self.taken()
        if taken.marker is None or self.fileset.observe:
            return None
        found = held_by_tree(taken.place, self.line, taken.marker.random)
        if saved is not None and (found is None or found.position < saved.position):
            self.hold(taken, saved, is_synced=True)
        return found

    def hold(self, taken: Taken, tree: HeadRef, *, is_synced: bool) -> None:
        """Write beside the tree that it holds ``tree``; without ``is_synced`` the caller syncs the control folder."""
        if taken.marker is not None:
            union = self.union_record(tree)
            note_held(taken.place, self.line, taken.marker.random, tree, is_synced=is_synced, union=union)

    def is_known_whole(self, target: HeadRef) -> bool:
        """Whether the state has the record and all pages of a generation."""
        store = self.store
        return store.generation(target.id) is not None and not missing(target.root, store.get_page)


def definition_of(store: NodeStore, head: HeadRef | None) -> Definition | None:
    """The definition of a generation; None where the generation or its definition is not here."""
    signed = store.generation(head.id) if head is not None else None
    raw = store.get_blob(signed.body().definition) if signed is not None else None
    return decode_definition(raw) if raw is not None else None
