"""The union of a fileset's lines on the tree: performs the effects of its ``UniteMachine``."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from instep.core.follow import vocabulary as f
from instep.core.publish import vocabulary as v
from instep.core.union.in_the_way import is_own_place, is_same_object, withheld_at
from instep.core.unite import vocabulary as u
from instep.core.unite.machine import UniteMachine
from instep.core.vocabulary import trouble_of
from instep.errors import UnavailableError
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry, Kind
from instep.model.replication.union import Withheld
from instep.node.config.filesets import FilesetSettings
from instep.node.following.applying import Applying
from instep.node.following.follower import DRIFT_SCAN_MS, FollowService
from instep.node.following.pulling import Puller
from instep.node.lines.line_net import LineNet
from instep.node.lines.saved_facts import unite_facts
from instep.node.replica.laid import TakesNames, Unions
from instep.node.replica.port import UnionOwner
from instep.node.replica.resolving import LinePuller, MissingContentsError, OwnContents, UnionPuller
from instep.node.replica.stand import taken_here
from instep.node.replica.union_tree import UnionTree, packages_wait, waiting_packages
from instep.node.runtime.driver import Driver, wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.switch_outcome import note_undone
from instep.tree.journal.journal import Journal, Why
from instep.tree.root.beneath import Root
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.stage.stage import Source, Stage
from instep.tree.switch.recover import Recovered, RecoveredKind
from instep.tree.switch.step_work import Switched

UNION = NodeName("*")
"""Stands for the origin of a union, which no node began: no node can have this name."""
UNION_MADE = register("replica.union_made")
LAID = register("replica.laid")
_ON_THE_TREE = frozenset({"recover", "switch", "put_back", "revert", "reload", "probe", "record"})


class UnionApplying(Applying):
    """The acts of a union on the tree: after each the worker knows what was laid. The tree's own record says so before
    the state does, for whatever closes the journal: so the record of a tree that is no old copy is never older."""

    def __init__(self, service: UnionService, unions: Unions, kept: Callable[[], tuple[bytes, ...]]) -> None:
        super().__init__(service.tree, service.lingering, service.offered, lambda _: [], kept)
        self._service = service
        self._unions = unions
        self.sought: frozenset[Digest] = frozenset()
        """Contents of the own line that the last stage did not find where the tree had them. Changes made here were
        published since, where that goes by itself."""

    def _sources(self, place: Place, head: HeadRef) -> tuple[Source, ...]:
        if not self.sought:
            return super()._sources(place, head)
        return (*super()._sources(place, head), OwnContents(self._service.replica.own_tree, self.sought))

    def _puller(
        self,
        stage: Stage,
        head: HeadRef,
        source: NodeName | None,
        contents: Mapping[Digest, bytes],
        link_of: Callable[[Entry], bytes | None] | None,
    ) -> Puller:
        tree, replica = self._tree, self._service.replica
        union = self._unions.of(head.id)

        def puller_of(origin: NodeName, part: HeadRef) -> LinePuller:
            line = LineId(tree.name, origin)
            return LinePuller(
                tree,
                stage,
                line,
                part,
                replica.clients_of(origin),
                replica.contents_of(origin, part),
                link_of,
            )

        return UnionPuller(tree, stage, union, puller_of)

    def _found_root(self, head: HeadRef, place: Place) -> Digest | None:
        """The tree holds no union yet: its files are the own line's to publish."""
        return self._unions.nothing().united.root

    def has_stage(self) -> bool:
        """Whether the sealed stage lies there still: a change from elsewhere empties the staging area."""
        path = self.staged_path()
        return path is not None and os.path.isdir(path)

    def switch_now(self, head: HeadRef) -> Switched:
        self._unions.lost()
        switched = super().switch_now(head)
        self._tree.hold(self._tree.taken(), head, is_synced=True)
        self._unions.holds(head.id)
        failpoint(LAID)
        return switched

    def _switch_at_once(self, journal: Journal, target: HeadRef) -> Switched:
        self._unions.lost()
        switched = super()._switch_at_once(journal, target)
        self._unions.holds(target.id)
        return switched


class UnionService(FollowService):
    """One per fileset of many homes."""

    facts_of = staticmethod(unite_facts)
    machine_kind = UniteMachine
    facts: u.UniteFacts
    machine: UniteMachine
    applying: UnionApplying
    tree: UnionTree

    def __init__(self, replica: UnionOwner, fileset: FilesetSettings, net: LineNet) -> None:
        self.replica = replica
        self.packages_waiting: set[tuple[NodeName, bytes]] = set()
        """Withheld entries, by origin and path, because they name a file that is withheld."""
        self.reverts = 0
        super().__init__(replica.runtime, fileset, net)
        self.driver.on_step = replica.turned

    @property
    def offered(self) -> Any:
        return self._offered

    def _new_tree(self) -> FilesetTree:
        return UnionTree(self.replica.own_tree, self.fileset, self.replica.unions)

    def _new_offering(self) -> Any:
        return self.replica.offers

    def _new_applying(self) -> Applying:
        return UnionApplying(self, self.replica.unions, self.offering.kept)

    def config(self) -> f.FollowConfig:
        fileset = self.fileset
        return f.FollowConfig(
            writer=self.runtime.name,
            poll_ms=self.runtime.settings.poll_ms,
            drift=f.DriftPolicy.OFFER,
            drift_scan_ms=DRIFT_SCAN_MS,
            has_validate=bool(fileset.hooks.validate),
            has_reload=bool(fileset.hooks.reload),
            has_probe=bool(fileset.hooks.probe) or bool(self.golden.specs),
        )

    async def run(self) -> None:
        self.driver.begin(f.Started())
        try:
            await self.driver.run()
        finally:
            await self.lingering.close()
            await self.around.close()
            await self.failures.close()
            self.culprits.close()

    @property
    def drivers(self) -> tuple[Driver[Any, Any], ...]:
        return (self.driver,)

    @property
    def is_still(self) -> bool:
        """Whether the tree holds one union, and nothing is done to it."""
        facts = self.facts
        return (
            self.machine.phase not in _ON_THE_TREE and facts.tree == facts.live and facts.due is f.Due.NOTHING
        )

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: Any) -> None:
        before = self.facts.attempts
        await self._act(effect)
        if self.facts.attempts != before:
            await self.replica.union_stands()
        self.replica.turned()

    async def _act(self, effect: Any) -> None:
        match effect:
            case u.Unite(req=req):
                work: Any = self._unite(effect)
                failed: Any = partial(u.UniteFailed, req)
                self._spawn(req, work, failed)
            case f.AskHeads():
                pass  # heads come over the lines
            case _:
                await super()._perform(effect)

    def post(self, event: u.UniteEvent) -> None:
        """Hand an event to the machine."""
        driver: Driver[Any, Any] = self.driver
        driver.post(event)

    async def _unite(self, effect: u.Unite) -> u.UniteEvent:
        unions, definition = self.replica.unions, self.replica.definition
        try:
            record = await self.worker.run(
                unions.unite, effect.parts, definition, effect.withheld, effect.allowed
            )
        except TakesNames as error:
            trouble = trouble_of(error)
            self.replica.refusals[error.part.origin] = trouble
            return u.PartRefused(effect.req, error.part, trouble)
        failpoint(UNION_MADE)
        return u.UnionMade(effect.req, record.ref())

    async def _stage(self, effect: f.StageContents) -> Any:
        """Changes made here until now are published first: a switch must not displace them."""
        try:
            event = await super()._stage(effect)
        except MissingContentsError as error:
            await self.replica.publish_own()  # an own file that is missing was changed here
            own = (entry.digest for origin, entry in error.entries if origin == self.runtime.name)
            self.applying.sought = frozenset(own)
            return await self.worker.run(self._missed, effect, error)
        self.applying.sought = frozenset()
        await self.replica.publish_own()
        held = await self.worker.run(self._in_the_way, effect.head)
        self.replica.in_the_way = {(each.origin, each.wanted.path) for each in held}
        if held:
            return u.ContentsMissing(effect.req, (), held, trouble_of(taken_here(self.tree.name, held)))
        unions, staged = self.replica.unions, self.applying.staged_path()
        target, now, rules = unions.of(effect.head.id), unions.required(), self.replica.definition
        look = (staged, self.runtime.name, target, now, rules, self.tree.get_page)
        waiting = await self.worker.run(waiting_packages, *look)
        if waiting:
            self.packages_waiting |= {(each.origin, each.wanted.path) for each in waiting}
            return u.ContentsMissing(
                effect.req, (), waiting, trouble_of(packages_wait(self.tree.name, waiting))
            )
        return event

    def _in_the_way(self, head: HeadRef) -> tuple[Withheld, ...]:
        """Entries of other homes whose place in the tree an unpublished file of this node has."""
        unions, me = self.replica.unions, self.runtime.name
        target, now, kept = unions.of(head.id), unions.required(), set(self.offering.kept())
        new: dict[bytes, Entry] = {}
        comparison = self.tree.comparison(head)
        with Root(comparison.place.root) as root:
            for change in diff(now.united.root, target.united.root, self.tree.get_page):
                path, wanted = change.path, change.new
                if wanted is None or path in kept or not is_own_place(path, me, now.ownership):
                    continue
                there = root.stat_or_none(path)
                if there is not None and not (wanted.kind is Kind.DIR and stat.S_ISDIR(there.st_mode)):
                    new[path] = wanted
        if not new:
            return ()
        found = comparison.some(now.united.root, (), wall_ms(), alone=list(new))
        held: dict[tuple[NodeName, bytes], Withheld] = {}
        for each in found:
            is_there = each.found is not None or each.problem is not None
            if is_there and not is_same_object(each.found, new[each.path]):
                for one in withheld_at(each.path, me, target.ownership, target.lines, now.lines):
                    held[one.origin, one.wanted.path] = one
        return tuple(held.values())

    def _missed(self, effect: f.StageContents, error: MissingContentsError) -> u.ContentsMissing:
        """Of an entry that cannot be had, the union says what it said before; a line whose head the tree holds
        already cannot be left out, so each of its entries stands for itself. The own line says itself what is here."""
        me = self.runtime.name
        union, now = self.replica.unions.of(effect.head.id), self.replica.unions.required()
        self.replica.in_the_way = set()
        absent = {
            origin: each
            for origin, each in error.absent.items()
            if origin != me and union.part_of(origin) != now.part_of(origin)
        }
        withheld = []
        for origin, entry in error.entries:
            if origin == me or origin in absent:
                continue
            (source,) = (each for each in union.ownership.of(entry.path) if each.origin == origin)
            line = now.lines.by_origin.get(origin)
            kept = line.lookup(source.path) if line is not None else None
            kept = None if kept is None or kept.kind is Kind.DIR or kept == source.entry else kept
            withheld.append(Withheld(origin, source.entry, kept))
            self.packages_waiting.discard((origin, source.path))
        for origin, each in absent.items():
            self.replica.refusals[origin] = trouble_of(each)
        return u.ContentsMissing(effect.req, tuple(absent), tuple(withheld), trouble_of(error))

    def _save(self, facts: f.FollowFacts) -> None:
        is_moved = facts.live != self.tree.live  # the facts of a switch are these already
        super()._save(facts)
        if is_moved:
            self.replica.went_live()

    async def _recover(self, req: int) -> Any:
        """Bring an interrupted switch to its end, then find out which union the tree holds."""
        async with self.replica.turn:
            event = await self._recovered(req)
            known = await self.replica.find_laid()
        self.driver.post(event)
        return known

    async def recover_again(self) -> None:
        """Another work on the tree stopped half way: bring it to its end."""
        async with self.replica.turn:
            if not self.replica.is_lost:
                return
            found = await self.worker.run(self._recover_now)
            if found.journal is not None:
                await self.worker.run(self.applying.record_now)
                await self.worker.run(self.applying.close_now)
            known = await self.replica.find_laid()
        self.post(known)

    async def _recovered(self, req: int) -> f.FollowEvent:
        found: Recovered = await self.worker.run(self._recover_now)
        kind, journal = f.RecoveryKind(found.kind.value), found.journal
        await self.around.settle()
        if found.cause is not None:
            note_undone(self.runtime, self.line, found.cause)
        if journal is None:
            return f.RecoveryEnded(req, kind)
        target, facts = journal.header.target, self.facts
        if target != facts.tree or target != facts.live or facts.due is not f.Due.NOTHING:
            is_known = await self.worker.run(self.tree.is_known_whole, target)
            is_known = is_known and target in (facts.tree, facts.head, facts.live, facts.replaced)
            if kind is f.RecoveryKind.FINISHED and not is_known:
                # No live is recorded of a union that the state does not know: this ends its journal.
                await self.worker.run(self.applying.record_now)
                await self.worker.run(self.applying.close_now)
            return f.RecoveryEnded(req, kind, target, found.is_doubtful, is_known=is_known)
        was_reverted = journal.header.why is Why.DRIFT and bool(self.fileset.hooks.reload)
        await self.worker.run(self.applying.record_now)
        if was_reverted:
            self._save(replace(facts, due=f.Due.RELOAD))
        await self.worker.run(self.applying.close_now)
        kind = kind if was_reverted else f.RecoveryKind.NOTHING
        return f.RecoveryEnded(req, kind, target, found.is_doubtful)

    def _recover_now(self) -> Recovered:
        """A journal of a change from elsewhere is the home's."""
        unions = self.replica.unions
        journal = Journal.load(self.tree.place())
        if journal is not None and journal.is_compared:
            self.replica.finish_own_switch()
            return Recovered(RecoveredKind.NOTHING)
        if journal is not None and journal.header.union:
            unions.take_in(journal.header.union)
        found = self.applying.recover_now()
        if found.journal is not None and found.kind is RecoveredKind.FINISHED:
            target = found.journal.header.target
            self.tree.hold(self.tree.taken(), target, is_synced=True)
            with contextlib.suppress(UnavailableError):  # ``find_laid`` fetches the manifests that were lost
                unions.holds(target.id)
        return found

    async def _switch(self, effect: f.Switch) -> Any:
        async with self.replica.turn:
            now = self.replica.unions.now
            has_stage = await self.worker.run(self.applying.has_stage)
            if now is None or now.ref != effect.base or not has_stage:
                return u.StageStale(effect.req)
            return await super()._switch(effect)

    async def _put_back(self, effect: f.PutBack) -> f.FollowEvent:
        async with self.replica.turn:
            return await super()._put_back(effect)

    async def _revert(self, effect: f.Revert) -> f.FollowEvent:
        async with self.replica.turn:
            now = self.replica.unions.now
            base = now.ref if now is not None else None
            try:
                return await super()._revert(effect if base is None else replace(effect, base=base))
            finally:
                self.reverts += 1

    async def _drift(self, effect: f.CheckDrift) -> f.FollowEvent:
        """The own line's looks find what other homes' paths became."""
        paths, total = await self.worker.run(self.replica.foreign_now, effect.paths)
        writers = await self.worker.run(self.culprits.names, paths) if paths else {}
        wrote = self.tree.hook_writes.among(paths)
        return f.DriftChecked(effect.req, paths, total, tuple(writers.items()), None, wrote)

    def _watch_anew(self, head: HeadRef, *, is_other_root: bool) -> None:
        """The own line watches."""

    async def _report(self, told: f.FollowReport | v.PublishReport) -> None:
        await super()._report(told)
        await self.replica.union_stands()
