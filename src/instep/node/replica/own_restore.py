"""Bringing the own paths of a tree of many homes to the newest generation of the own line.

As any restore of a writer, but for its goal: a union, in which the own line's part is that generation, with the paths
of other homes as they lie there now. Of those, removals that no home was sent yet are put back as well, where the
whole tree is asked for; while a home is away, when it is back. Other generations are not restored in this mode.
"""

from __future__ import annotations

import asyncio

import msgspec

from instep.core.publish import restore_vocabulary as s
from instep.core.union.ownership import is_within
from instep.errors import RefusedError
from instep.model.ids import HeadRef
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import Change, diff, edit
from instep.node.lines.line_net import LineNet
from instep.node.replica.laid import Laid
from instep.node.replica.replica import Replica
from instep.node.runtime.driver import wall_ms
from instep.node.trees.scanning.scan_tally import PageKeeper
from instep.node.writing.restore_plan import is_same_content, refuse_unknown_paths
from instep.node.writing.restoring import Goal, Restoring
from instep.node.writing.writer_tree import WriterTree
from instep.tree.archive.contents import Contents
from instep.tree.journal.journal import Journal
from instep.tree.root.place import Place
from instep.tree.stage.stage import Stage

STILL_S = 20.0
"""So long a restore waits for a switch that is under way."""


class OwnRestoring(Restoring):
    def __init__(self, replica: Replica, own: WriterTree, net: LineNet) -> None:
        super().__init__(replica.own_tree, own, net)
        self._replica = replica

    async def plan(self, effect: s.PlanRestore) -> s.RestorePlanned:
        name = self._tree.name
        if effect.head is None or effect.target.root != effect.head.root:
            raise RefusedError(
                f"{name} has many homes, and this version takes its own part back to its newest generation alone",
                hint=f"take files of that one out with: instep restore {name} PATH --generation "
                f"{effect.target.number} --to DIR",
                code="not_in_replicate",
            )
        await self._wait_for_rest()
        return await super().plan(effect)

    async def restore(self, effect: s.Restore) -> s.Restored | s.RestoreFailed:
        """The caller holds the replica's ``turn``."""
        await self._wait_for_rest()
        async with self._replica.union.applying.staging:
            ended = await super().restore(effect)
        laid = self._replica.unions.now
        if laid is not None:
            self._replica.union.post(laid.known())
        if not effect.paths:
            self._replica.undoes_removals = True
        return ended

    async def _wait_for_rest(self) -> None:
        try:
            async with asyncio.timeout(STILL_S):
                await self._replica.still.wait()
        except TimeoutError:
            raise self._replica.why_not_still() from None

    # In the worker thread -------------------------------------------------------------------------------------

    def _union_with(self, head: HeadRef) -> Laid:
        """The union that is laid, with the own line at this head; recorded."""
        replica, unions = self._replica, self._replica.unions
        laid = unions.required()
        if laid.part_of(replica.me) == head:
            return laid
        parts = unions.parts_with_own(laid.parts, head)
        known = (one for one in unions.records() if (one.parts, one.withheld) == (parts, laid.withheld))
        record = next(known, None) or unions.unite(parts, replica.definition, laid.withheld)
        return unions.of(record.id)

    def _goal(self, effect: s.PlanRestore | s.Restore) -> Goal:
        """The present tree, with its own paths as the union has them that the own line's newest head makes."""
        assert effect.head is not None
        keeper, laid = PageKeeper(self._tree.store), self._replica.unions.required()
        wanted = self._union_with(effect.head)
        assert wanted.ref is not None
        union = self._replica.union.tree
        found = union.comparison(wanted.ref).whole_root(wanted.ref.root, wall_ms(), distrusts=True)
        if effect.paths:
            name, number = self._tree.name, effect.target.number
            refuse_unknown_paths(name, number, effect.paths, (wanted.united.root, found), keeper.get)
        changes = [
            change
            for change in diff(found, wanted.united.root, keeper.get)
            if self._is_own(change, wanted, laid)
            and (not effect.paths or any(is_within(change.path, path) for path in effect.paths))
        ]
        tree = edit(found, [(each.path, each.new) for each in changes], keeper.get, keeper.put)
        keeper.flush()
        needed = tuple(
            each.new
            for each in changes
            if each.new is not None and each.new.kind is not Kind.DIR and not is_same_content(each)
        )
        return Goal(found, tree, effect.head.root, needed)

    def _is_own(self, change: Change, wanted: Laid, laid: Laid) -> bool:
        """Whether no other home has the path: neither in the union that is laid nor in the wanted one."""
        me = self._replica.me
        sources = (*wanted.ownership.of(change.path), *laid.ownership.of(change.path))
        return all(source.origin == me for source in sources)

    def _stage_from(self, place: Place, effect: s.Restore, goal: Goal, contents: Contents) -> Stage:
        assert effect.head is not None
        ref = self._union_with(effect.head).ref
        assert ref is not None
        target, laid = msgspec.structs.replace(ref, root=goal.tree), self._replica.unions.required()
        return self._replica.union.tree.open_stage(
            place, target, goal.found, previous=laid.ref, sources=(contents,)
        )

    def _switch(self, effect: s.Restore, journal: Journal, goal: Goal) -> s.Restored | s.RestoreFailed:
        unions = self._replica.unions
        before = unions.required()
        unions.lost()
        try:
            return super()._switch(effect, journal, goal)
        finally:
            if unions.now is None and Journal.load(self._tree.place()) is None:
                unions.held_again(before)

    def _holds_target(self, journal: Journal) -> None:
        """The switch is done: the tree's own record says so before its journal goes."""
        tree, target = self._replica.union.tree, journal.header.target
        tree.hold(tree.taken(), target, is_synced=True)
        self._replica.unions.holds(target.id)
