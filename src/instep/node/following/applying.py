"""Applying generations to a followed tree: stage, switch, record, put back, revert.

Synchronous parts run in the fileset's worker thread; fetching runs on the event loop and overlaps with laying.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice

from instep.core.follow.kept_paths import as_in
from instep.core.follow.vocabulary import PutBack, Revert, Reverted, StageContents
from instep.core.retention import secrets_to_forget
from instep.errors import UnavailableError
from instep.model.definition import Definition
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.entry import Entry
from instep.model.manifest.manifest import Change, diff
from instep.net.service import PeerCalls
from instep.node.following.lingering import Lingering
from instep.node.following.page_fetch import OfferedHeads
from instep.node.following.pulling import Puller
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.placing import Taken
from instep.node.trees.scanning.scan_tally import PageKeeper
from instep.node.trees.scanning.stat_rows import record_rows, store_rows
from instep.node.trees.space import require_room
from instep.node.trees.switch_outcome import refuse_held, reverted_by
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Journal, Why
from instep.tree.root.control_folder import opened
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.root.writable import require_writable_folder
from instep.tree.stage.ignored import refuse_ignored_in_the_way
from instep.tree.stage.stage import Source, Stage
from instep.tree.stage.stages import clear_stages
from instep.tree.switch.recover import Recovered
from instep.tree.switch.step_work import Switched
from instep.tree.switch.switch import finish, prepare

RECORDING = register("apply.recording")
RECORDED = register("apply.recorded")


class Applying:
    """The acts of a followed line on its tree."""

    def __init__(
        self,
        tree: FilesetTree,
        lingering: Lingering,
        offered: OfferedHeads,
        sources_for: Callable[[NodeName], list[PeerCalls]],
        kept: Callable[[], tuple[bytes, ...]] = tuple,
    ) -> None:
        """``sources_for`` returns clients of the nodes that can send the line, the named one first; ``kept`` the paths
        that no apply touches, because their changes were offered to the writer."""
        self._tree = tree
        self._lingering = lingering
        self._offered = offered
        self._sources_for = sources_for
        self._kept = kept
        self._sealed: Journal | None = None
        self.staging = asyncio.Lock()
        """Held while a stage is filled."""
        self._pulling: tuple[Puller, int] | None = None

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes fetched, and bytes of all that is new or changed; zeros when nothing is fetched."""
        if self._pulling is None:
            return 0, 0
        puller, total = self._pulling
        return min(puller.fetched_bytes, total), total

    # Recover ------------------------------------------------------------------------------------------------

    def recover_now(self) -> Recovered:
        """Finish or undo what a crash or an error interrupted."""
        place = self._tree.place()
        journal = Journal.load(place)
        known = self._tree.definition_of(journal.header.target) if journal is not None else None
        return self._tree.recover(place, known or Definition())

    # Stage --------------------------------------------------------------------------------------------------

    async def stage(self, effect: StageContents) -> None:
        """Stage ``effect.head`` beside the tree; resumable; leaves the sealed journal for the switch."""
        head, bundle = effect.head, self._offered.bundle
        contents = bundle[1] if bundle is not None and bundle[0] == head.id else {}
        async with self.staging:
            open_stage = partial(self._open, head, effect.base)
            self._sealed = await self._staged(open_stage, head, effect.source, contents, None)

    async def _staged(
        self,
        open_stage: Callable[[], Stage],
        head: HeadRef,
        source: NodeName | None,
        contents: Mapping[Digest, bytes],
        link_of: Callable[[Entry], bytes | None] | None,
    ) -> Journal:
        tree = self._tree
        self._sealed = None
        stage = await tree.worker.run(open_stage)
        puller = self._puller(stage, head, source, contents, link_of)
        self._pulling = (puller, stage.moves.size_bytes)
        try:
            await puller.run()
            return await tree.worker.run(self._seal, stage)
        finally:
            self._pulling = None
            await asyncio.shield(tree.worker.run(stage.close))

    def _puller(
        self,
        stage: Stage,
        head: HeadRef,
        source: NodeName | None,
        contents: Mapping[Digest, bytes],
        link_of: Callable[[Entry], bytes | None] | None,
    ) -> Puller:
        clients = self._sources_for(source) if source is not None else []
        return Puller(self._tree, stage, head, clients, contents, link_of)

    def _seal(self, stage: Stage) -> Journal:
        """All that can be done before the permit is done here."""
        journal = stage.seal(time.time_ns())
        prepare(stage.place, journal, local=stage.local)
        return journal

    def _open(self, head: HeadRef, base: HeadRef | None) -> Stage:
        tree, place = self._tree, self._tree.place()
        require_writable_folder(place.control)
        found = self._found_root(head, place) if base is None else self._without_kept(base.root, head.root)
        require_room(place, found, head.root, tree.get_page, tree.definition(head).preserve)
        sources, exchange = self._sources(place, head), self._lingering.exchange()
        return tree.open_stage(place, head, found, previous=base, sources=sources, exchange=exchange)

    def _sources(self, place: Place, _: HeadRef) -> tuple[Source, ...]:
        """Where a stage looks for contents on this node, beside the paths of the tree that it displaces."""
        return (self._tree.archived(place),)

    def _without_kept(self, root: Digest, target: Digest) -> Digest:
        """``root`` with the kept paths as ``target`` has them: a stage from there has no step for them."""
        kept = self._kept()
        if not kept:
            return root
        keeper = PageKeeper(self._tree.store)
        without = as_in(root, target, kept, keeper.get, keeper.put)
        keeper.flush()
        return without

    def _found_root(self, head: HeadRef, place: Place) -> Digest | None:
        """The root of the tree where no generation was ever recorded: empty; or the tree was there before, or the
        state was lost. Then files that are right already are left as they are."""
        if all(name.lower().startswith(".instep") for name in os.listdir(place.root)):
            return None
        return self._tree.comparison(head).whole_root(head.root, self._tree.now_ms())

    # Switch -------------------------------------------------------------------------------------------------

    def switch_now(self, head: HeadRef) -> Switched:
        journal = self._sealed
        if journal is None or journal.header.target != head:
            raise UnavailableError(f"generation {head.number} is not staged", code="not_staged")
        self._sealed = None
        with opened(self._tree.place()) as place:
            self._finish_journal(place)
            refuse_ignored_in_the_way(place, journal)
            return self._tree.switch(place, journal)

    def record_now(self) -> None:
        """Record the switch in the stat cache; the journal stays until live is saved."""
        failpoint(RECORDING)
        with opened(self._tree.place()) as place:
            store_rows(self._tree.store, place)

    def close_now(self) -> None:
        """Live is saved: the journal goes, then the stage."""
        taken = self._tree.taken()
        failpoint(RECORDED)
        with opened(taken.place) as place:
            journal = Journal.load(place)
            if journal is not None:
                # The record of what the tree holds is synced with the journal's going.
                self._tree.hold(Taken(place, taken.marker), journal.header.target, is_synced=False)
                finish(place, journal)
                if self._tree.definition(journal.header.target).is_secret:
                    archive = Archive(place)
                    archive.prune(secrets_to_forget(archive.batches()))
            clear_stages(place)

    def drop_stage(self) -> None:
        self._lingering.give_up()
        clear_stages(self._tree.place())

    def staged_path(self) -> bytes | None:
        """Where the sealed stage lies, for a ``validate`` hook."""
        if (journal := self._sealed) is None:
            return None
        return os.fsencode(self._tree.place().stage) + b"/" + journal.stage_name

    async def put_back(self, effect: PutBack) -> Switched:
        """Return the tree to the generation that it replaced: from the archive, else from the source."""
        open_stage = partial(self._open_return, effect.head, effect.base.root, None)
        return await self._replace(open_stage, effect.head, effect.source)

    def _open_return(self, target: HeadRef, tree_root: Digest, why: Why | None) -> Stage:
        """A stage that makes the tree, which holds ``tree_root``, ``target`` again."""
        place = self._tree.place()
        self._finish_journal(place)
        exchange = self._lingering.exchange() if why is None else None
        sources = (self._tree.contents(),)
        if why is None:
            tree_root = self._without_kept(tree_root, target.root)
        return self._tree.open_stage(
            place, target, tree_root, previous=target, sources=sources, why=why, exchange=exchange
        )

    async def _replace(
        self, open_stage: Callable[[], Stage], target: HeadRef, source: NodeName | None
    ) -> Switched:
        """Stage and switch at once, without gates and hooks."""
        async with self.staging:
            link_of = self._tree.contents().target
            journal = await self._staged(open_stage, target, source, {}, link_of)
            return await self._tree.worker.run(self._switch_at_once, journal, target)

    def _switch_at_once(self, journal: Journal, target: HeadRef) -> Switched:
        taken = self._tree.taken()
        switched = self._tree.switch(taken.place, journal)
        self._tree.hold(taken, target, is_synced=True)
        store_rows(self._tree.store, taken.place)
        clear_stages(taken.place)
        return switched

    def _finish_journal(self, place: Place) -> None:
        """A switched journal makes room for the next; its rows are recorded first."""
        journal = Journal.load(place)
        if journal is not None and journal.is_switched:
            record_rows(self._tree.store, place)

    def changed_paths(self, base: HeadRef | None, head: HeadRef | None, limit: int) -> list[bytes]:
        """The paths that differ between two generations, for a hook."""
        return [change.path for change in islice(self.changes(base, head), limit)]

    def changes(self, base: HeadRef | None, head: HeadRef | None) -> Iterator[Change]:
        """The differences between two generations; pages are read on the way."""
        if head is not None:
            yield from diff(base.root if base is not None else None, head.root, self._tree.get_page)

    # Revert -------------------------------------------------------------------------------------------------

    async def revert(self, effect: Revert) -> Reverted:
        """Archive what lies at the paths and lay what the base says, from here or from the source."""
        open_stage = partial(self._open_revert, effect.base, effect.paths)
        switched = await self._replace(open_stage, effect.base, effect.source)
        reverted = await self._tree.worker.run(reverted_by, effect, switched)
        await self._tree.worker.run(self.close_now)
        refuse_held(self._tree.place(), switched)
        return reverted

    def _open_revert(self, base: HeadRef, paths: Sequence[bytes]) -> Stage:
        self._lingering.give_up()
        found = self._tree.comparison(base).found_root(base.root, paths, self._tree.now_ms())
        return self._open_return(base, found, Why.DRIFT)
