"""The writer's side of one line: performs the effects of its ``PublishMachine``."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from instep.api.looking import ChangeDocument
from instep.core.guards.guards import DeletionPolicy
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as v
from instep.core.publish.commit_facts import LastCommit
from instep.core.publish.machine import PublishMachine
from instep.core.publish.standing import PATHS_HELD
from instep.core.vocabulary import (
    Cancel,
    HookEnded,
    KeepEpoch,
    KeepGeneration,
    Note,
    Refuse,
    RunHook,
    SetTimer,
    TimerFired,
    WatchChanged,
    trouble_of,
)
from instep.errors import InstepError
from instep.model.definition import Definition
from instep.model.generation import SignedEpoch
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.rollout import Order, RolloutPolicy, decode_policy
from instep.model.standing import Standing, StandingRecord
from instep.net.messages.messages import (
    DIFFERENCES_MAX,
    Bundle,
    Head,
    Report,
    TestRow,
    VerifyDifference,
    VerifyReply,
)
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.epoch_records import overrules, records_of, unknown
from instep.node.lines.golden_answers import Golden
from instep.node.lines.hook_calls import run_hook
from instep.node.lines.initial_standing import first_writer_standing
from instep.node.lines.line_net import LineNet
from instep.node.lines.pausing import Pausing
from instep.node.lines.saved_facts import note_change, publish_facts, save_facts
from instep.node.lines.self_test import try_node
from instep.node.lines.switch_hooks import FailureTeller
from instep.node.runtime.draining import rollout_key
from instep.node.runtime.driver import Driver, run_all, wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import broken_standing, stuck_standing, verdict_on
from instep.node.trees.definitions import definition_of
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.keeping.lending import Lending
from instep.node.trees.keeping.shelf import Shelf
from instep.node.trees.scanning.held_view import standing_steps
from instep.node.trees.scanning.unscanned import Unscanned
from instep.node.trees.scanning.watching import TreeWatch
from instep.node.trees.scanning.writer_scan import WriterScanned
from instep.node.writing.balancer_check import BalancerCheck
from instep.node.writing.committing import bundle_of, commit
from instep.node.writing.disk_watch import DiskWatch
from instep.node.writing.own_past import told_head
from instep.node.writing.restoring import Restoring
from instep.node.writing.rollout import RolloutService
from instep.node.writing.writer_tree import WriterTree
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules

__all__ = ["WriterService"]

log = logging.getLogger(__name__)

RESCAN_MS = 600_000
HEAD_SAVED = register("publish.head_saved")


@dataclass(slots=True)
class _Pending:
    """The last survey, until its root is committed or replaced."""

    surveyed: WriterScanned
    contents: dict[Digest, bytes]


class WriterService:
    """One per fileset that is written here."""

    is_written_here = True

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet) -> None:
        assert fileset.definition is not None
        self.runtime = runtime
        self.fileset = fileset
        self.definition = fileset.definition
        self.line = fileset.line
        self.tree = FilesetTree(runtime, fileset)
        self.worker = self.tree.worker
        self.bundle: tuple[HeadRef, Bundle] | None = None
        self._net = net
        self._pending: _Pending | None = None
        self.own = WriterTree(self.tree, lambda event: self.driver.post(event))
        self.restoring = Restoring(self.tree, self.own, net)
        self.lending = Lending(self.own.all_contents)
        self._requests: dict[int, asyncio.Future[v.Outcome]] = {}
        self._request = 0
        self.facts = facts = publish_facts(runtime.store, self.line)
        self.standing = first_writer_standing(self.line, facts)
        self._announced = facts.head
        self.last_commit = LastCommit()
        self.machine = PublishMachine(self.line, self.config(), random.Random(), facts)
        self.driver: Driver[s.WriterEvent, s.WriterEffect] = Driver(
            f"publish {self.line}", self.machine, self._perform, TimerFired, runtime.directory.records
        )
        self.rollout = RolloutService(runtime, self.line, net)
        self._told: v.PublishReport | None = None
        self.pausing = Pausing(lambda event: self.driver.post(event), lambda: self.facts)
        self.driver.on_stuck = self.rollout.driver.on_stuck = self._stuck
        self.failures = FailureTeller(runtime)
        self.golden = Golden(runtime, fileset)
        self.balancer = BalancerCheck(runtime, self.golden, self.rollout)
        self._unscanned = Unscanned()

    # Life ---------------------------------------------------------------------------------------------------

    def config(self) -> v.PublishConfig:
        """The settings that the machine needs."""
        fileset, settings = self.fileset, self.runtime.settings
        deletions = fileset.max_deletions
        return v.PublishConfig(
            node=self.runtime.name,
            mode=v.PublishMode(fileset.publish),
            settle_ms=fileset.settle_ms,
            settle_max_ms=fileset.settle_max_ms,
            trigger=fileset.trigger,
            trigger_max_ms=fileset.trigger_max_ms,
            deletions=DeletionPolicy(
                share_percent=int(deletions.percent) if deletions.percent is not None else 100,
                count=deletions.count,
            ),
            rescan_ms=RESCAN_MS,
            has_validate=bool(fileset.hooks.validate),
            has_reload=bool(fileset.hooks.reload),
            partners=tuple(name for name in settings.partners if fileset.offers_to(name)),
            overrules=overrules(self.runtime.store, self.line, fileset.writer),
            is_strict=fileset.strict,
        )

    async def run(self) -> None:
        """Own the line until cancelled."""
        self.own.loop = asyncio.get_running_loop()
        self.pausing.go_on()
        self.runtime.draining.end(rollout_key(self.line.fileset))  # of the time when it was followed here
        self.rollout.begin(self.head, self._policy())
        self.driver.post(v.Started())
        blinded = lambda trouble: self.driver.post(WatchChanged(trouble))  # noqa: E731
        self.tree.watch = TreeWatch(self.fileset.path, Rules(self.definition), self._touched, blinded)
        try:
            await self.tree.watch.start()
            disk = DiskWatch(self.tree, lambda: self.driver.post(v.DiskTurned()))
            await run_all(self.driver.run(), self.rollout.run(), self.balancer.run(), disk.run())
        finally:
            self.tree.watch.close()
            await self.failures.close()
            for future in self._requests.values():
                if not future.done():
                    future.cancel()
            self.worker.close()

    def reconfigure(self, fileset: FilesetSettings) -> None:
        """New settings for the same fileset; the root and the line stay."""
        assert fileset.definition is not None
        self.fileset = self.tree.fileset = self.golden.fileset = fileset
        self.definition = fileset.definition
        if self.tree.watch is not None:
            self.tree.watch.restart(fileset.path, Rules(self.definition))
        self.driver.post(v.PublishConfigChanged(self.config()))
        self.rollout.reconfigure(self._policy())

    def _touched(self, paths: tuple[bytes, ...], is_overflow: bool) -> None:
        self.driver.post(v.TreeChanged(paths, is_overflow))

    async def ask(self, make: Any, timeout_s: float) -> v.Outcome:
        """Hand a numbered request to the machine and wait for its answer. ``make`` takes the number. Raises the
        trouble that keeps the machine from working."""
        await self.driver.hurry()
        self._request += 1
        number = self._request
        future: asyncio.Future[v.Outcome] = asyncio.get_running_loop().create_future()
        self._requests[number] = future
        try:
            self.driver.post(make(number))
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self._requests.pop(number, None)

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: s.WriterEffect) -> None:  # noqa: C901 - one case an effect
        store = self.runtime.store
        match effect:
            case v.SavePublish(saved):
                facts = self.last_commit.saved(saved)
                with store.transaction():
                    save_facts(store, self.line, facts)
                    note_change(store, self.line, self.fileset.writer, self.facts, facts)
                is_new_epoch = facts.epochs != self.facts.epochs
                self.facts = facts
                if is_new_epoch:
                    self._net.epochs_changed(self.line)
                if facts.head is not None:
                    store.set_head(self.line, facts.head)
                    store.set_live(self.line, facts.head)
                failpoint(HEAD_SAVED)
            case KeepGeneration(signed):
                store.add_generation(signed)
            case KeepEpoch(signed):
                store.add_epoch(signed)
            case v.Scan():
                self.driver.spawn(self._scan(effect), lambda e: v.ScanFailed(effect.req, trouble_of(e)))
            case v.Commit():
                self.facts = effect.facts
                self.driver.spawn(self._commit(effect), lambda e: v.CommitFailed(effect.req, trouble_of(e)))
            case s.PlanRestore():
                self.driver.spawn(self._plan(effect), lambda e: s.PlanFailed(effect.req, trouble_of(e)))
            case s.Restore():
                self.driver.spawn(
                    self.restoring.restore(effect), lambda e: s.RestoreFailed(effect.req, trouble_of(e))
                )
            case s.Recover():
                failed = self.restoring.failed_recovery
                self.driver.spawn(
                    self.restoring.recover(effect.req), lambda e: s.RecoverFailed(effect.req, failed(e))
                )
            case RunHook():
                self.driver.spawn(
                    self._hook(effect), lambda e: HookEnded(effect.req, effect.kind, trouble_of(e))
                )
            case v.AskPartners(req):
                self.driver.spawn(self._ask_partners(req), lambda _: v.PartnersAnswered(req, ()))
            case v.FetchPages():
                self.driver.spawn(self._fetch(effect), lambda e: v.FetchFailed(effect.req, trouble_of(e)))
            case v.Announce(head):
                await self._announce(head)
            case v.GiveAnswer(request, outcome):
                future = self._requests.get(request)
                if future is not None and not future.done():
                    future.set_result(outcome)
            case v.PublishReport():
                await self._report(effect)
            case Refuse(source, trouble):
                text = f"refused what {source} sent: {trouble.reason}"
                self.runtime.note_of_peer(source, "refused", text, self.line, code=trouble.code, node=source)
            case Note(what, text, facts_of_note):
                self.runtime.note(what, text, self.line, **dict(facts_of_note))
            case SetTimer(name, at_ms):
                if at_ms is None:
                    self.driver.cancel_timer(name)
                else:
                    self.driver.set_timer(name, at_ms)
            case Cancel():
                pass  # nothing the writer starts can be stopped half way; late answers are dropped by number
            case _:
                assert_never(effect)

    async def _stuck(self, trouble: InstepError | None) -> None:
        """This machine cannot carry out an effect now, or can again."""
        trouble = trouble or self.driver.stuck or self.rollout.driver.stuck
        if trouble is not None:
            await self._stands(stuck_standing(trouble))
        elif self._told is not None:
            await self._report(self._told)

    async def _report(self, effect: v.PublishReport) -> None:
        self._told = effect
        now = wall_ms()
        same = self.standing.standing is effect.standing and self.standing.code == effect.code
        since = self.standing.since_ms if same else now
        steps = effect.next_steps
        if effect.code == PATHS_HELD:
            steps = (*standing_steps(self.fileset, self.machine.facts.held.listed), *steps)
        await self._stands(StandingRecord(effect.standing, since, effect.reason, effect.code, steps))

    async def _stands(self, record: StandingRecord) -> None:
        self.standing = record
        reason = f": {record.reason}" if record.reason else ""
        log.info("%s stands %s%s", self.line, record.standing.value, reason)
        self.failures.stands(self.fileset, self.standing, self.head)
        self.runtime.tell()
        await self._net.report(self.line)

    # Questions of connections and commands --------------------------------------------------------------------

    @property
    def writer(self) -> NodeName:
        return self.runtime.name

    @property
    def head(self) -> HeadRef | None:
        """The newest head that was announced: no partner learns of a head before that."""
        return self._announced

    @property
    def live(self) -> HeadRef | None:
        """A writer's own tree is live with its head."""
        return self.head

    async def room(self) -> None:
        await self.driver.room()
        await self.rollout.driver.room()

    def known_definition(self) -> Definition | None:
        return self.definition

    def offers_to(self, partner: NodeName) -> bool:
        return self.fileset.offers_to(partner)

    def shelf(self) -> Shelf:
        return self.own.shelf()

    def changes_now(self, limit: int) -> tuple[ChangeDocument, ...]:
        return self.own.changes_now(self.head, limit) if self.head is not None else ()

    def place(self) -> Place:
        return self.tree.place()

    def root_now(self) -> Digest | None:
        """The root of the tree: the head's where the last look says so, else as a look by stat finds it."""
        head, report = self.head, self.machine.report
        if head is None:
            return None
        is_head = report is not None and report.standing is Standing.IN_STEP and report.code is None
        return head.root if is_head else self.own.found_root(head.root)

    def epochs_seen(self, source: NodeName, records: Sequence[SignedEpoch]) -> None:
        for epoch in unknown(records, self.facts.epochs):
            self.driver.post(v.EpochSeen(source, epoch, verdict_on(self.runtime, epoch.signature, epoch.id)))

    def head_seen(self, source: NodeName, head: Head) -> None:
        """A partner holds a head of this line: a writer with amnesia learns its own past."""
        self.epochs_seen(source, head.epochs)
        self.driver.post(told_head(self.runtime, source, head))

    def partner_told(self, source: NodeName) -> None:
        self.driver.post(v.PartnerSeen(source))

    def source_up(self, source: NodeName, link: object, head: HeadRef | None) -> None:
        """A writer has no source."""

    def source_down(self, source: NodeName, error: InstepError | None) -> None:
        """A writer has no source."""

    def reported(self, report: Report) -> None:
        self.rollout.reported(report)

    def partner_lost(self, who: NodeName) -> None:
        self.rollout.lost(who)

    def partners_changed(self) -> None:
        self.rollout.partners_changed()

    def order_given(self, source: NodeName, order: Order) -> None:
        """A writer ignores orders: it has no source, so no order reaches it."""

    def asked_to(self, what: str) -> None:
        """A writer ignores nudges."""

    def report_message(self) -> Report:
        return Report(self.line, self.runtime.name, self.head, self.head, self.standing, b"", wall_ms())

    async def retry(self) -> None:
        """An operator wants now what waits for its next try; a failed rollout begins anew, at every partner."""
        self.driver.post(v.RetryAsked())
        if self.rollout.has_failed:
            self._net.nudge(self.line, "retry")
            await self.rollout.begin_anew()

    def broke(self, error: Exception) -> None:
        """The machine broke an invariant: say so until the daemon is restarted."""
        self.standing = broken_standing(error)
        self.runtime.tell()

    async def test(self) -> tuple[TestRow, ...]:
        return await try_node(self)

    async def verify(self, *, is_deep: bool) -> VerifyReply:
        """Compare the tree with the head: a difference is unpublished, or damaged."""
        head = self.head
        if head is None:
            return VerifyReply(0, self.line, None, b"", 0)
        before = self.own.suspects()
        numbers = await self.worker.run(self.own.verify, head, is_deep)
        found = self.own.suspects() - before
        if found:
            self.driver.post(v.TreeChanged(tuple(sorted(found))))
        return VerifyReply(
            number=0,
            line=self.line,
            live=head,
            attested_root=head.root if numbers.total == 0 else b"",
            differing=numbers.total,
            differs=tuple(VerifyDifference(path, why) for path, why in numbers.sample[:DIFFERENCES_MAX]),
        )

    # Scan ---------------------------------------------------------------------------------------------------

    async def _scan(self, effect: v.Scan) -> v.PublishEvent:
        waiting = self._unscanned
        if self.tree.watch is not None:
            waiting.take_in(self.tree.watch.drain())
        is_full = not effect.paths or effect.base is None or effect.is_deep or waiting.is_everything
        touched = [*effect.paths, *waiting.entries]
        surveyed = await self.worker.run(self.own.survey, effect, is_full, waiting.trees, touched)
        waiting.scanned(surveyed.summary)
        self._pending = _Pending(surveyed, dict(self.own.contents))
        return v.TreeScanned(effect.req, surveyed.summary)

    # Commit -------------------------------------------------------------------------------------------------

    async def _commit(self, effect: v.Commit) -> v.PublishEvent:
        await self.worker.run(self.own.sync_history)
        head = commit(self, effect)
        self.own.hot.committed()
        pending = self._pending
        if pending is not None:
            self._unscanned.committed()
        if pending is not None and pending.surveyed.summary.root == head.root:
            bundle = bundle_of(pending.surveyed.pages, pending.contents)
            self.bundle = (head, bundle) if bundle is not None else self.bundle
        return v.Committed(effect.req, head)

    # Others -------------------------------------------------------------------------------------------------

    def head_message(self, to: NodeName | None, *, with_bundle: bool) -> Head | None:
        """The newest announced head as it travels."""
        if self.head is None:
            return None
        store = self.runtime.store
        signed = store.generation(self.head.id)
        assert signed is not None, self.head
        raw = store.get_blob(signed.body().definition)
        bundle = None
        if with_bundle and self.bundle is not None and self.bundle[0].id == self.head.id:
            bundle = self.bundle[1]
        return Head(
            line=self.line,
            generation=signed,
            epochs=records_of(self.runtime, self.line, self.facts.epochs),
            definition=raw or b"",
            bundle=bundle,
            writer=self.runtime.name,
        )

    def _policy(self) -> RolloutPolicy:
        """How the head goes through the partners: by its own definition, which they read, too."""
        definition = definition_of(self.runtime.store, self.head) or self.definition
        return decode_policy(definition.rollout)

    async def _announce(self, head: HeadRef) -> None:
        before, self._announced = self._announced, head
        message = self.head_message(None, with_bundle=True)
        assert message is not None
        self.runtime.tell()
        await self._net.announce(message)
        self.rollout.published(head, before, message.generation.body().author, self._policy())

    async def _hook(self, effect: RunHook) -> v.PublishEvent:
        paths = self._pending.surveyed.paths if self._pending is not None else self.restoring.paths
        trouble = await run_hook(self.runtime, self.fileset, effect, paths)
        return HookEnded(effect.req, effect.kind, trouble)

    async def _ask_partners(self, req: int) -> v.PublishEvent:
        return v.PartnersAnswered(req, await self._net.ask_partners(self.line))

    async def _fetch(self, effect: v.FetchPages) -> v.PublishEvent:
        await self._net.fetch_pages(self.line, effect.source, effect.head)
        return v.ManifestFetched(effect.req)

    async def _plan(self, effect: s.PlanRestore) -> s.WriterEvent:
        self._pending = None  # the scan from before is not the one that is going to be committed
        return await self.restoring.plan(effect)
