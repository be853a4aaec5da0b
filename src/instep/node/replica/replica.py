"""The other lines of a fileset of many homes, and their union with the own one in this node's tree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from instep.core.follow import vocabulary as f
from instep.core.union.divide import ForeignChange
from instep.core.union.parts import KnownHead, choose_parts
from instep.core.unite import vocabulary as u
from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import ContentionError, InstepError
from instep.model.definition import Definition, Mode
from instep.model.ids import HeadRef, NodeName
from instep.model.replication.union import UnionPart
from instep.model.standing import Standing, StandingRecord
from instep.net.messages import messages as m
from instep.node.config.filesets import FilesetSettings
from instep.node.following.follower import is_one_generation
from instep.node.following.kept_origins import Origins
from instep.node.following.offering import Offering
from instep.node.lines.line_net import LineNet
from instep.node.replica.collision_list import CollisionList
from instep.node.replica.forgetting import ForgottenLines
from instep.node.replica.kept_line import KeptLine
from instep.node.replica.laid import Unions
from instep.node.replica.laid_search import LaidSearch
from instep.node.replica.looks import UnionLooks
from instep.node.replica.offers import ForeignPaths, ReplicaOffers, RottenPaths
from instep.node.replica.own_scan import TreeDivided
from instep.node.replica.stand import copy_words, stand_in_union
from instep.node.replica.union_service import UNION, UnionService
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree


class Replica(LaidSearch, UnionLooks):
    """``own_tree`` is the view of the own line, whose newest head is ``own_head``; ``laid_head`` is the same where the
    tree holds its contents for certain. ``touched`` takes paths that the own line looks at again, or that it looks at
    all."""

    def __init__(
        self,
        runtime: Runtime,
        own_tree: FilesetTree,
        net: LineNet,
        touched: Callable[[tuple[bytes, ...], bool], None],
        own_head: Callable[[], HeadRef | None],
        laid_head: Callable[[], HeadRef | None],
    ) -> None:
        self.runtime = runtime
        self.own_tree = own_tree
        self.me = runtime.name
        self._net = net
        self._touched = touched
        self._own_head = own_head
        self._laid_head = laid_head
        self._fileset = own_tree.fileset
        self.unions = Unions(runtime.store, own_tree.name, self.me)
        self.collisions = CollisionList(runtime, self.unions, lambda: self._fileset)
        self.forgotten = ForgottenLines(runtime, own_tree.name, self.unions)
        self.foreign = ForeignPaths()
        self.rotten = RottenPaths(runtime, own_tree.line, touched, self._homes_of)
        self.turn = asyncio.Lock()
        """Held by whatever moves the union: a switch, a commit of the own line, a change from elsewhere."""
        self.still = asyncio.Event()
        """Set while nothing is done to the tree, and it is certain what it holds."""
        self.recovered = asyncio.Event()
        self.kept: dict[NodeName, KeptLine] = {}
        self._differing: frozenset[NodeName] = frozenset()
        self.origins = Origins(runtime, own_tree.name, net)
        self._tasks: dict[NodeName, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._is_running = False
        self._finding: asyncio.Task[None] | None = None
        self._unknown: InstepError | None = None
        self._announced: dict[NodeName, HeadRef | None] = {}
        """The heads of other homes that partners were sent from here."""
        self.refusals: dict[NodeName, Trouble] = {}
        self.in_the_way: set[tuple[NodeName, bytes]] = set()
        self._verifying = {}
        self._unseen: tuple[Trouble | None, Trouble | None] = None, None
        """Why the root cannot be seen, and why the last look at the tree failed."""
        self.undoes_removals = False
        """Whether all that is missing of other homes is put back, as soon as each home is connected: an operator asked
        for the whole tree."""
        self.publish: Callable[[], Awaitable[None]] | None = None
        """Publishes the own line's changes, where that goes by itself."""
        self.finish_own_switch: Callable[[], None] = lambda: None
        self.offers = ReplicaOffers(self)
        self.union = UnionService(self, self._settings(UNION), net)

    # Settings -----------------------------------------------------------------------------------------------

    @property
    def definition(self) -> Definition:
        definition = self._fileset.definition
        assert definition is not None, "a fileset of many homes is written here"
        return definition

    def _settings(self, writer: NodeName) -> FilesetSettings:
        """The settings of the fileset here, as those of a line of another node."""
        return replace(self._fileset, writer=writer, origin=None, definition=None, drift="offer")

    def reconfigure(self, fileset: FilesetSettings) -> None:
        self._fileset = fileset
        union = self._settings(UNION)
        self.union.tree.fileset = union
        self.union.reconfigure(union)
        for origin, kept in self.kept.items():
            kept.reconfigure(self._settings(origin))
        self.parts_changed()

    # Life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Own the union and all kept lines until cancelled; a line that breaks ends all, and they begin anew."""
        self._is_running = True
        works = (self.union.run(), self.collisions.run(self.own_tree.worker))
        always = [asyncio.get_running_loop().create_task(work) for work in works]
        for origin in self.origins.known():
            self._keep_line(origin)
        for offer in self._net.offers_of(self._fileset.name):
            self.offered(offer)
        self.parts_changed()
        waiting: asyncio.Task[Any] | None = None
        try:
            while True:
                self._changed.clear()
                waiting = asyncio.get_running_loop().create_task(self._changed.wait())
                tasks = [*always, *self._tasks.values()]
                poll_s = self.runtime.settings.poll_ms / 1000
                done, _ = await asyncio.wait(
                    [waiting, *tasks], timeout=poll_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    waiting.cancel()
                    self._look_again()
                for task in tasks:
                    if task.done() and not task.cancelled():  # the task of a forgotten line is
                        task.result()
                await self._tend_lines()
        finally:
            self._is_running = False
            every: list[asyncio.Task[Any]] = [
                *always,
                *self._tasks.values(),
                *self._verifying.values(),
                *(t for t in (waiting, self._finding) if t is not None),
            ]
            for task in every:
                task.cancel()
            await asyncio.gather(*every, return_exceptions=True)

    def _look_again(self) -> None:
        """Look at the changed and the offered paths of other homes: a lost event costs a poll interval."""
        owned = (path for offering in self.offerings.values() for path in offering.kept())
        again = {*self.foreign.changes, *self.foreign.waiting, *owned}
        if again:
            self._touched(tuple(again), False)

    async def close(self) -> None:
        for kept in self.kept.values():
            self._net.drop_line(kept.line)
            await kept.failures.close()
        self.kept.clear()

    def offered(self, offer: m.Offer) -> None:
        """A partner offers a line of this fileset."""
        origin = offer.line.origin
        is_other = offer.mode == Mode.REPLICATE.value and origin != self.me and origin not in self.kept
        if is_other and self._is_running and self.origins.has_room(origin, self.kept.values()):
            self._begin_line(origin)

    def proved(self, origin: NodeName) -> None:
        """A head of the line is verified: it is kept from now on, and another one may be tried in its place."""
        if self.origins.proved(origin):
            self._changed.set()

    async def _tend_lines(self) -> None:
        """Drop the lines of which nothing is left, and look at offers for which there was no room."""
        for origin in [origin for origin, kept in self.kept.items() if self.origins.is_over(kept)]:
            await self._end_line(origin)
        for offer in self._net.offers_of(self._fileset.name):
            self.offered(offer)

    def _keep_line(self, origin: NodeName) -> None:
        """The state or the tree names this home: its line is kept, offered or not."""
        if origin != self.me and self.origins.named(origin) and origin not in self.kept:
            self._begin_line(origin)

    def _begin_line(self, origin: NodeName) -> None:
        if origin in self.forgotten:
            return
        kept = self.kept[origin] = KeptLine(self.runtime, self._settings(origin), self._net, self)
        self._tasks[origin] = asyncio.get_running_loop().create_task(kept.run())
        self._changed.set()
        self._net.add_line(kept)

    async def _end_line(self, origin: NodeName) -> None:
        kept, task = self.kept.pop(origin), self._tasks.pop(origin)
        self._net.drop_line(kept.line)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kept.failures.close()

    async def forget(self, origin: NodeName) -> None:
        """Keep the line of this home no more; the next union is without it."""
        self.forgotten.add(origin)
        if origin in self.kept:
            await self._end_line(origin)
        self.offers.forget(origin)
        self.parts_changed()

    def take_back(self, origin: NodeName) -> None:
        """Keep the line of this home again, from whichever partner offers it."""
        self.forgotten.take_back(origin)
        for offer in self._net.offers_of(self._fileset.name):
            self.offered(offer)
        self.parts_changed()

    # What the tree holds ------------------------------------------------------------------------------------

    async def own_moved(self, head: HeadRef | None) -> None:
        """The own line has a new head, whose contents are in the tree. The caller holds ``turn``."""
        if head is None:
            return
        moved = await self.own_tree.worker.run(self.unions.own_moved, head, self.definition)
        self.collisions.tell()
        if moved is not None and moved.ref is not None:
            own = UnionPart(self.me, head)
            self.union.post(u.OwnCommitted(moved.ref, own, is_whole=not moved.kept))
            if self.in_the_way:
                self.union.post(u.WithheldDue())

    async def divided(self, looked: TreeDivided, *, is_current: bool) -> None:
        """The own line looked at the tree. Where a switch came after the look, or a revert, it says nothing about the
        tree of now, which is looked at again. The caller holds ``turn``."""
        if not is_current or not self.is_of_now(looked.laid):
            self._touched((*looked.trees, *looked.alone), looked.is_full)
            return
        before = self.foreign.paths
        for kept in self.foreign.take(looked):
            self.runtime.note("rename_kept", copy_words(kept), self._fileset.line)
        await self.offers.looked(looked)
        if self.undoes_removals:
            are_missing = any(change.found is None for change in self.foreign.changes.values())
            self.undoes_removals = are_missing or not looked.is_full
            self.offers.judge_removals(are_accepted=False)
        if self.foreign.paths != before:
            await self.union_stands()
        if looked.divided.foreign or (looked.is_full and self.foreign.changes):
            self.union.post(f.TreeTouched(tuple(each.path for each in looked.divided.foreign)))
        head, now = self._own_head(), self.unions.now
        is_head = head is not None and looked.own_root == head.root
        if is_head and now is not None and now.part_of(self.me) != head:
            await self.own_moved(head)

    async def looked(self, error: InstepError | None) -> None:
        """The own line looked at the tree, or could not."""
        if error is None or not isinstance(error, ContentionError):
            await self._sees(self._unseen[0], trouble_of(error) if error is not None else None)

    async def root_turned(self, trouble: Trouble | None) -> None:
        """The root cannot be seen any more, or is seen again."""
        await self._sees(trouble, self._unseen[1])

    async def _sees(self, root: Trouble | None, look: Trouble | None) -> None:
        was, self._unseen = self._unseen, (root, look)
        if was != self._unseen:
            await self.union_stands()

    def turned(self) -> None:
        """The union's machine made a step."""
        if self.union.is_still and self.unions.now is not None:
            self.still.set()
        else:
            self.still.clear()

    def why_not_still(self) -> InstepError:
        if self._unknown is not None:
            return self._unknown
        name, standing = self._fileset.name, self.union.standing
        return ContentionError(
            f"the union of {name} is being brought into the tree: {standing.reason or standing.standing.value}",
            hint=f"instep status {name}",
            code="tree_is_switched",
        )

    # The port of kept lines ---------------------------------------------------------------------------------

    @property
    def tree(self) -> FilesetTree:
        return self.union.tree

    @property
    def is_whole(self) -> bool:
        return is_one_generation(self.union.facts) and not self.union.machine.is_torn

    def parts_changed(self) -> None:
        known = [
            KnownHead(origin, kept.facts.kept, kept.facts.definition)
            for origin, kept in self.kept.items()
            if kept.facts.kept is not None
        ]
        chosen = choose_parts(known, self.definition.digest)
        self._differing = frozenset(chosen.differing)
        self.union.post(u.PartsKnown(chosen.parts, self.forgotten.origins))

    def _silent(self, origin: NodeName) -> list[NodeName]:
        """Other homes that send their own line here, and not this one."""
        senders = self.kept[origin].sources
        return [
            name for name, kept in sorted(self.kept.items()) if name in kept.sources and name not in senders
        ]

    def stand_of(self, origin: NodeName, head: HeadRef | None) -> StandingRecord | None:
        return stand_in_union(
            self._fileset.name,
            origin,
            self.union.standing,
            is_live=head == self.live_of(origin),
            edits=self.foreign.of(origin),
            offered=self.kept[origin].offering.offered_edits()[1],
            unseen=self._unseen[0] or self._unseen[1],
            withheld=[each for each in self.withheld() if each.origin == origin],
            in_the_way=self.in_the_way,
            asked=sorted(self.kept[origin].sources),
            silent=self._silent(origin),
            differs=origin in self._differing,
            packages=self.union.packages_waiting,
            is_refused=head is not None and UnionPart(origin, head) in self.union.facts.attempts.refused,
            trouble=self.refusals.get(origin),
        )

    def doubt(self, paths: tuple[bytes, ...]) -> None:
        self.rotten.doubt(paths)

    # Edits of other homes' paths ----------------------------------------------------------------------------

    @property
    def offerings(self) -> dict[NodeName, Offering]:
        return {origin: kept.offering for origin, kept in self.kept.items()}

    def owns(self, origin: NodeName, told: f.OffersChanged) -> None:
        self.offers.owns(origin, told)

    def foreign_changes(self) -> Mapping[bytes, ForeignChange]:
        return self.foreign.changes

    def offers_changed(self, told: f.OffersChanged) -> None:
        """Paths that lost are looked at once more: one that does not differ any more is let go by that look."""
        self.union.post(told)
        if told.lost:
            self.union.post(f.TreeTouched(told.lost))
            self._touched(told.lost, False)

    def retry(self) -> None:
        self.give_up_lost()
        self.union.asked_to("retry")

    # The union's own ----------------------------------------------------------------------------------------

    def went_live(self) -> None:
        """Another union is live. Own paths that a collision moved, and paths that waited, are looked at again."""
        for origin, kept in self.kept.items():
            live = self.live_of(origin)
            if live == kept.facts.kept:
                self.refusals.pop(origin, None)
            if live is not None:
                self.runtime.store.set_live(kept.line, live)
        self.offers.reached_all()
        self.collisions.tell()
        laid = self.unions.now
        losers = () if laid is None else [c.shown for c in laid.united.collisions if c.origin == self.me]
        again = (*self.foreign.waiting, *self.foreign.changes, *losers)
        if again:
            self._touched(again, False)

    async def publish_own(self) -> None:
        if self.publish is not None:
            await self.publish()

    def reachable(self, origin: NodeName) -> None:
        self.union.post(u.LineReachable(origin))

    async def union_stands(self) -> None:
        """The union reports: each line stands by it, and partners behind this node get what is live."""
        for origin, kept in list(self.kept.items()):
            await kept.stand_anew()
            is_served = kept.live is not None and kept.standing.standing is Standing.IN_STEP
            if is_served and self._announced.get(origin) != kept.live:
                self._announced[origin] = kept.live
                message = kept.head_message(None, with_bundle=False)
                if message is not None:
                    await self._net.announce(message)
