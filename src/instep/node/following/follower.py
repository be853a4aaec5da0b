"""The partner's side of one line: performs the effects of its ``FollowMachine``."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, assert_never

import msgspec

from instep.api.looking import ChangeDocument
from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
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
from instep.errors import InstepError, UnavailableError
from instep.model.definition import Definition
from instep.model.generation import SignedEpoch
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.rollout import Order, decode_policy
from instep.model.standing import Standing, StandingRecord
from instep.net.messages import messages as m
from instep.net.service import PeerCalls
from instep.node.config.filesets import FilesetSettings
from instep.node.following.answers import moved_on, plain
from instep.node.following.applying import Applying
from instep.node.following.followed_shelf import FollowedShelf
from instep.node.following.hub_orders import HubOrders, orders_from, own_state
from instep.node.following.lingering import Lingering
from instep.node.following.offered_heads import OfferedHeads
from instep.node.following.page_fetch import Fetcher
from instep.node.following.reporting import report_of
from instep.node.following.rollout_drain import drain, offer_again
from instep.node.following.validate_views import validate_views
from instep.node.lines.epoch_records import overrules, records_of, unknown
from instep.node.lines.gating import gates_of, require_gates
from instep.node.lines.golden_answers import Golden
from instep.node.lines.hook_calls import CHANGED_MAX, is_any_meant, run_hook
from instep.node.lines.initial_standing import first_follower_standing
from instep.node.lines.line_net import LineNet
from instep.node.lines.line_service import Source
from instep.node.lines.pausing import Pausing
from instep.node.lines.saved_facts import follow_facts, note_change, save_facts
from instep.node.lines.self_test import try_node
from instep.node.lines.switch_hooks import FailureTeller, SwitchHooks
from instep.node.runtime.driver import Driver, wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import broken_standing, stuck_standing, verdict_on
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.held_tree import held_now, is_known_whole
from instep.node.trees.keeping.lending import Lending
from instep.node.trees.keeping.shelf import Shelf
from instep.node.trees.scanning.watching import TreeWatch
from instep.node.trees.switch_outcome import look_again, note_kept, note_undone
from instep.node.trees.tree_comparison import changes_of
from instep.tree.journal.journal import Why
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.watch.culprits import Culprits

__all__ = ["FollowService"]

NAMED_MAX = 20
DRIFT_SCAN_MS = 600_000
PROGRESS_S = 1.0
LIVE_SAVED = register("follow.live_saved")
TREE_SAVED = register("follow.tree_saved")
log = logging.getLogger(__name__)

FollowRequest = (
    f.Recover
    | f.FetchPages
    | f.StageContents
    | f.CheckGates
    | RunHook
    | f.Switch
    | f.RecordLive
    | f.PutBack
    | f.CheckDrift
    | f.Revert
    | f.CompareTree
    | f.DrainNode
    | f.Return
    | f.AskHeads
)
"""Effects that end in exactly one answer."""


class FollowService:
    """One per fileset that is followed here."""

    is_written_here = False

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet) -> None:
        self.runtime = runtime
        self.fileset = fileset
        self.line = fileset.line
        self.tree = FilesetTree(runtime, fileset)
        self.worker = self.tree.worker
        self.sources: dict[NodeName, Source] = {}
        self.progress: m.Report | None = None
        self._net = net
        self.facts = follow_facts(runtime.store, self.line)
        self.golden = Golden(runtime, fileset)
        self._has_gates = bool((self.known_definition() or Definition()).gates)
        self.standing = first_follower_standing(self.line, self.config(), self.facts)
        self._saved_live = self.facts.live
        self.lingering = Lingering(self.tree)
        self.applying = Applying(self.tree, self.lingering, self)
        self.lending = Lending(self.tree.contents)
        self._shelf = FollowedShelf(self.tree, self.doubt)
        self.around = SwitchHooks(runtime, fileset, lambda why: self.driver.post(f.HookOwed(why)))
        self.failures = FailureTeller(runtime)
        self.culprits = Culprits(fileset.path)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.machine = FollowMachine(self.line, self.config(), random.Random(), self.facts)
        self.driver: Driver[f.FollowEvent, f.FollowEffect] = Driver(
            f"follow {self.line}", self.machine, self._perform, TimerFired, runtime.directory.records
        )
        self._offered = OfferedHeads(runtime)
        self._watched: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        """The ignore and include patterns that the watch knows."""
        self._asking: set[tuple[NodeName, bool]] = set()
        self._told: f.FollowReport | None = None
        self.pausing = Pausing(lambda event: self.driver.post(event), lambda: self.facts)
        self.driver.on_stuck = self._stuck
        self._behind = HubOrders(self.line, net)

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
        """Own the line until cancelled."""
        self.tree.watch = TreeWatch(self.fileset.path, self._rules(), self._touched, self._blinded)
        definition = self.known_definition() or Definition()
        self._watched = (definition.ignore, definition.include)
        self.driver.post(f.Started())
        self.lingering.plan()
        self.pausing.go_on()
        try:
            await self.tree.watch.start()
            await self.driver.run()
        finally:
            self.tree.watch.close()
            await self.lingering.close()
            await self.around.close()
            await self.failures.close()
            await asyncio.to_thread(self.worker.close)
            self.culprits.close()

    def reconfigure(self, fileset: FilesetSettings) -> None:
        is_other = fileset != self.fileset
        self.fileset = self.tree.fileset = self.around.fileset = self.golden.fileset = fileset
        self.around.hurry()
        self.driver.post(f.FollowConfigChanged(self.config()))
        if is_other:  # Of hooks and golden answers the machine knows only that they are there (P4).
            self.driver.post(f.RetryAsked())

    def _rules(self) -> Rules:
        return Rules(self.known_definition() or Definition())

    def _touched(self, paths: tuple[bytes, ...], is_overflow: bool) -> None:
        told = dict.fromkeys(paths)
        if self.tree.watch is not None:
            # Draining reads on: events that the kernel queued since the caller read must be handed in, too.
            drained = self.tree.watch.drain()
            for path, is_tree in drained.paths:
                self.applying.touched(path, is_tree=is_tree)
                told[path] = None
            is_overflow = drained.is_overflow or is_overflow
        self.driver.post(f.TreeTouched(tuple(told), is_overflow))

    def _blinded(self, trouble: Trouble | None) -> None:
        self.driver.post(WatchChanged(trouble))

    # Questions of connections --------------------------------------------------------------------------------

    @property
    def writer(self) -> NodeName:
        return self.fileset.writer

    @property
    def head(self) -> HeadRef | None:
        return self.facts.head

    @property
    def live(self) -> HeadRef | None:
        return self.facts.live

    async def room(self) -> None:
        await self.driver.room()

    def known_definition(self) -> Definition | None:
        for ref in (self.facts.head, self.facts.live):
            definition = self.tree.definition_of(ref) if ref is not None else None
            if definition is not None:
                return definition
        return None

    def offers_to(self, partner: NodeName) -> bool:
        return True

    def head_message(self, to: NodeName | None, *, with_bundle: bool) -> m.Head | None:
        """The line's own writer gets the newest accepted head, so that one with amnesia goes on above it; a
        hub's partners the live one, whose contents are here."""
        ref = self.facts.head if to == self.writer else self.facts.live
        signed = self.runtime.store.generation(ref.id) if ref is not None else None
        if signed is None:
            return None
        return m.Head(
            line=self.line,
            generation=signed,
            epochs=records_of(self.runtime, self.line, self.facts.epochs),
            definition=self.runtime.store.get_blob(signed.body().definition) or b"",
            writer=self.writer,
        )

    def shelf(self) -> Shelf:
        return self._shelf.shelf()

    def epochs_seen(self, source: NodeName, records: Sequence[SignedEpoch]) -> None:
        for epoch in unknown(records, self.facts.epochs):
            self.driver.post(f.EpochSeen(source, epoch, verdict_on(self.runtime, epoch.signature, epoch.id)))

    def head_seen(self, source: NodeName, head: m.Head) -> None:
        """Verify what can be verified outside the machine, then hand it in."""
        runtime = self.runtime
        self.epochs_seen(source, head.epochs)
        signed = head.generation
        verdict = verdict_on(runtime, signed.signature, signed.id)
        if verdict.is_valid:
            self._offered.take(source, head)
        self.driver.post(f.HeadSeen(source, signed, verdict, head.beside))

    def partner_told(self, source: NodeName) -> None:
        """Only a writer waits for this."""

    def source_up(self, source: NodeName, link: Source, head: HeadRef | None) -> None:
        self.sources[source] = link
        has = head.id if head is not None else None
        self.driver.post(f.SourceUp(source, source == self.writer, has))
        self.driver.post(f.FollowConfigChanged(self.config()))

    def source_down(self, source: NodeName, error: InstepError | None) -> None:
        self.sources.pop(source, None)
        self.driver.post(f.SourceDown(source, trouble_of(error) if error is not None else None))
        if self.sources:  # with no sender connected, keep waiting for the node that ordered last
            self.driver.post(f.FollowConfigChanged(self.config()))

    def reported(self, report: m.Report) -> None:
        """Nodes behind this one switch when the generation is live here."""
        if not report.via:
            self._behind.seen(report, own_state(self.facts, self.tree.definition_of))

    def partner_lost(self, who: NodeName) -> None:
        self._behind.lost(who)

    def partners_changed(self) -> None:
        """Each node behind this one reports anew."""

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
            self.around.hurry()

    def place(self) -> Place:
        return self.tree.place()

    async def retry(self) -> None:
        """An operator wants now what waits for its next try."""
        self.asked_to("retry")

    def broke(self, error: Exception) -> None:
        """The machine broke an invariant: say so until the daemon is restarted."""
        self.standing = broken_standing(error)
        self.runtime.tell()

    def changes_now(self, limit: int) -> tuple[ChangeDocument, ...]:
        """What ``diff`` without generations shows: the tree against what is live, or observed."""
        live = self.facts.head if self.fileset.observe else self.facts.live
        if live is None:
            return ()
        inspection = self.applying.inspection(self.applying.definition(live), self.tree.taken())
        return changes_of(inspection.everything(live.root, wall_ms()), limit)

    def report_message(self) -> m.Report:
        done, total = self.applying.progress
        report = report_of(self.runtime, self.line, self.facts, self._told, self.standing)
        return msgspec.structs.replace(report, done_bytes=done, total_bytes=total)

    async def test(self) -> tuple[m.TestRow, ...]:
        return await try_node(self)

    async def verify(self, *, is_deep: bool) -> m.VerifyReply:
        """Compare the tree with the live generation, and report what it really holds."""
        live = self.facts.live
        if live is None:
            return m.VerifyReply(0, self.line, None, b"", 0)
        numbers = await self.worker.run(self.applying.verify_now, live, is_deep)
        if is_deep and numbers.sample:
            self.doubt(tuple(path for path, _ in numbers.sample))
        return m.VerifyReply(
            number=0,
            line=self.line,
            live=live,
            attested_root=live.root if numbers.total == 0 else b"",
            differing=numbers.total,
            differs=tuple(m.VerifyDifference(path, why) for path, why in numbers.sample[: m.DIFFERENCES_MAX]),
            read_bytes=numbers.read_bytes,
        )

    def doubt(self, paths: tuple[bytes, ...]) -> None:
        """A deep look found these different: their stats are not believed any more, so that rot under an unchanged
        stat is met by the drift policy like any other change."""
        self.runtime.store.delete_stat_rows(self.fileset.name, paths)
        self.driver.post(f.TreeTouched(paths))

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: f.FollowEffect) -> None:
        match effect:
            case f.SaveFollow(facts):
                self._save(facts)
            case KeepGeneration(signed):
                self.runtime.store.add_generation(signed)
            case KeepEpoch(signed):
                self.runtime.store.add_epoch(signed)
            case f.OfferHead(source, _):
                link = self.sources.get(source)
                message = self.head_message(source, with_bundle=False)
                if link is not None and message is not None:
                    link.reply(message)
            case f.DropStage():
                await self._drop_stage()
            case f.FollowReport():
                await self._report(effect)
            case Refuse() | Note():
                self._write_down(effect)
            case SetTimer(name, None):
                self.driver.cancel_timer(name)
            case SetTimer(name, at_ms):
                assert at_ms is not None
                self.driver.set_timer(name, at_ms)
            case Cancel(req):
                task = self._tasks.get(req)
                if task is not None:
                    task.cancel()
            case _:
                self._begin(effect)

    def _begin(self, effect: FollowRequest) -> None:  # noqa: C901  one line a kind
        """Start what ends in one answer; a failure becomes the answer that says so."""
        req = effect.req
        match effect:
            case f.Recover():
                self._spawn(req, self._recover(req), lambda t: f.RecoverFailed(req, t))
            case f.FetchPages():
                self._spawn(req, self._fetch(effect), moved_on(req, lambda t: f.FetchFailed(req, t)))
            case f.StageContents():
                self._spawn(req, self._stage(effect), moved_on(req, lambda t: f.StageFailed(req, t)))
            case f.CheckGates():
                self._spawn(req, self._gates(effect), lambda t: f.GatesChecked(req, t))
            case RunHook(kind=kind):
                self._spawn(req, self._hook(effect), lambda t: HookEnded(req, kind, t))
            case f.Switch():
                self._spawn(req, self._switch(effect), lambda t: f.SwitchFailed(req, t))
            case f.RecordLive():
                self.facts = effect.facts
                self._spawn(req, self._record(effect), lambda t: f.RecordFailed(req, t))
            case f.PutBack():
                self._spawn(req, self._put_back(effect), lambda t: f.PutBackFailed(req, t))
            case f.CheckDrift():
                self._spawn(req, self._drift(effect), lambda t: f.DriftCheckFailed(req, t))
            case f.Revert():
                self._spawn(req, self._revert(effect), lambda t: f.RevertFailed(req, t))
            case f.CompareTree():
                self._spawn(req, self._compare(effect), lambda t: f.Compared(req, 0, 0, 0, (), t))
            case f.DrainNode():
                self._spawn(req, drain(self.runtime, self.line, effect), lambda _: f.NodeDrained(req))
            case f.Return():
                self._spawn(req, offer_again(self.runtime, self.line, effect), lambda _: f.Returned(req))
            case f.AskHeads(source=source, is_repeated=again) if (source, again) in self._asking:
                pass  # a slow answer is waited for, not asked for twice
            case f.AskHeads(source=source, is_repeated=again):
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

    def _write_down(self, effect: Refuse | Note) -> None:
        match effect:
            case Refuse(source, trouble):
                text = f"refused what {source} sent: {trouble.reason}"
                self.runtime.note_of_peer(source, "refused", text, self.line, code=trouble.code, node=source)
            case Note(what, text, facts_of_note):
                self.runtime.note(what, text, self.line, **plain(dict(facts_of_note)))

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
        store = self.runtime.store
        moved = facts.live != self._saved_live
        with store.transaction():
            save_facts(store, self.line, facts)
            note_change(store, self.line, self.fileset.writer, self.facts, facts)
            if facts.head is not None:
                store.set_head(self.line, facts.head)
            if moved:
                store.set_live(self.line, facts.live)
        is_new_epoch = facts.epochs != self.facts.epochs
        self._saved_live = facts.live
        self.facts = facts
        if is_new_epoch:
            self._net.epochs_changed(self.line)
        failpoint(LIVE_SAVED if moved else TREE_SAVED)
        self.runtime.tell()

    async def _stuck(self, trouble: InstepError | None) -> None:
        """This machine cannot carry out an effect now, or can again."""
        if trouble is not None:
            self.standing = stuck_standing(trouble)
            self.failures.stands(self.fileset, self.standing, self.facts.live)
            self.runtime.tell()
            await self._net.report(self.line)
        elif self._told is not None:
            await self._report(self._told)

    async def _report(self, effect: f.FollowReport) -> None:
        same = self.standing.standing is effect.standing and self.standing.code == effect.code
        since = self.standing.since_ms if same else wall_ms()
        self.standing = StandingRecord(effect.standing, since, effect.reason, effect.code, effect.next_steps)
        self._told = effect
        log.info(
            "%s stands %s%s", self.line, effect.standing.value, f": {effect.reason}" if effect.reason else ""
        )
        self.failures.stands(self.fileset, self.standing, self.facts.live)
        self.runtime.tell()
        await self._net.report(self.line)
        self._behind.own_changed(own_state(self.facts, self.tree.definition_of))
        if effect.live is not None and effect.standing is Standing.IN_STEP:
            message = self.head_message(None, with_bundle=True)
            if message is not None:
                await self._net.announce(message)

    @property
    def head_bundle(self) -> tuple[Digest, dict[Digest, bytes]] | None:
        """Small contents that came with a head."""
        return self._offered.bundle

    def source(self, name: NodeName) -> Source:
        """The link to a source, or ``UnavailableError``."""
        link = self.sources.get(name)
        if link is None:
            raise UnavailableError(f"{name} is not connected", code="not_connected", node=name)
        return link

    def sources_for(self, first: NodeName) -> list[PeerCalls]:
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
                req, kind, holds=await self.worker.run(held_now, self.tree, self.facts.tree)
            )
        self._watch_anew(journal.header.target, is_other_root=journal.is_exchange)
        target, facts = journal.header.target, self.facts
        if target != facts.tree or target != facts.live or facts.due is not f.Due.NOTHING:
            is_known = await self.worker.run(is_known_whole, self.runtime, target)
            return f.RecoveryEnded(req, kind, target, found.is_doubtful, is_known=is_known)
        # The tree held this generation before the switch too, or all of it was recorded: only the journal is left.
        # Local changes that were reverted need a reload, which must be saved as pending before the journal goes.
        was_reverted = journal.header.why is Why.DRIFT and bool(self.fileset.hooks.reload)
        await self.worker.run(self.applying.record_now)
        if was_reverted:
            self._save(msgspec.structs.replace(facts, due=f.Due.RELOAD))
        await self.worker.run(self.applying.close_now)
        kind = kind if was_reverted else f.RecoveryKind.NOTHING
        return f.RecoveryEnded(req, kind, target, found.is_doubtful)

    async def _ask(self, req: int, source: NodeName, is_repeated: bool) -> f.FollowEvent:
        """A source leaves out a head that the request says is known."""
        holds = (m.KnownLine(self.line, self.facts.head),)
        asked = (m.KnownLine(self.line),) if is_repeated else holds
        reply = await self.source(source).client.heads(m.HeadsRequest(asked, not is_repeated, holds))
        for line, refusal in reply.refused:
            if line == self.line:
                raise UnavailableError(refusal.reason, hint=refusal.hint, code=refusal.code)
        for head in reply.heads:
            if head.line == self.line:
                self.head_seen(source, head)
        return f.HeadsAnswered(req, source)

    async def _fetch(self, effect: f.FetchPages) -> f.FollowEvent:
        client = self.source(effect.source).client
        self._offered.keep_wanted(effect.head)
        base = self.facts.tree or self.facts.live
        complete = base.root if base is not None else None
        await Fetcher(self.runtime).pages(
            self.line, effect.head, complete, client.pages, is_small=self._offered.has_small_bundle
        )
        definition = self.tree.definition_of(effect.head)
        if definition is None:
            reply = await client.heads(m.HeadsRequest((m.KnownLine(self.line, None),), with_bundles=False))
            for head in reply.heads:
                if head.line == self.line and head.generation.id == effect.head.id:
                    self._offered.keep(head)
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
        telling = asyncio.get_running_loop().create_task(self._tell_progress())
        try:
            await self.applying.stage(effect)
        finally:
            telling.cancel()
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
            trouble = await run_hook(self.runtime, self.fileset, effect, changed, views)
        if trouble is None and effect.kind is HookKind.PROBE and effect.head is not None:
            trouble = await self.golden.probe(effect.head, self.facts.live, wall_ms())
        if trouble is not None and self.facts.live is None and effect.kind is not HookKind.VALIDATE:
            assert effect.head is not None, "a partner's hooks are for a generation"
            await self.around.repair(effect.head, effect.base)
        if trouble is not None:  # a partner retries by itself: failing, not blocked
            trouble = dataclasses.replace(trouble, exit_code=UnavailableError.exit_code)
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
        if self.tree.watch is not None and (is_other_root or self._watched != watched):
            self.tree.watch.restart(self.fileset.path, Rules(definition))
            self._watched = watched

    async def _record(self, effect: f.RecordLive) -> f.FollowEvent:
        await self.worker.run(self.applying.record_now)
        self._save(msgspec.structs.replace(self.facts, due=f.Due.NOTHING))
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
        found = await self.applying.drift(effect.base, effect.paths)
        writers = await self.worker.run(self.culprits.names, found.paths) if found.paths else {}
        return f.DriftChecked(effect.req, found.paths, found.total, tuple(writers.items()), found.cost)

    async def _revert(self, effect: f.Revert) -> f.FollowEvent:
        await self.applying.revert(effect)
        await self.worker.run(self.culprits.watch, effect.paths)
        return f.Reverted(effect.req, effect.paths)

    async def _compare(self, effect: f.CompareTree) -> f.FollowEvent:
        numbers = await self.worker.run(self.applying.compare_now, effect.head)
        sample = tuple(path for path, _ in numbers.sample[:100])
        return f.Compared(effect.req, numbers.missing, numbers.changed, numbers.extra, sample)
