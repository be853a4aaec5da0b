"""Bringing a writer's own tree to a generation: planned, fetched, laid and switched like any apply.

The present tree is scanned first and the stage starts from it, so every change that an operator or an accident left
there goes to the archive, and nothing is taken for right that is not. Contents come by digest from the tree, the
history, the archive and the partners. Until every one of them lies verified in the stage, nothing moves.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from itertools import islice

import msgspec

from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as v
from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import InstepError, ResourceError, UnavailableError
from instep.model.definition import Preserve
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.graft import graft
from instep.model.manifest.manifest import build, diff, iterate, totals
from instep.node.lines.line_net import LineNet
from instep.node.lines.partner_contents import PartnerContents
from instep.node.profiles.rollbacks import keep_target, open_target
from instep.node.runtime.driver import wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.keeping.own_history import keep_laid
from instep.node.trees.scanning.scan_tally import PATHS_KEPT_MAX, PageKeeper
from instep.node.trees.scanning.stat_rows import record_rows
from instep.node.trees.scanning.writer_scan import losses_of
from instep.node.trees.space import require_room
from instep.node.trees.switch_outcome import is_open, left_by, note_kept
from instep.node.writing.restore_plan import (
    counted,
    is_same_content,
    no_attribute,
    nowhere,
    refuse_stuck_restore,
    refuse_unknown_paths,
    to_be_repeated,
)
from instep.node.writing.writer_tree import WriterTree
from instep.tree.archive.contents import Contents
from instep.tree.journal.journal import Journal
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.stage.stage import Stage, Want
from instep.tree.stage.stages import clear_stages
from instep.tree.switch.recover import RecoveredKind
from instep.tree.switch.step_work import Switched

BATCH_ENTRIES = 2_000
BATCH_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """``found`` is the root of the present tree, ``tree`` the root that it shall hold, ``published`` the root of
    the next generation."""

    found: Digest
    tree: Digest
    published: Digest
    needed: tuple[Entry, ...]


class Restoring:
    """The restores of one own line. Synchronous parts run in the tree's worker thread."""

    def __init__(self, tree: FilesetTree, own: WriterTree, net: LineNet) -> None:
        self._tree = tree
        self._own = own
        self._net = net
        self._partners: PartnerContents | None = None
        self._total_bytes = 0
        self.paths: tuple[bytes, ...] = ()
        """The paths that the last plan would change in the head, for hooks; at most ``PATHS_KEPT_MAX``."""

    @property
    def progress(self) -> tuple[int, int]:
        """Bytes fetched from partners, and bytes of all that is laid; zeros at rest."""
        if self._partners is None:
            return 0, 0
        return min(self._partners.fetched_bytes, self._total_bytes), self._total_bytes

    # --- planning -------------------------------------------------------------------------------------------------

    async def plan(self, effect: s.PlanRestore) -> s.RestorePlanned:
        """The changes of a restore, and whether all contents can be had; nothing changes."""
        tree = self._tree
        await self._have_pages(effect.target)
        goal = await tree.worker.run(self._goal, effect)
        plan = await tree.worker.run(self._planned, effect, goal)
        try:
            await tree.worker.run(self._refuse_stuck, effect, goal)
            if not plan.tree.is_nothing:
                await tree.worker.run(self._require_room, goal)
        except ResourceError as error:
            return s.RestorePlanned(effect.req, msgspec.structs.replace(plan, missing=trouble_of(error)))
        if plan.tree.is_nothing:
            return s.RestorePlanned(effect.req, plan)
        lost = await tree.worker.run(self._missing_here, goal.needed)
        partners = await self._located(lost, effect.source)
        unfound = [entry for entry in lost if not partners.who_has(entry)]
        if unfound:
            gone = nowhere(tree.name, effect.target, unfound, partners)
            plan = msgspec.structs.replace(plan, missing=trouble_of(gone))
        return s.RestorePlanned(effect.req, plan)

    def _refuse_stuck(self, effect: s.PlanRestore, goal: Goal) -> None:
        get = self._tree.get_page
        base = effect.head.root if effect.head is not None else None
        refuse_stuck_restore(
            self._tree.place(),
            diff(goal.found, goal.tree, get),
            diff(base, goal.published, get),
        )

    async def _have_pages(self, target: HeadRef) -> None:
        """The manifest of ``target``, from partners where it is not here any more."""
        tree = self._tree
        if await tree.worker.run(self._has_pages, target):
            return
        failed: InstepError | None = None
        for who in self._net.connected(tree.line):
            try:
                await self._net.fetch_pages(tree.line, who, target)
                return
            except InstepError as error:
                failed = error
        raise UnavailableError(
            f"the manifest of generation {target.number} is not here, and no connected partner has it",
            hint=f"see which generations can be restored: instep log {tree.name}",
            code="contents_missing",
            generation=target.number,
        ) from failed

    def _has_pages(self, target: HeadRef) -> bool:
        return not missing(target.root, self._tree.store.get_page)

    def _goal(self, effect: s.PlanRestore | s.Restore) -> Goal:
        tree, own = self._tree, self._own
        keeper = PageKeeper(tree.store)
        whole = self._under_rules(effect.target, keeper)
        head = effect.head.root if effect.head is not None else build((), keeper.put)
        keeper.flush()
        found = own.found_root(msgspec.structs.replace(effect.target, root=whole))
        if effect.paths:
            name, number = tree.name, effect.target.number
            refuse_unknown_paths(name, number, effect.paths, (whole, found), keeper.get)
            wanted = graft(found, whole, effect.paths, keeper.get, keeper.put)
            published = graft(head, whole, effect.paths, keeper.get, keeper.put)
            keeper.flush()
        else:
            wanted = published = whole
        needed = tuple(
            change.new
            for change in diff(found, wanted, keeper.get)
            if change.new is not None and change.new.kind is not Kind.DIR and not is_same_content(change)
        )
        return Goal(found, wanted, published, needed)

    def _under_rules(self, target: HeadRef, keeper: PageKeeper) -> Digest:
        """The root of ``target``, less what the definition ignores by now: the next generation has that definition."""
        tree, own = self._tree, self._own
        signed = tree.store.generation(target.id)
        if signed is None or signed.body().definition == own.definition.digest:
            return target.root
        rules = Rules(own.definition)
        kept = (e for e in iterate(target.root, keeper.get) if not rules.ignored(e.path, e.kind is Kind.DIR))
        root = build(kept, keeper.put)
        keeper.flush()
        return root

    def _planned(self, effect: s.PlanRestore, goal: Goal) -> s.RestorePlan:
        get = self._tree.get_page
        base = effect.head.root if effect.head is not None else None
        whole = totals(goal.published, get)
        self.paths = tuple(c.path for c in islice(diff(base, goal.published, get), PATHS_KEPT_MAX))
        counts = counted(base, goal.published, get)
        summary = v.ScanSummary(
            root=goal.published,
            entries=whole.entries,
            size_bytes=whole.size_bytes,
            entries_before=totals(base, get).entries if base is not None else 0,
            added=counts.added,
            changed=counts.changed,
            removed=counts.removed,
            changed_bytes=counts.changed_bytes,
            losses=losses_of(get, goal.published, base, (), Rules(self._own.definition), wall_ms()),
            at_ms=wall_ms(),
        )
        return s.RestorePlan(summary, counted(goal.found, goal.tree, get))

    def _missing_here(self, needed: Sequence[Entry]) -> list[Entry]:
        contents = self._contents()
        try:
            return contents.missing_of(needed)
        finally:
            contents.close()

    def _contents(self) -> Contents:
        return Contents(self._tree.place(), self._tree.history, self._tree.stat_rows)

    async def _located(self, missing: Sequence[Entry], source: NodeName | None) -> PartnerContents:
        tree = self._tree
        lenders = self._net.lenders(tree.line)
        if source is not None:
            lenders = tuple(lender for lender in lenders if lender.who == source)
        partners = PartnerContents(tree.line, lenders)
        if missing:
            await partners.locate(missing)
        return partners

    # --- restoring ------------------------------------------------------------------------------------------------

    async def restore(self, effect: s.Restore) -> s.Restored | s.RestoreFailed:
        """Stage, then switch at once. An error before the switch leaves the tree as it was."""
        tree = self._tree
        goal = await tree.worker.run(self._goal, effect)
        lost = await tree.worker.run(self._missing_here, goal.needed)
        partners = self._partners = await self._located(lost, effect.source)
        self._total_bytes = sum(entry.size for entry in lost)
        try:
            stage = await tree.worker.run(self._open, effect, goal)
            try:
                while wants := await tree.worker.run(stage.wants, BATCH_ENTRIES, BATCH_BYTES):
                    left = await tree.worker.run(self._lay_here, stage, wants)
                    await partners.lay(stage, left, tree.worker)
                journal = await tree.worker.run(stage.seal, time.time_ns())
            finally:
                await tree.worker.run(stage.close)
        except ResourceError:
            await tree.worker.run(self._make_room)
            raise
        finally:
            self._partners = None
        return await self._switch_recorded(effect, journal, goal)

    async def _switch_recorded(
        self, effect: s.Restore, journal: Journal, goal: Goal
    ) -> s.Restored | s.RestoreFailed:
        """A rollback is recorded before anything moves: the home may end before the commit, or publish later."""
        store, line = self._tree.store, self._tree.line
        before = open_target(store, line)
        if not effect.paths:
            is_head = effect.head is not None and effect.head.root == goal.published
            keep_target(store, line, None if is_head else effect.target)
        try:
            ended = await self._tree.worker.run(self._switch, effect, journal, goal)
        except InstepError:
            keep_target(store, line, before)
            raise
        if isinstance(ended, s.RestoreFailed) and not ended.is_open:
            keep_target(store, line, before)
        return ended

    def _open(self, effect: s.Restore, goal: Goal) -> Stage:
        tree = self._tree
        place = tree.place()
        journal = Journal.load(place)
        if journal is not None and journal.is_switched:
            record_rows(tree.store, place)
        contents = self._contents()
        contents.expect(goal.needed)
        self._require_room(goal)
        return self._stage_from(place, effect, goal, contents)

    def _stage_from(self, place: Place, effect: s.Restore, goal: Goal, contents: Contents) -> Stage:
        target = msgspec.structs.replace(effect.target, root=goal.tree)
        return self._tree.open_stage(place, target, goal.found, previous=effect.head, sources=(contents,))

    def _require_room(self, goal: Goal) -> None:
        try:
            require_room(self._tree.place(), goal.found, goal.tree, self._tree.get_page, tuple(Preserve))
        except ResourceError as error:
            error.hint = f"free space there: instep archive prune {self._tree.name}; then repeat the command"
            raise

    def _make_room(self) -> None:
        """Give up the stages: a disk that filled half way has to serve the tree."""
        clear_stages(self._tree.place())

    def _lay_here(self, stage: Stage, wants: Sequence[Want]) -> list[Want]:
        """Lay contents that are no files of their own here: targets of symlinks, and large attributes. The rest is
        fetched."""
        contents = self._contents()
        left: list[Want] = []
        for want in wants:
            data: bytes | None = None
            if want.which:
                data = self._tree.history.get(want.digest)
                if data is None:
                    raise no_attribute(want)
            elif want.entry.kind is Kind.SYMLINK:
                data = contents.target(want.entry)
            if data is None:
                left.append(want)
            else:
                stage.lay(want, data)
        return left

    def _switch(self, effect: s.Restore, journal: Journal, goal: Goal) -> s.Restored | s.RestoreFailed:
        tree = self._tree
        place = tree.place()
        switched: Switched | None
        try:
            switched = tree.switch(place, journal)
        except InstepError as error:
            to_be_repeated(error, place.fileset)
            if not is_open(Journal.load(place)):
                raise
            ended = self._taken_back(place, error)
            if isinstance(ended, s.RestoreFailed):
                return msgspec.structs.replace(ended, req=effect.req)
            switched = ended
        self._holds_target(journal)
        record_rows(tree.store, place)
        clear_stages(place)
        keep_laid(place, tree.fileset, tree.history, goal.needed)
        if switched is not None:
            note_kept(tree.runtime, tree.line, switched)
        return s.Restored(effect.req, left_by(switched))

    def _holds_target(self, journal: Journal) -> None:
        """The switch is done, and its journal is still there."""

    def _taken_back(self, place: Place, error: InstepError) -> s.RestoreFailed | Switched | None:
        """A switch stopped in the middle: finish it after all, or undo it; else its journal stays open."""
        try:
            recovered = self._tree.recover(place, self._own.definition)
        except InstepError as stuck:
            return s.RestoreFailed(0, self._unfinished(stuck), is_open=True)
        if recovered.kind is RecoveredKind.FINISHED:
            return recovered.switched
        clear_stages(place)
        name = self._tree.name
        reason = (
            f"{error.reason}; the paths of {name} restored before that were taken back, the tree is as it was"
        )
        return s.RestoreFailed(0, msgspec.structs.replace(trouble_of(error), reason=reason))

    def failed_recovery(self, error: InstepError) -> Trouble:
        """Why nothing is scanned or published, with the operator's next step."""
        try:
            journal = Journal.load(self._tree.place())
        except (InstepError, OSError):
            journal = None
        return self._unfinished(error) if is_open(journal) else trouble_of(error)

    def _unfinished(self, error: InstepError) -> Trouble:
        name = self._tree.name
        hint = f"{error.hint}; " if error.hint else ""
        return msgspec.structs.replace(
            trouble_of(error),
            reason=f"a restore of {name} stopped half way: {error.reason}. Nothing is scanned or published until it is "
            "finished or undone",
            hint=f"{hint}it is retried by itself, at once with: instep retry {name}",
        )
