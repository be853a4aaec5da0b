"""The partner's side of one line: performs the effects of its ``FollowMachine``.

Longer than 400 lines: each effect is one short method over the same tree, links and hooks. Functions that need none
of them lie beside it (``applying``, ``page_fetch``, ``rollout_part``).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Sequence
from functools import partial
from typing import Any, ClassVar, assert_never

import msgspec
from msgspec.structs import replace

from instep.api.looking import ChangeDocument, LineDocument
from instep.api.parts import FailureDocument, WaitingDocument
from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.publish import vocabulary as v
from instep.core.vocabulary import (
    Cancel,
    HookEnded,
    HookKind,
    KeepEpoch,
    KeepGeneration,
    Note,
    Refuse,
    RunHook,
    SetTimer,
    TimerFired,
    Trouble,
    WatchChanged,
    trouble_of,
)
from instep.core.writer_change import rests_on
from instep.errors import InstepError, UnavailableError
from instep.model.definition import Definition
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import Order, decode_policy
from instep.model.standing import Standing
from instep.net.messages import messages as m
from instep.net.service import HEADS, PAGES, PeerCalls
from instep.node.config.filesets import FilesetSettings
from instep.node.following.applying import Applying
from instep.node.following.home_link import home_link
from instep.node.following.lingering import Lingering
from instep.node.following.offering import Offering
from instep.node.following.page_fetch import Fetcher, OfferedHeads, ask_for_heads
from instep.node.following.rollout_part import (
    HubOrders,
    drain,
    offer_again,
    orders_from,
    own_state,
    report_of,
)
from instep.node.following.room_watch import RoomWatch
from instep.node.lines.epoch_records import overrules
from instep.node.lines.gating import gates_of, require_gates
from instep.node.lines.hook_calls import CHANGED_MAX, is_any_meant, note_hooks, run_hook
from instep.node.lines.line_net import LineNet, Source
from instep.node.lines.line_service import LineService
from instep.node.lines.line_standing import first_follower_standing
from instep.node.lines.saved_facts import follow_facts
from instep.node.lines.switch_hooks import SwitchHooks
from instep.node.runtime.driver import Driver, wall_ms
from instep.node.runtime.one_task import OneTask
from instep.node.runtime.runtime import Runtime
from instep.node.trees.hook_views import validate_views
from instep.node.trees.keeping.lending import Lending
from instep.node.trees.keeping.shelf import Shelf
from instep.node.trees.served_tree import ServedTree
from instep.node.trees.space import Room, room_for
from instep.node.trees.switch_outcome import look_again, note_kept, note_undone
from instep.node.trees.tree_comparison import Numbers
from instep.tree.journal.journal import Why
from instep.tree.root.failpoints import failpoint, register
from instep.tree.stage.stages import list_stages
from instep.tree.watch.culprits import Culprits

NAMED_MAX = 20
DRIFT_SCAN_MS = 600_000
PROGRESS_S = 1.0
DRIFT_EVENTS = ("drift_archived", "drift_reverted")
DRIFT_TEXT_MAX = 1_000
LIVE_SAVED = register("follow.live_saved")
TREE_SAVED = register("follow.tree_saved")
log = logging.getLogger(__name__)


class FollowService(LineService):
    """One per fileset that is followed here."""

    is_written_here = False
    facts_of = staticmethod(follow_facts)
    machine_kind: ClassVar[Callable[..., FollowMachine]] = FollowMachine
    facts: f.FollowFacts
    machine: FollowMachine
    _told: f.FollowReport | None

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet) -> None:
        super().__init__(runtime, fileset, net)
        self.facts = self.facts_of(runtime.store, self.line)
        self.tree.live = self.facts.live
        self._has_gates = bool((self.known_definition() or Definition()).gates)
        self.standing = first_follower_standing(self.line, self.config(), self.facts)
        self.lingering = Lingering(self.tree)
        self._offered = OfferedHeads(runtime)
        self.elsewhere = self.offering = self._new_offering()
        self.applying = self._new_applying()
        self.lending = Lending(self.tree.contents)
        self._serving = ServedTree(self.tree, lambda path: self.doubt((path,)))
        self.around = SwitchHooks(runtime, fileset, lambda why: self.driver.post(f.HookOwed(why)))
        self.culprits = Culprits(fileset.path)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.machine = self.machine_kind(self.line, self.config(), random.Random(), self.facts)
        self.driver: Driver[f.FollowEvent, f.FollowEffect] = Driver(
            f"follow {self.line}", self.machine, self._perform, TimerFired, runtime.directory.records
        )
        self.driver.on_stuck = self._stuck
        self._watched: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        """The ignore and include patterns that the watch knows."""
        self._drift_noted = ("", 0)
        """The local changes that were archived or restored last, and when: an event at the writer, too."""
        self._asking: set[tuple[NodeName, bool]] = set()
        self._behind = HubOrders(self.line, net)

    def _new_offering(self) -> Offering:
        return Offering(self.tree, partial(home_link, self), lambda: self.facts.tree, self._owned, self._keep)

    def _new_applying(self) -> Applying:
        return Applying(self.tree, self.lingering, self._offered, self._sources_for, self.offering.kept)

    # Life ---------------------------------------------------------------------------------------------------

    def config(self) -> f.FollowConfig:
        fileset, settings = self.fileset, self.runtime.settings
        leader = orders_from(settings, fileset.writer, self.sources)
        ordering = self.sources.get(leader or fileset.writer)
        return f.FollowConfig(
            writer=fileset.writer,
            poll_ms=settings.poll_ms,
            drift=f.DriftPolicy(fileset.drift),
            drift_scan_ms=DRIFT_SCAN_MS,
            is_observing=fileset.observe,
            has_gates=self._has_gates,
            has_validate=bool(fileset.hooks.validate),
            has_reload=bool(fileset.hooks.reload),
            has_probe=bool(fileset.hooks.probe) or bool(self.golden.specs),
            overrules=overrules(self.runtime.store, self.line, fileset.writer),
            knows_orders=ordering is None or ordering.version >= m.since(m.OrderMessage),
            orders_from=leader,
        )

    async def run(self) -> None:
        definition = self.known_definition() or Definition()
        self._watched = (definition.ignore, definition.include)
        self.driver.begin(f.Started())
        note_hooks(self.runtime.store, self.fileset, self.driver.post)
        self.lingering.plan()
        try:
            blinded = lambda trouble: self.driver.post(WatchChanged(trouble))  # noqa: E731
            begun = self.tree.begin_watch(definition, self._touched, blinded)
            await self._run(begun, *self._works())
        finally:
            await self.lingering.close()
            await self.around.close()
            await self._end()
            self.culprits.close()

    def _works(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs beside the machine."""
        return self.offering.run(), RoomWatch(self).run()

    def reconfigure(self, fileset: FilesetSettings) -> None:
        is_other = fileset != self.fileset
        self.fileset = self.tree.fileset = self.around.fileset = self.golden.fileset = fileset
        self.around.hurry()
        self.offering.reconfigure(fileset)
        self.driver.post(f.FollowConfigChanged(self.config()))
        note_hooks(self.runtime.store, self.fileset, self.driver.post)
        if is_other:  # Of hooks and golden answers the machine knows only that they are there (P4).
            self.driver.post(f.RetryAsked())

    def _owned(self, offers: f.OffersChanged) -> None:
        """Paths that lost are looked at once more: one that does not differ any more is let go by that look."""
        self.driver.post(offers)
        if offers.lost:
            self.driver.post(f.TreeTouched(offers.lost))

    def _touched(self, paths: tuple[bytes, ...], is_overflow: bool) -> None:
        """Taking reads on: events that the kernel queued since the watch read must be handed in, too."""
        drained = self.tree.take_touched()
        told = dict.fromkeys((*paths, *drained.paths))
        self.driver.post(f.TreeTouched(tuple(told), drained.is_everything or is_overflow))

    # Questions of connections --------------------------------------------------------------------------------

    @property
    def drivers(self) -> tuple[Driver[Any, Any], ...]:
        return (self.driver, self.offering.driver)

    @property
    def head(self) -> HeadRef | None:
        return self.facts.head

    @property
    def live(self) -> HeadRef | None:
        return self.facts.live

    @property
    def is_whole(self) -> bool:
        """Of a tree that is only observed nothing is said."""
        return self.fileset.observe or (is_one_generation(self.facts) and not self.machine.is_torn)

    @property
    def senders(self) -> tuple[NodeName, ...]:
        return tuple(sorted(self.sources)) or (self.writer,)

    def in_use(self) -> tuple[HeadRef, ...]:
        facts = self.facts
        return tuple(head for head in (facts.head, facts.live, facts.tree) if head is not None)

    @property
    def at_rest(self) -> HeadRef | None:
        return rests_on(self.facts)

    def room_needed(self) -> Room | None:
        head, base = self.facts.head, self.facts.tree or self.facts.live
        if head is None or (base is not None and head.id == base.id) or self.fileset.observe:
            return None
        try:
            root = base.root if base is not None else None
            return room_for(self.tree.place(), root, head.root, self.tree.get_page)
        except KeyError:
            return None  # its pages are not fetched yet

    def keeps_stage(self) -> bool:
        return bool(list_stages(self.tree.place()))

    async def catch_up(self, limit_s: float) -> None:
        self._touched((), False)
        for link in list(self.sources.values()):
            request = m.HeadsRequest((m.KnownLine(self.line, self.facts.head),))
            try:
                reply = await link.client.call(HEADS, request, total_s=limit_s)
            except UnavailableError:
                continue
            for head in reply.heads:
                self.head_seen(link.name, head)
        self.driver.post(f.PollAsked())
        await self.driver.settled()

    def not_in_step(self, target: HeadRef | None, nodes: Collection[NodeName]) -> tuple[WaitingDocument, ...]:
        goal, live, standing = target or self.facts.head, self.facts.live, self.standing.standing
        is_there = goal is not None and live is not None and live.position >= goal.position
        if is_there and standing is Standing.IN_STEP and not self.machine.is_to_look:
            return ()
        return (WaitingDocument(self.runtime.name, standing.value),)

    def why_never(self, target: HeadRef | None, nodes: Collection[NodeName]) -> FailureDocument | None:
        """This node refused it."""
        goal, standing = target or self.facts.head, self.standing
        if goal is None or self.facts.refused != goal:
            return None
        return FailureDocument(self.runtime.name, standing.code, standing.reason, None)

    def progress_of(self, nodes: Collection[NodeName]) -> list[tuple[int, int]]:
        return [self.applying.progress]

    def status_of(self, line: LineDocument) -> LineDocument:
        phase = self.machine.phase
        return replace(line, doing=phase) if phase is not None else line

    def known_definition(self) -> Definition | None:
        for ref in (self.facts.head, self.facts.live):
            definition = self.tree.definition_of(ref) if ref is not None else None
            if definition is not None:
                return definition
        return None

    def _head_for(self, to: NodeName | None) -> HeadRef | None:
        """The line's own writer gets the newest accepted head, so that one with amnesia goes on above it; a
        hub's partners the live one, whose contents are here."""
        return self.facts.head if to == self.writer else self.facts.live

    def shelf(self) -> Shelf:
        return self._serving.shelf()

    def head_seen(self, source: NodeName, head: m.Head) -> None:
        """Verify what can be verified outside the machine, then hand it in."""
        self.epochs_seen(source, head.epochs)
        verdict = self._offered.take(source, head)
        self.driver.post(f.HeadSeen(source, head.generation, verdict, head.beside))

    def source_up(self, source: NodeName, link: Source, head: HeadRef | None) -> None:
        self.sources[source] = link
        has = head.id if head is not None else None
        poll_ms, passes_words = self.own_poll_ms(source), "fresh" in link.takes
        self.driver.post(f.SourceUp(source, source == self.writer, has, poll_ms, passes_words))
        self.offering.home_changed()
        self.driver.post(f.FollowConfigChanged(self.config()))

    def source_down(self, source: NodeName, error: InstepError | None) -> None:
        self.sources.pop(source, None)
        self.offering.home_changed()
        self.driver.post(f.SourceDown(source, trouble_of(error) if error is not None else None))
        if self.sources:  # with no sender connected, keep waiting for the node that ordered last
            self.driver.post(f.FollowConfigChanged(self.config()))

    def reported(self, report: m.Report) -> None:
        """Nodes behind this one switch when the generation is live here."""
        if not report.via:
            self._behind.seen(report, own_state(self.facts, self.tree.definition_of))

    def partner_lost(self, who: NodeName) -> None:
        self._behind.lost(who)

    def order_given(self, source: NodeName, order: Order) -> None:
        """An order from another hub of the line is ignored; a node that does not have the line is refused by name."""
        orderer = orders_from(self.runtime.settings, self.writer, self.sources) or self.writer
        if source == orderer:
            self.driver.post(f.OrderGiven(source, order))
        elif source not in self.sources:
            text = f"refused an order from {source} for {self.line}: only {orderer} orders"
            self.runtime.note_of_peer(source, "refused", text, self.line, code="not_the_writer", node=source)

    def asked_to(self, what: str) -> None:
        if what in ("retry", "resend"):
            self.driver.nudge()
            self.driver.post(f.RetryAsked())
            self.offering.retry()
            self.around.hurry()

    def lock_ended(self, source: NodeName, news: m.LockNotice) -> None:
        """Believed of the writer, or of the hub that is asked in its place; a hub passes it on."""
        if (home := home_link(self)) is not None and source == home.name:
            self.offering.lock_ended(news)
            for node in self.fileset.offers_from:
                self._net.tell_holder(node, news)

    async def retry(self) -> None:
        self.asked_to("retry")

    def changes_now(self, limit: int) -> tuple[ChangeDocument, ...]:
        """The tree against what is live, or observed."""
        return self.tree.changes_now(self.facts.head if self.fileset.observe else self.facts.live, limit)

    def report_message(self) -> m.Report:
        done, total = self.applying.progress
        report = report_of(self.runtime, self.line, self.facts, self._told, self.standing)
        return replace(report, done_bytes=done, total_bytes=total, drift=self._drift_noted)

    def _keep(self, effect: KeepGeneration | KeepEpoch | Refuse | Note | SetTimer) -> None:
        super()._keep(effect)
        if isinstance(effect, Note) and effect.what in DRIFT_EVENTS:
            self._drift_noted = (effect.text[:DRIFT_TEXT_MAX], wall_ms())

    async def _verified(self, live: HeadRef, is_deep: bool) -> Numbers:
        numbers = await self.worker.run(self.tree.verify, live, is_deep)
        if is_deep and numbers.sample:
            self.doubt(tuple(path for path, _ in numbers.sample))
        return numbers

    def doubt(self, paths: tuple[bytes, ...]) -> None:
        """A deep look found these different: their stats are not believed any more, so that rot under an unchanged
        stat is met by the drift policy like any other change. Where edits are offered to the writer it is named alone:
        the writer would take it for an edit."""
        if self.fileset.drift == "offer":
            return
        self.runtime.store.delete_stat_rows(self.fileset.name, paths)
        self.driver.post(f.TreeTouched(paths))

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: f.FollowEffect) -> None:  # noqa: C901  one case an effect
        """Long work is started, and ends in one answer; a failure becomes the answer that says so."""
        match effect:
            case f.SaveFollow(facts):
                self._save(facts)
            case f.OfferHead(source, _):
                link = self.sources.get(source)
                message = self.head_message(source, with_bundle=False)
                if link is not None and message is not None:
                    link.reply(message)
            case f.DropStage():
                await self._drop_stage()
            case f.FollowReport():
                await self._report(effect)
            case KeepGeneration() | KeepEpoch() | Refuse() | Note() | SetTimer():
                self._keep(effect)
            case Cancel(req):
                task = self._tasks.get(req)
                if task is not None:
                    task.cancel()
            case f.Recover(req=req):
                self._spawn(req, self._recover(req), lambda t: f.RecoverFailed(req, t))
            case f.FetchPages(req=req):
                self._spawn(req, self._fetch(effect), moved_on(req, lambda t: f.FetchFailed(req, t)))
            case f.StageContents(req=req):
                self._spawn(req, self._stage(effect), moved_on(req, lambda t: f.StageFailed(req, t)))
            case f.CheckGates(req=req):
                self._spawn(req, self._gates(effect), lambda t: f.GatesChecked(req, t))
            case RunHook(req=req, kind=kind):
                self._spawn(req, self._hook(effect), lambda t: HookEnded(req, kind, t))
            case f.Switch(req=req):
                self._spawn(req, self._switch(effect), lambda t: f.SwitchFailed(req, t))
            case f.RecordLive(req=req):
                self.facts = effect.facts
                self._spawn(req, self._record(effect), lambda t: f.RecordFailed(req, t))
            case f.PutBack(req=req):
                self._spawn(req, self._put_back(effect), lambda t: f.PutBackFailed(req, t))
            case f.CheckDrift(req=req):
                self._spawn(req, self._drift(effect), lambda t: f.DriftCheckFailed(req, t))
            case f.Revert(req=req):
                self._spawn(req, self._revert(effect), lambda t: f.RevertFailed(req, t))
            case f.CompareTree(req=req):
                self._spawn(req, self._compare(effect), lambda t: f.Compared(req, 0, 0, 0, (), t))
            case f.DrainNode(req=req):
                self._spawn(req, drain(self.runtime, self.line, effect), lambda _: f.NodeDrained(req))
            case f.Return(req=req):
                self._spawn(req, offer_again(self.runtime, self.line, effect), lambda _: f.Returned(req))
            case f.AskHeads(source=source, is_repeated=again) if (source, again) in self._asking:
                pass  # a slow answer is waited for, not asked for twice
            case f.AskHeads(req=req, source=source, is_repeated=again):
                self._asking.add((source, again))
                work = self._ask(req, source, again)
                asking = self._spawn(req, work, lambda t: f.AskFailed(req, source, t))
                asking.add_done_callback(lambda _: self._asking.discard((source, again)))
            case _:
                assert_never(effect)

    async def _drop_stage(self) -> None:
        """A stage that stays does no harm: each file in it is hashed again before it is used."""
        try:
            await self.worker.run(self.applying.drop_stage)
        except (InstepError, OSError) as error:
            log.warning("%s: the stage stays for now: %s", self.line, error)

    def _spawn(
        self,
        req: int,
        work: Coroutine[Any, Any, f.FollowEvent],
        failed: Callable[[Trouble], f.FollowEvent],
    ) -> asyncio.Task[None]:
        task = self.driver.spawn(work, lambda error: failed(trouble_of(error)))
        self._tasks[req] = task
        task.add_done_callback(lambda _: self._tasks.pop(req, None))
        return task

    def _save(self, facts: f.FollowFacts) -> None:
        if self.facts.is_paused and not facts.is_paused:
            self.driver.post(f.TreeTouched((), True))  # Edits of the time of the pause are offered now.
        moved = facts.live != self.tree.live
        self._save_facts(facts, facts.live, is_live_new=moved)
        self.tree.live = facts.live
        self.offering.reached(facts.tree)
        failpoint(LIVE_SAVED if moved else TREE_SAVED)
        self.runtime.tell()

    async def _report(self, told: f.FollowReport | v.PublishReport) -> None:
        """Nodes behind this one follow what is in step here."""
        await super()._report(told)
        self._behind.own_changed(own_state(self.facts, self.tree.definition_of))
        if self._told is not None and self._told.live is not None and told.standing is Standing.IN_STEP:
            message = self.head_message(None, with_bundle=True)
            if message is not None:
                await self._net.announce(message)

    def _sources_for(self, first: NodeName) -> list[PeerCalls]:
        """Clients of the nodes that can send this line, ``first`` first."""
        names = [first, *(name for name in self.sources if name != first)]
        return [self.sources[name].client for name in names if name in self.sources]

    async def _recover(self, req: int) -> f.FollowEvent:
        found = await self.worker.run(self.applying.recover_now)
        kind, journal = f.RecoveryKind(found.kind.value), found.journal
        await self.around.settle()
        if found.cause is not None:
            note_undone(self.runtime, self.line, found.cause)
        if journal is None:
            return f.RecoveryEnded(
                req, kind, holds=await self.worker.run(self.tree.held_now, self.facts.tree)
            )
        self._watch_anew(journal.header.target, is_other_root=journal.is_exchange)
        target, facts = journal.header.target, self.facts
        if target != facts.tree or target != facts.live or facts.due is not f.Due.NOTHING:
            is_known = await self.worker.run(self.tree.is_known_whole, target)
            return f.RecoveryEnded(req, kind, target, found.is_doubtful, is_known=is_known)
        # The tree held this generation before the switch too, or all of it was recorded: only the journal is left.
        # Local changes that were reverted need a reload, which must be saved as pending before the journal goes.
        was_reverted = journal.header.why is Why.DRIFT and bool(self.fileset.hooks.reload)
        await self.worker.run(self.applying.record_now)
        if was_reverted:
            self._save(replace(facts, due=f.Due.RELOAD))
        await self.worker.run(self.applying.close_now)
        kind = kind if was_reverted else f.RecoveryKind.NOTHING
        return f.RecoveryEnded(req, kind, target, found.is_doubtful)

    async def _ask(self, req: int, source: NodeName, is_repeated: bool) -> f.FollowEvent:
        client, known = self.source(source).client, self.facts.head
        for head in await ask_for_heads(client, self.line, known, is_repeated=is_repeated):
            self.head_seen(source, head)
        return f.HeadsAnswered(req, source)

    async def _fetch(self, effect: f.FetchPages) -> f.FollowEvent:
        client = self.source(effect.source).client
        self._offered.keep_wanted(effect.head)
        base = self.facts.tree or self.facts.live
        complete = base.root if base is not None else None
        await Fetcher(self.runtime).pages(
            self.line,
            effect.head,
            complete,
            partial(client.call, PAGES),
            is_small=self._offered.has_small_bundle,
        )
        definition = self.tree.definition_of(effect.head)
        if definition is None:
            await self._offered.fetch_definition(client, self.line, effect.head)
            definition = self.tree.definition_of(effect.head)
            if definition is None:
                return f.HeadSuperseded(effect.req)
        is_reloaded = await self._is_reloaded(effect.head)
        return f.PagesFetched(effect.req, decode_policy(definition.rollout), is_reloaded)

    async def _is_reloaded(self, head: HeadRef) -> bool:
        """Whether a reload hook of this node is for what ``head`` changes; looked at only where hooks name paths."""
        hooks, live = self.fileset.hooks.reload, self.facts.live
        if live is None or not all(hook.paths for hook in hooks):
            return True
        changed = await self.worker.run(self.applying.changed_paths, live, head, CHANGED_MAX)
        return is_any_meant(hooks, changed)

    async def _stage(self, effect: f.StageContents) -> f.FollowEvent:
        self.lingering.give_way()
        has_gates = bool(gates_of(self.tree.definition_of(effect.head)))
        if has_gates != self._has_gates:  # the machine learns it before it goes on
            self._has_gates = has_gates
            self.driver.post(f.FollowConfigChanged(self.config()))
        telling = OneTask()
        telling.begin(self._tell_progress())
        try:
            await self.applying.stage(effect)
        finally:
            await telling.close()
        return f.Staged(effect.req)

    async def _tell_progress(self) -> None:
        """While contents are fetched: report the progress, here and to the senders."""
        while True:
            await asyncio.sleep(PROGRESS_S)
            self.runtime.tell()
            await self._net.report(self.line)

    async def _gates(self, effect: f.CheckGates) -> f.FollowEvent:
        gates = gates_of(self.tree.definition_of(effect.head))
        if gates:
            client = self.source(self.writer).client
            await require_gates(self.runtime, self.fileset, self.line, gates, client)
        return f.GatesChecked(effect.req)

    async def _hook(self, effect: RunHook) -> f.FollowEvent:
        changed: Sequence[bytes] = await self.worker.run(
            self.applying.changed_paths, effect.base, effect.head, CHANGED_MAX
        )
        stage, changes = self.applying.staged_path(), self.applying.changes(effect.base, effect.head)
        async with validate_views(self.fileset, effect, stage, changed, changes) as views:
            trouble = await run_hook(self.tree, effect, changed, views)
        if trouble is None and effect.kind is HookKind.PROBE and effect.head is not None:
            trouble = await self.golden.probe(effect.head, self.facts.live, wall_ms())
        if trouble is not None and self.facts.live is None and effect.kind is not HookKind.VALIDATE:
            assert effect.head is not None, "a partner's hooks are for a generation"
            await self.around.repair(effect.head, effect.base)
        if trouble is not None:  # a partner retries by itself: failing, not blocked
            trouble = msgspec.structs.replace(trouble, exit_code=UnavailableError.exit_code)
        return HookEnded(effect.req, effect.kind, trouble)

    async def _switch(self, effect: f.Switch) -> f.FollowEvent:
        self.lingering.give_way()
        if self.facts.live is not None and self.facts.live == self.facts.tree:
            await self.golden.record(self.facts.live, wall_ms())
        try:
            async with self.around.frozen(effect.head, self.facts.live):
                switched = await self.worker.run(self.applying.switch_now, effect.head)
        except InstepError as error:
            if self.facts.live is None and error.error_code != "freeze_failed":
                await self.around.repair(effect.head, None)
            raise
        self._watch_anew(effect.head, is_other_root=switched.journal.is_exchange)
        note_kept(self.runtime, self.line, switched)
        look_again(switched, self.driver.post)
        return f.TreeSwitched(effect.req, tuple(switched.drifted))

    def _watch_anew(self, head: HeadRef, *, is_other_root: bool) -> None:
        """After a switch: other rules are watched, or another directory, which is then looked at as a whole."""
        definition = self.tree.definition_of(head) or Definition()
        if is_other_root:
            self.culprits.root_changed()
            self.lingering.plan()
        watched = (definition.ignore, definition.include)
        if is_other_root or self._watched != watched:
            self.tree.watch_anew(definition)
            self._watched = watched

    async def _record(self, effect: f.RecordLive) -> f.FollowEvent:
        await self.worker.run(self.applying.record_now)
        self._save(replace(self.facts, due=f.Due.NOTHING))
        await self.worker.run(self.applying.close_now)
        return f.LiveRecorded(effect.req)

    async def _put_back(self, effect: f.PutBack) -> f.FollowEvent:
        async with self.around.frozen(effect.head, effect.base, must_freeze=False):
            switched = await self.applying.put_back(effect)
        look_again(switched, self.driver.post)
        self._watch_anew(effect.head, is_other_root=self.fileset.switch == "exchange")
        await self.around.repair(effect.base, effect.head)
        return f.PutBackDone(effect.req)

    async def _drift(self, effect: f.CheckDrift) -> f.FollowEvent:
        found = await self.tree.drift(effect.base, effect.paths)
        if not self.facts.is_paused:
            await self.offering.looked(effect.base, found)
        writers = await self.worker.run(self.culprits.names, found.paths) if found.paths else {}
        wrote = self.tree.hook_writes.among(found.paths)
        return f.DriftChecked(effect.req, found.paths, found.total, tuple(writers.items()), found.cost, wrote)

    async def _revert(self, effect: f.Revert) -> f.FollowEvent:
        reverted = await self.applying.revert(effect)
        await self.worker.run(self.culprits.watch, effect.paths)
        self.offering.set_aside(effect.paths)
        return reverted

    async def _compare(self, effect: f.CompareTree) -> f.FollowEvent:
        numbers = await self.worker.run(self.tree.verify, effect.head, False)
        sample = tuple(path for path, _ in numbers.sample[:100])
        return f.Compared(effect.req, numbers.missing, numbers.changed, numbers.extra, sample)


def is_one_generation(facts: f.FollowFacts) -> bool:
    """Whether the tree holds one complete generation that its hooks found well: live, or one whose recording alone is
    pending. That is the case while a node that was put back is offered again: its generation is well, and is recorded
    right after."""
    if facts.tree is None or facts.live is None:
        return False
    return facts.tree.id == facts.live.id or facts.due is f.Due.RECORD


def moved_on(req: int, failed: Callable[[Trouble], f.FollowEvent]) -> Callable[[Trouble], f.FollowEvent]:
    """A source that no longer has a generation did not fail: the machine asks for the newer head."""

    def answer(trouble: Trouble) -> f.FollowEvent:
        return f.HeadSuperseded(req) if trouble.code == "superseded" else failed(trouble)

    return answer
