"""This node's own line in a fileset of many homes: published as a writer's, from a tree that holds other lines too."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from instep.api.looking import ChangeDocument
from instep.core.changes.offer_vocabulary import OwnedPath
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as v
from instep.core.vocabulary import RetryAsked, Trouble
from instep.errors import ContentionError, InstepError, UnavailableError
from instep.model.ids import Digest, HeadRef
from instep.model.lock import LockView
from instep.model.standing import Standing
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.line_net import LineNet
from instep.node.lines.line_service import LineService
from instep.node.replica.own_restore import OwnRestoring
from instep.node.replica.own_scan import OwnTree, TreeDivided
from instep.node.replica.replica import Replica
from instep.node.runtime.driver import own_error
from instep.node.runtime.runtime import Runtime
from instep.node.trees.tree_comparison import Numbers
from instep.node.writing.writer import WriterService
from instep.node.writing.writer_tree import WriterTree
from instep.tree.journal.journal import Journal
from instep.tree.root.failpoints import failpoint, register

OWN_COMMITTED = register("replica.own_committed")
PUBLISH_S = 10.0
STILL_S = 20.0
"""So long a look waits for a switch that is under way, before it says so and comes back later."""


class OwnLine(WriterService):
    """It owns what belongs to the fileset here: ``replica`` has the other lines and the union."""

    own: OwnTree

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet) -> None:
        self._divided: TreeDivided | None = None
        super().__init__(runtime, fileset, net)
        self.restoring = OwnRestoring(self.replica, self.own, net)
        self.changes.moving = self.replica.turn
        self.replica.publish = self._publish_now
        self.replica.finish_own_switch = self.changes.applier.finish_switch

    def _new_own(self) -> WriterTree:
        self.replica = Replica(
            self.runtime, self.tree, self._net, self._touched_by_union, self.head_now, self._laid_head
        )
        return OwnTree(
            self.tree,
            lambda event: self.driver.post(event),
            self.replica.unions,
            self._looked,
            lambda: self.replica.offers.kept(),
        )

    def head_now(self) -> HeadRef | None:
        """The newest head of the own line, announced or not."""
        return self.facts.head

    def _laid_head(self) -> HeadRef | None:
        """The newest head, unless it was adopted: then a look at the tree says whether its contents are there."""
        return None if self.facts.is_adopted else self.facts.head

    def _touched_by_union(self, paths: tuple[bytes, ...], is_everything: bool) -> None:
        """The union moved under paths that the own line has to look at again."""
        self.driver.post(v.TreeChanged(paths, is_everything))

    async def _publish_now(self) -> None:
        """Publish what was changed until now, also while this node was down, where it is published by itself: a switch
        of the union is about to come. A look that is refused says so by itself."""
        drained, touched = self.tree.take_touched(), self.tree.touched
        if drained.paths or drained.is_everything:
            self.driver.post(v.TreeChanged(drained.paths, drained.is_everything))
        is_touched = touched.paths or touched.is_everything or self._divided is None
        if self.fileset.publish != "auto" or not is_touched:
            return
        with contextlib.suppress(TimeoutError):
            await self.ask(lambda number: v.PublishAsked(number, is_flush=True), PUBLISH_S)

    def _looked(self, divided: TreeDivided) -> None:
        self._divided = divided

    # Life ---------------------------------------------------------------------------------------------------

    async def _run(self, begun: Coroutine[Any, Any, None], *works: Coroutine[Any, Any, None]) -> None:
        await super()._run(begun, *works, self.replica.run())

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            await self.replica.close()

    def reconfigure(self, fileset: FilesetSettings) -> None:
        super().reconfigure(fileset)
        self.replica.reconfigure(fileset)

    async def _root_turned(self, trouble: Trouble | None) -> None:
        await super()._root_turned(trouble)
        await self.replica.root_turned(trouble)

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: s.WriterEffect) -> None:
        match effect:
            case s.Recover(req=req):
                failed = self.restoring.failed_recovery
                self.driver.spawn(self._recover_own(req), lambda e: s.RecoverFailed(req, failed(e)))
            case _:
                await super()._perform(effect)

    async def _recover_own(self, req: int) -> s.TreeRecovered:
        """A switch of the union is ended by the union; one that a change from elsewhere made, by the home."""
        await self.replica.recovered.wait()
        await self._recover_union()
        if await self.worker.run(self._has_compared_journal):
            return await self.changes.recover(req)
        return s.TreeRecovered(req)

    async def _recover_union(self) -> None:
        if self.replica.is_lost:
            await self.replica.union.recover_again()

    def _has_compared_journal(self) -> bool:
        journal = Journal.load(self.tree.place())
        return journal is not None and journal.is_compared

    async def _scan(self, effect: v.Scan) -> v.PublishEvent:
        try:
            async with asyncio.timeout(STILL_S):
                await self.replica.still.wait()
        except TimeoutError:
            raise self.replica.why_not_still() from None
        await self._recover_union()
        if self.replica.unions.is_own_doubtful:
            self.replica.unions.is_own_doubtful = False
            self.driver.post(v.OldTreeFound())
        reverts = self.replica.union.reverts
        try:
            event = await super()._scan(effect)
        except InstepError as error:
            await self.replica.looked(error)
            raise
        await self.replica.looked(None)
        divided = self._divided
        if divided is not None:
            async with self.replica.turn:
                is_current = self.replica.union.reverts == reverts
                await self.replica.divided(divided, is_current=is_current)
        return event

    async def _commit(self, effect: v.Commit) -> v.PublishEvent:
        """Between the look and the commit no switch may have moved the union: its paths would be taken for own ones."""
        divided = self._divided
        async with self.replica.turn:
            if divided is None or not self.replica.is_of_now(divided.laid):
                raise ContentionError(
                    "the union moved while the tree was looked at; it is looked at again",
                    code="tree_is_switched",
                )
            event = await super()._commit(effect)
            try:
                failpoint(OWN_COMMITTED)
                await self.replica.own_moved(self.facts.head)
            except (InstepError, OSError) as error:
                # The generation is durable: the next look at the tree finds that its record is behind, and writes it.
                await self.replica.looked(own_error(error))
                self.driver.post(v.TreeChanged((), True))
        return event

    # Looks --------------------------------------------------------------------------------------------------

    async def root_now(self) -> Digest | None:
        head, report = self.head, self.machine.report
        is_head = report is not None and report.standing is Standing.IN_STEP and report.code is None
        return head.root if head is not None and is_head else None

    async def _verified(self, live: HeadRef, is_deep: bool) -> Numbers:
        return await self.replica.verified(self.line.origin, is_deep=is_deep)

    def changes_now(self, limit: int) -> tuple[ChangeDocument, ...]:
        return self.replica.changes_now(limit)

    def in_use(self) -> tuple[HeadRef, ...]:
        return (*super().in_use(), *self.replica.used_of(self.line.origin))

    # Changes from elsewhere, and of other homes ---------------------------------------------------------------

    def line_at(self, path: bytes) -> tuple[LineService, bytes]:
        laid = self.replica.unions.now
        sources = () if laid is None else laid.ownership.of(path)
        kept = next((self.replica.kept[s.origin] for s in sources if s.origin in self.replica.kept), None)
        if kept is None or any(source.origin == self.line.origin for source in sources):
            return self, path
        return kept, next(source.path for source in sources if source.origin == kept.line.origin)

    async def locks(self) -> tuple[LockView, ...]:
        found = [await super().locks()]
        for kept in self.beside:
            try:
                found.append(await kept.locks())
            except UnavailableError:
                continue  # its standing says that its home is not connected
        return tuple(lock for locks in found for lock in locks)

    @property
    def open_collisions(self) -> int:
        return self.replica.collisions.open_count

    def offered_edits(self) -> tuple[tuple[OwnedPath, ...], Trouble | None]:
        return self.replica.offers.offered_edits()

    def judge_removals(self, *, are_accepted: bool) -> None:
        self.replica.offers.judge_removals(are_accepted=are_accepted)

    @property
    def beside(self) -> tuple[LineService, ...]:
        return tuple(self.replica.kept[origin] for origin in sorted(self.replica.kept))

    @property
    def is_at_work(self) -> bool:
        others = (self.replica.union, *self.replica.kept.values())
        return super().is_at_work or any(other.is_at_work for other in others)

    def page_roots(self) -> list[Digest]:
        return self.replica.unions.roots()

    def asked_to(self, what: str) -> None:
        self.replica.retry()

    async def retry(self) -> None:
        await super().retry()
        self.replica.retry()
        for kept in self.replica.kept.values():
            kept.driver.post(RetryAsked())

    def pause(self, reason: str, until_wall_ms: int | None = None) -> None:
        super().pause(reason, until_wall_ms)
        self.replica.union.pause(reason, until_wall_ms)

    def resume(self) -> None:
        super().resume()
        self.replica.union.resume()
