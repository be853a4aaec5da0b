"""Applying generations to a followed tree: stage, switch, record, put back, revert.

Synchronous parts run in the fileset's worker thread; fetching runs on the event loop and overlaps with laying.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from instep.core.follow.vocabulary import PutBack, Revert, StageContents
from instep.errors import UnavailableError
from instep.model.definition import Definition, Preserve
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.entry import Entry
from instep.model.manifest.manifest import Change, diff
from instep.net.service import PeerCalls
from instep.node.following.lingering import Lingering
from instep.node.following.pulling import Puller
from instep.node.runtime.driver import wall_ms
from instep.node.trees.closed_paths import readable
from instep.node.trees.drift_look import DriftFound, drift_in
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.held_paths import refuse_held
from instep.node.trees.held_tree import hold
from instep.node.trees.keeping.chunk_lists import recut
from instep.node.trees.keeping.shared_history import contents_in
from instep.node.trees.keeping.switch_rows import record_rows, store_rows
from instep.node.trees.placing import Taken
from instep.node.trees.scanning.scan_cost import CostWatch
from instep.node.trees.scanning.stat_lookup import LiveRows
from instep.node.trees.space import require_room
from instep.node.trees.tree_comparison import Numbers, TreeComparison
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Journal, Why
from instep.tree.objects.fidelity import Allow, Local
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.root.writable import require_writable_folder
from instep.tree.stage.stage import Stage
from instep.tree.stage.stages import clear_stages
from instep.tree.switch.recover import Recovered, recover
from instep.tree.switch.step_work import Switched
from instep.tree.switch.switch import finish, prepare, switch

__all__ = ["Applying"]

TOUCHED_MAX = 50_000
RECORDING = register("apply.recording")
RECORDED = register("apply.recorded")


class Supply(Protocol):
    """Where the contents of a generation come from."""

    @property
    def head_bundle(self) -> tuple[Digest, dict[Digest, bytes]] | None:
        """Small contents that came with a head: the generation's id, and contents by digest."""
        ...

    def sources_for(self, first: NodeName) -> list[PeerCalls]:
        """Clients of the nodes that can send the line, ``first`` first."""
        ...


class Applying:
    """The acts of a followed line on its tree."""

    def __init__(self, tree: FilesetTree, lingering: Lingering, supply: Supply) -> None:
        self._tree = tree
        self._lingering = lingering
        self._supply = supply
        self._sealed: Journal | None = None
        self._staging = asyncio.Lock()
        self._pulling: tuple[Puller, int] | None = None
        self._is_tree: dict[bytes, bool] = {}
        """By touched path: whether to look at all below, too. A path that is missing here is looked at with all
        below."""

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes fetched, and bytes of all that is new or changed; zeros when nothing is fetched."""
        if self._pulling is None:
            return 0, 0
        puller, total = self._pulling
        return min(puller.fetched_bytes, total), total

    # Shared helpers -------------------------------------------------------------------------------------------

    def definition(self, head: HeadRef) -> Definition:
        definition = self._tree.definition_of(head)
        if definition is None:
            raise UnavailableError(
                f"the definition of generation {head.number} is not here",
                hint="it is fetched with the next head",
                code="definition_missing",
            )
        return definition

    def local(self, definition: Definition) -> Local:
        """The metadata that this node keeps and lets a manifest set (P7)."""
        tree = self._tree
        return Local(
            preserve=frozenset(definition.preserve),
            allow=frozenset(Allow(name) for name in tree.runtime.settings.allow_preserve),
            without=frozenset(Preserve(name) for name in tree.fileset.without),
        )

    def inspection(self, definition: Definition, taken: Taken) -> TreeComparison:
        """A look at the tree by this node's own rules about owners and modes."""
        return self._tree.inspection(definition, self.local(definition), taken)

    # Recover ------------------------------------------------------------------------------------------------

    def recover_now(self) -> Recovered:
        """Finish or undo what a crash or an error interrupted."""
        taken = self._tree.taken()
        journal = Journal.load(taken.place)
        definition = Definition()
        if journal is not None:
            definition = self._tree.definition_of(journal.header.target) or Definition()
        return recover(
            taken.place, local=self.local(definition), get_page=self._tree.get_page, now_ms=wall_ms()
        )

    # Stage --------------------------------------------------------------------------------------------------

    async def stage(self, effect: StageContents) -> None:
        """Stage ``effect.head`` beside the tree; resumable; leaves the sealed journal for the switch."""
        tree = self._tree
        async with self._staging:
            self._sealed = None
            stage = await tree.worker.run(self._open, effect.head, effect.base)
            try:
                await self._fill(stage, effect.source, effect.head)
                self._sealed = await tree.worker.run(self._seal, stage)
            finally:
                await asyncio.shield(tree.worker.run(stage.close))

    def _seal(self, stage: Stage) -> Journal:
        """All that can be done before the permit is done here."""
        journal = stage.seal(time.time_ns())
        prepare(stage.place, journal, local=stage.local)
        return journal

    def _open(self, head: HeadRef, base: HeadRef | None) -> Stage:
        tree = self._tree
        definition = self.definition(head)
        taken = self._tree.taken()
        place = taken.place
        require_writable_folder(place.control)
        found = base.root if base is not None else self._found_root(head, definition, taken)
        require_room(place, found, head.root, self._tree.get_page)
        return Stage.open(
            place,
            head,
            found,
            self._tree.get_page,
            definition,
            previous=base,
            local=self.local(definition),
            live_row=LiveRows(tree.store, tree.name),
            sources=(Archive(place).source(),),
            recut=recut,
            exchange=self._lingering.exchange(),
        )

    def _found_root(self, head: HeadRef, definition: Definition, taken: Taken) -> Digest | None:
        """The root of the tree where no generation was ever recorded: empty; or the tree was there before, or the
        state was lost. Then files that are right already are left as they are."""
        if all(name.lower().startswith(".instep") for name in os.listdir(taken.place.root)):
            return None
        return self.inspection(definition, taken).whole_root(head.root, wall_ms())

    async def _fill(self, stage: Stage, source: NodeName, head: HeadRef) -> None:
        bundle = self._supply.head_bundle
        contents = bundle[1] if bundle is not None and bundle[0] == head.id else {}
        await self._pull(stage, head, self._supply.sources_for(source), contents, None)

    async def _pull(
        self,
        stage: Stage,
        head: HeadRef,
        clients: Sequence[PeerCalls],
        contents: Mapping[Digest, bytes],
        link_of: Callable[[Entry], bytes | None] | None,
    ) -> None:
        tree = self._tree
        puller = Puller(
            stage,
            tree.line,
            head,
            clients,
            contents,
            tree.worker,
            tree.get_page,
            tree.store,
            link_of,
        )
        self._pulling = (puller, stage.moves.size_bytes)
        try:
            await puller.run()
        finally:
            self._pulling = None

    # Switch -------------------------------------------------------------------------------------------------

    def switch_now(self, head: HeadRef) -> Switched:
        journal = self._sealed
        if journal is None or journal.header.target != head:
            raise UnavailableError(f"generation {head.number} is not staged", code="not_staged")
        self._sealed = None
        local = self.local(self.definition(head))
        place = self._tree.taken().place
        self._finish_journal(place)
        return switch(place, journal, local=local, get_page=self._tree.get_page, now_ms=wall_ms())

    def record_now(self) -> None:
        """Record the switch in the stat cache; the journal stays until live is saved."""
        failpoint(RECORDING)
        store_rows(self._tree.store, self._tree.taken().place)

    def close_now(self) -> None:
        """Live is saved: the journal goes, then the stage."""
        taken = self._tree.taken()
        place = taken.place
        failpoint(RECORDED)
        journal = Journal.load(place)
        if journal is not None:
            hold(self._tree.line, taken, journal.header.target, is_synced=False)  # with the journal's going
            finish(place, journal)
        clear_stages(place)

    def drop_stage(self) -> None:
        self._lingering.give_up()
        clear_stages(self._tree.taken().place)

    def staged_path(self) -> bytes | None:
        """Where the sealed stage lies, for a ``validate`` hook."""
        if (journal := self._sealed) is None:
            return None
        return os.fsencode(self._tree.taken().place.stage) + b"/" + journal.stage_name

    async def put_back(self, effect: PutBack) -> Switched:
        """Return the tree to the generation that it replaced: from the archive, else from the source."""
        return await self._replace(
            lambda: self._open_return(effect.head, effect.base.root, None), effect.head, effect.source
        )

    def _open_return(self, target: HeadRef, tree_root: Digest, why: Why | None) -> Stage:
        """A stage that makes the tree, which holds ``tree_root``, ``target`` again."""
        tree = self._tree
        definition = self.definition(target)
        place = self._tree.taken().place
        self._finish_journal(place)
        return Stage.open(
            place,
            target,
            tree_root,
            self._tree.get_page,
            definition,
            previous=target,
            local=self.local(definition),
            live_row=LiveRows(tree.store, tree.name),
            sources=(contents_in(place, tree.stat_rows)[0],),
            recut=recut,
            why=why,
            exchange=self._lingering.exchange() if why is None else None,
        )

    async def _replace(
        self, opened: Callable[[], Stage], target: HeadRef, source: NodeName | None
    ) -> Switched:
        """Stage and switch at once, without gates and hooks."""
        tree = self._tree
        async with self._staging:
            self._sealed = None
            stage = await tree.worker.run(opened)
            try:
                clients = self._supply.sources_for(source) if source is not None else []
                link_of = contents_in(stage.place, tree.stat_rows)[0].target
                await self._pull(stage, target, clients, {}, link_of)
                journal = await tree.worker.run(self._seal, stage)
            finally:
                await asyncio.shield(tree.worker.run(stage.close))
            return await tree.worker.run(self._switch_at_once, journal, target)

    def _switch_at_once(self, journal: Journal, target: HeadRef) -> Switched:
        taken = self._tree.taken()
        place = taken.place
        local = self.local(self.definition(target))
        switched = switch(place, journal, local=local, get_page=self._tree.get_page, now_ms=wall_ms())
        hold(self._tree.line, taken, target, is_synced=True)
        store_rows(self._tree.store, place)
        clear_stages(place)
        return switched

    def _finish_journal(self, place: Place) -> None:
        """A switched journal makes room for the next; its rows are recorded first."""
        journal = Journal.load(place)
        if journal is not None and journal.is_switched:
            record_rows(self._tree.store, place)

    def changed_paths(self, base: HeadRef | None, head: HeadRef | None, limit: int) -> list[bytes]:
        """The paths that differ between two generations, for a hook."""
        found: list[bytes] = []
        for change in self.changes(base, head):
            found.append(change.path)
            if len(found) >= limit:
                break
        return found

    def changes(self, base: HeadRef | None, head: HeadRef | None) -> Iterator[Change]:
        """The differences between two generations; pages are read on the way."""
        if head is not None:
            yield from diff(base.root if base is not None else None, head.root, self._tree.get_page)

    # Drift --------------------------------------------------------------------------------------------------

    def touched(self, path: bytes, *, is_tree: bool) -> None:
        """Take a touched path from the watch; on the event loop. Dropping one is safe: then more is looked at."""
        if path in self._is_tree or len(self._is_tree) < TOUCHED_MAX:
            self._is_tree[path] = is_tree or self._is_tree.get(path, False)

    async def drift(self, base: HeadRef, paths: Sequence[bytes]) -> DriftFound:
        """The differences from ``base``. A check that is cancelled, because a new head waits for the same thread, ends
        at the next entry and drops none of the watch's paths."""
        asked = {p: self._is_tree.pop(p) for p in paths or tuple(self._is_tree) if p in self._is_tree}
        stopping = threading.Event()
        try:
            return await self._tree.worker.run(self._drift_now, base, paths, asked, stopping)
        except BaseException:
            stopping.set()
            for path, is_tree in asked.items():
                self.touched(path, is_tree=is_tree)
            raise

    def _drift_now(
        self, base: HeadRef, paths: Sequence[bytes], is_tree: Mapping[bytes, bool], stopping: threading.Event
    ) -> DriftFound:
        taken = self._tree.taken()
        definition = self.definition(base)
        inspection, local = self.inspection(definition, taken), self.local(definition)
        inspection.stopping = stopping
        now, watch = wall_ms(), CostWatch()
        if not paths:
            everything = readable(inspection.everything(base.root, now), taken.place, local)
            return drift_in(everything, stopping)._replace(cost=watch.cost())
        trees = [path for path in paths if is_tree.get(path, True)]
        alone = [path for path in paths if not is_tree.get(path, True)]
        some = readable(inspection.some(base.root, trees, now, alone=alone), taken.place, local)
        return drift_in(some, stopping)

    async def revert(self, effect: Revert) -> None:
        """Archive what lies at the paths and lay what the base says, from here or from the source."""
        switched = await self._replace(
            lambda: self._open_revert(effect.base, effect.paths), effect.base, effect.source
        )
        await self._tree.worker.run(self.close_now)
        refuse_held(self._tree.taken().place, switched)

    def _open_revert(self, base: HeadRef, paths: Sequence[bytes]) -> Stage:
        self._lingering.give_up()
        definition = self.definition(base)
        found = self.inspection(definition, self._tree.taken()).found_root(base.root, paths, wall_ms())
        return self._open_return(base, found, Why.DRIFT)

    # Looking ------------------------------------------------------------------------------------------------

    def verify_now(self, live: HeadRef, is_deep: bool) -> Numbers:
        taken = self._tree.taken()
        inspection = self._tree.verifying = self.inspection(self.definition(live), taken)
        return inspection.numbers(
            d
            for d in inspection.everything(live.root, wall_ms(), deep=is_deep)
            if not (d.problem is not None and d.expected is None)
        )

    def compare_now(self, head: HeadRef) -> Numbers:
        """Observing: in how much the tree differs from ``head``; nothing is written."""
        return self.verify_now(head, False)
