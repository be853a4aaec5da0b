"""The writer's side of one line: performs the effects of its ``PublishMachine``."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from typing import Any, assert_never

from msgspec.structs import replace

from instep.api.looking import LineDocument
from instep.api.parts import FailureDocument, WaitingDocument
from instep.core.follow import vocabulary as f
from instep.core.guards.held import HeldPaths
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as v
from instep.core.publish.commit_facts import LastCommit
from instep.core.publish.machine import PublishMachine
from instep.core.publish.standing import PATHS_HELD
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
from instep.model.definition import Definition
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.rollout import RolloutPolicy, decode_policy
from instep.model.standing import Standing
from instep.net.messages.messages import Head, Report
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.hook_calls import note_hooks, run_hook
from instep.node.lines.line_net import Lender, LineNet
from instep.node.lines.line_service import LineService
from instep.node.lines.line_standing import RolloutNow, first_writer_standing
from instep.node.lines.saved_facts import publish_facts
from instep.node.runtime.draining import rollout_key
from instep.node.runtime.driver import Driver, wall_ms
from instep.node.runtime.requests import Requests
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import definition_of
from instep.node.trees.keeping.lending import Lending
from instep.node.trees.keeping.shelf import Shelf
from instep.node.trees.scanning.held_view import explained, held_of_line, standing_steps
from instep.node.trees.scanning.writer_scan import WriterScanned
from instep.node.trees.tree_comparison import Numbers
from instep.node.writing.balancer_check import BalancerCheck
from instep.node.writing.committing import bundle_of, commit, told_head, with_beside
from instep.node.writing.disk_watch import DiskWatch
from instep.node.writing.home import HomeService
from instep.node.writing.home_check import home_rows
from instep.node.writing.publish_config import publish_config
from instep.node.writing.restoring import Restoring
from instep.node.writing.rollout import RolloutService
from instep.node.writing.rollout_view import is_behind, rollout_now, status_document, why_never
from instep.node.writing.writer_tree import WriterTree
from instep.tree.archive.history import History
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place

HEAD_SAVED = register("publish.head_saved")


class WriterService(LineService):
    """One per fileset that is written here."""

    is_written_here = True
    facts: v.PublishFacts
    machine: PublishMachine

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet) -> None:
        assert fileset.definition is not None
        super().__init__(runtime, fileset, net)
        self.definition = fileset.definition
        self._pending: tuple[WriterScanned, dict[Digest, bytes]] | None = None
        """The last survey with the small contents that it read, until its root is committed or replaced."""
        self.own = self._new_own()
        self.restoring = Restoring(self.tree, self.own, net)
        self.lending = Lending(self.tree.contents)
        self.facts = publish_facts(runtime.store, self.line)
        self.standing = first_writer_standing(self.line, self.facts)
        self.tree.live = self.facts.head
        self._last_commit = LastCommit()
        self.machine = PublishMachine(self.line, self.config(), random.Random(), self.facts)
        self.driver: Driver[s.WriterEvent, s.WriterEffect] = Driver(
            f"publish {self.line}", self.machine, self._perform, TimerFired, runtime.directory.records
        )
        self._requests: Requests[s.WriterEvent, v.Outcome] = Requests(self.driver.post)
        self.home = self.changes = HomeService(
            runtime, self.tree, net, lambda: self.facts.head, self.machine, self.ask, self.driver.post
        )
        self.rollout = RolloutService(runtime, self.line, net)
        self.driver.on_stuck = self.rollout.driver.on_stuck = self._stuck
        self.balancer = BalancerCheck(runtime, self.golden, self.rollout)

    def _new_own(self) -> WriterTree:
        return WriterTree(self.tree, lambda event: self.driver.post(event))

    # Life ---------------------------------------------------------------------------------------------------

    def config(self) -> v.PublishConfig:
        return publish_config(self.tree)

    @property
    def drivers(self) -> tuple[Driver[Any, Any], ...]:
        return (self.driver, self.rollout.driver, self.changes.driver)

    async def run(self) -> None:
        self.runtime.draining.end(rollout_key(self.line.fileset))  # of the time when it was followed here
        self.rollout.begin(self.head, self._policy())
        self.driver.begin(v.Started())
        note_hooks(self.runtime.store, self.fileset, self.driver.post)
        disk = DiskWatch(self.tree, lambda: self.driver.post(v.DiskTurned()))
        try:
            begun = self.tree.begin_watch(
                self.definition,
                lambda paths, is_overflow: self.driver.post(v.TreeChanged(paths, is_overflow)),
                lambda trouble: self.driver.post(WatchChanged(trouble)),
            )
            changes = self.changes.run(self.facts.epoch)
            await self._run(begun, self.rollout.run(), self.balancer.run(), disk.run(), changes)
        finally:
            await self._end()
            await self.changes.close()
            self._requests.close()

    def reconfigure(self, fileset: FilesetSettings) -> None:
        assert fileset.definition is not None
        before, self.definition = self.definition, fileset.definition
        self.fileset = self.tree.fileset = self.golden.fileset = fileset
        if (before.ignore, before.include) != (fileset.definition.ignore, fileset.definition.include):
            self.tree.watch_anew(fileset.definition)
        self.driver.post(v.PublishConfigChanged(self.config()))
        self.changes.reconfigure()
        note_hooks(self.runtime.store, self.fileset, self.driver.post)
        self.rollout.reconfigure(self._policy())

    async def ask(self, make: Callable[[int], s.WriterEvent], timeout_s: float) -> v.Outcome:
        """Hand a numbered request to the machine and wait for its answer. ``make`` takes the number. Raises the
        trouble that keeps the machine from working."""
        await self.driver.hurry()
        return await self.driver.unless_stuck(self._requests.ask(make, timeout_s))

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: s.WriterEffect) -> None:  # noqa: C901 - one case an effect
        match effect:
            case v.SavePublish(saved):
                facts = self._last_commit.saved(saved)
                self._save_facts(facts, facts.head, is_live_new=facts.head is not None)
                failpoint(HEAD_SAVED)
                self.changes.saved(facts)
            case v.Scan(req=req):
                self._spawn(self._scan(effect), partial(v.ScanFailed, req))
            case v.Commit(req=req):
                self.facts = effect.facts
                self._spawn(self._commit(effect), partial(v.CommitFailed, req))
            case s.PlanRestore(req=req):
                self._spawn(self._plan(effect), partial(s.PlanFailed, req))
            case s.Restore(req=req):
                self._spawn(self.changes.alone(self.restoring.restore(effect)), partial(s.RestoreFailed, req))
            case s.Recover(req=req):
                failed = self.restoring.failed_recovery
                self.driver.spawn(self.changes.recover(req), lambda e: s.RecoverFailed(req, failed(e)))
            case RunHook(req=req):
                self._spawn(self._hook(effect), partial(HookEnded, req, effect.kind))
            case v.AskPartners(req):
                self._spawn(self._ask_partners(req), lambda _: v.PartnersAnswered(req, ()))
            case v.FetchPages(req=req):
                self._spawn(self._fetch(effect), partial(v.FetchFailed, req))
            case v.Announce(head):
                await self._announce(head)
            case v.GiveAnswer(request, outcome):
                self._requests.answer(request, outcome)
            case v.PublishReport():
                await self._report(effect)
            case KeepGeneration() | KeepEpoch() | Refuse() | Note() | SetTimer():
                self._keep(effect)
            case Cancel():
                pass  # nothing the writer starts can be stopped half way; late answers are dropped by number
            case _:
                assert_never(effect)

    def _spawn(
        self, work: Coroutine[Any, Any, s.WriterEvent], failed: Callable[[Trouble], s.WriterEvent]
    ) -> None:
        self.driver.spawn(work, lambda error: failed(trouble_of(error)))

    def _steps(self, told: f.FollowReport | v.PublishReport) -> tuple[str, ...]:
        if told.code != PATHS_HELD:
            return told.next_steps
        return (*standing_steps(self.fileset, self.not_carried[0].listed), *told.next_steps)

    # Questions of connections and commands --------------------------------------------------------------------

    @property
    def head(self) -> HeadRef | None:
        """The newest head that was announced: no partner learns of a head before that."""
        return self.tree.live

    @property
    def live(self) -> HeadRef | None:
        """A writer's own tree is live with its head."""
        return self.tree.live

    @property
    def held_head(self) -> HeadRef | None:
        return self.facts.head

    @property
    def not_carried(self) -> tuple[HeldPaths, HeldPaths]:
        return self.machine.facts.held, self.machine.facts.reported

    @property
    def history(self) -> History:
        return self.tree.history

    def known_definition(self) -> Definition:
        return self.definition

    def in_use(self) -> tuple[HeadRef, ...]:
        since = [checkpoint.head for checkpoint in self.facts.checkpoints]
        return (*since, *(head for head in (self.head, self.facts.head) if head is not None))

    async def root_now(self) -> Digest | None:
        """The root of the tree: the head's where the last look says so, else as a look by stat finds it."""
        head, report = self.head, self.machine.report
        if head is None:
            return None
        is_head = report is not None and report.standing is Standing.IN_STEP and report.code is None
        return head.root if is_head else await self.worker.run(self.own.found_root, head)

    def own_rows(self, place: Place) -> tuple[tuple[str, bool, str, str], ...]:
        return home_rows(self.fileset, place)

    def lenders(self) -> tuple[Lender, ...]:
        return self._net.lenders(self.line)

    async def retry(self) -> None:
        """A failed rollout begins anew, at every partner."""
        self.driver.post(v.RetryAsked())
        if self.rollout.has_failed:
            self._net.nudge(self.line, "retry")
            await self.rollout.begin_anew()

    async def begin_rollout_anew(self) -> None:
        await self.rollout.begin_anew()

    async def catch_up(self, limit_s: float) -> Trouble | None:
        try:
            outcome = await self.ask(partial(v.PublishAsked, is_flush=True, is_whole=True), limit_s)
        except TimeoutError:
            return self.machine.waits_for_path  # else the wait that follows names the nodes it waits for
        return outcome.trouble if isinstance(outcome, v.NotPublished) else None

    def not_in_step(self, target: HeadRef | None, nodes: Collection[NodeName]) -> tuple[WaitingDocument, ...]:
        if target is None:
            return (WaitingDocument(self.runtime.name, "nothing published yet"),)
        reports, waiting = self.reports(), list[WaitingDocument]()
        for name in sorted(nodes):
            report = reports.get(name)
            if report is None or not self._net.has_reported(self.line, name):
                waiting.append(WaitingDocument(name, Standing.UNKNOWN.value))
            elif is_behind(report, target):
                waiting.append(WaitingDocument(name, report.standing.standing.value))
        return tuple(waiting)

    def why_never(self, target: HeadRef | None, nodes: Collection[NodeName]) -> FailureDocument | None:
        """The rollout of the target failed, or a node refused it."""
        reports = {name: report for name, report in self.reports().items() if name in nodes}
        return None if target is None else why_never(self.rollout.facts, target, reports)

    def rollout_now(self) -> RolloutNow:
        return rollout_now(self.rollout.facts, self.rollout.view, self.head, self.reports())

    def progress_of(self, nodes: Collection[NodeName]) -> list[tuple[int, int]]:
        return [(r.done_bytes, r.total_bytes) for name, r in self.reports().items() if name in nodes]

    def held_fields(self) -> dict[str, Any]:
        return held_of_line(self.fileset, self.facts)

    def explained(self, path: bytes | None) -> Mapping[str, Any]:
        return explained(self.fileset, self.facts, path)

    def status_of(self, line: LineDocument) -> LineDocument:
        shown = status_document(self.line, self.rollout.facts, self.rollout.view)
        return replace(line, rollout=shown, **self.held_fields())

    async def _verified(self, live: HeadRef, is_deep: bool) -> Numbers:
        """A difference is unpublished, or damaged."""
        before = self.own.suspects()
        numbers = await self.worker.run(self.own.verify, live, is_deep)
        found = self.own.suspects() - before
        if found:
            self.driver.post(v.TreeChanged(tuple(sorted(found))))
        return numbers

    def offers_to(self, partner: NodeName) -> bool:
        return self.fileset.offers_to(partner)

    def shelf(self) -> Shelf:
        return self.own.serving.shelf()

    def report_message(self) -> Report:
        return Report(self.line, self.runtime.name, self.head, self.head, self.standing, b"", wall_ms())

    def _head_for(self, to: NodeName | None) -> HeadRef | None:
        return self.head

    def with_beside(self, message: Head, known: HeadRef | None) -> Head:
        return with_beside(message, self.runtime, self.facts, known)

    def head_seen(self, source: NodeName, head: Head) -> None:
        """A partner holds a head of this line: a writer with amnesia learns its own past."""
        self.epochs_seen(source, head.epochs)
        self.driver.post(told_head(self.runtime, source, head))

    def partner_told(self, source: NodeName) -> None:
        self.driver.post(v.PartnerSeen(source))

    def partner_lost(self, who: NodeName) -> None:
        self.rollout.lost(who)

    def partners_changed(self) -> None:
        self.rollout.partners_changed()

    def reported(self, report: Report) -> None:
        self.rollout.reported(report)

    # Scan and commit ----------------------------------------------------------------------------------------

    async def _scan(self, effect: v.Scan) -> v.PublishEvent:
        waiting = self.tree.touched
        self.tree.take_touched()
        is_full = effect.is_full or waiting.is_everything
        touched = [*effect.paths, *waiting.entries]
        surveyed = await self.worker.run(self.own.survey, effect, is_full, waiting.trees, touched)
        waiting.scanned(surveyed.summary)
        self._pending = surveyed, dict(self.own.contents)
        self.changes.own_edits(surveyed.paths)
        by_hooks = self.tree.hook_writes.alone(surveyed.paths)
        return v.TreeScanned(effect.req, replace(surveyed.summary, hook_writes=by_hooks))

    async def _commit(self, effect: v.Commit) -> v.PublishEvent:
        effect = await self.worker.run(self.own.before_commit, effect, self._pending and self._pending[0])
        known = self.facts, self._last_commit, self.definition
        head, self.facts = commit(self.line, self.runtime, *known, effect)
        self.own.hot.committed()
        self.changes.head_moved()
        await self.changes.locked.committed(head)
        if self._pending is not None:
            surveyed, contents = self._pending
            self.tree.touched.clear()
            bundle = bundle_of(surveyed.pages, contents) if surveyed.summary.root == head.root else None
            self.bundle = (head, bundle) if bundle is not None else self.bundle
        return v.Committed(effect.req, head)

    # Others -------------------------------------------------------------------------------------------------

    def _policy(self) -> RolloutPolicy:
        """How the head goes through the partners: by its own definition, which they read, too."""
        definition = definition_of(self.runtime.store, self.head) or self.definition
        return decode_policy(definition.rollout)

    async def _announce(self, head: HeadRef) -> None:
        before, self.tree.live = self.tree.live, head
        message = self.head_message(None, with_bundle=True)
        assert message is not None
        self.runtime.tell()
        await self._net.announce(message)
        self.rollout.published(head, before, message.generation.body().author, self._policy())

    async def _hook(self, effect: RunHook) -> v.PublishEvent:
        paths = self._pending[0].paths if self._pending is not None else self.restoring.paths
        trouble = await run_hook(self.tree, effect, paths)
        if effect.kind is HookKind.RELOAD:
            await self.changes.drain.give_back()
        return HookEnded(effect.req, effect.kind, trouble)

    async def _ask_partners(self, req: int) -> v.PublishEvent:
        return v.PartnersAnswered(req, await self._net.ask_partners(self.line))

    async def _fetch(self, effect: v.FetchPages) -> v.PublishEvent:
        await self._net.fetch_pages(self.line, effect.source, effect.head)
        return v.ManifestFetched(effect.req)

    async def _plan(self, effect: s.PlanRestore) -> s.WriterEvent:
        self._pending = None  # the scan from before is not the one that is going to be committed
        return await self.restoring.plan(effect)
