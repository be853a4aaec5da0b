"""The line of another home in a fileset of many: its heads and pages, and how it stands in the tree here.

It performs the effects of its ``KeepMachine``. Its contents lie in the tree of the union, and are served from there.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any, assert_never

import msgspec

from instep.api.parts import FailureDocument, WaitingDocument
from instep.core.heads import vocabulary as h
from instep.core.heads.words import OF_WORDS
from instep.core.keep import vocabulary as k
from instep.core.keep.machine import KeepMachine
from instep.core.vocabulary import (
    Cancel,
    FetchFailed,
    FetchPages,
    KeepEpoch,
    KeepGeneration,
    Note,
    Refuse,
    RetryAsked,
    SetTimer,
    Started,
    TimerFired,
    Trouble,
    trouble_of,
)
from instep.errors import InstepError, UnavailableError
from instep.model.definition import Definition, Mode
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, NodeName
from instep.model.standing import Standing, StandingRecord
from instep.net.messages import messages as m
from instep.net.service import HEADS, PAGES
from instep.node.config.filesets import FilesetSettings
from instep.node.following.home_link import home_link
from instep.node.following.offering import Offering
from instep.node.following.page_fetch import Fetcher, OfferedHeads, ask_for_heads
from instep.node.lines.epoch_records import overrules
from instep.node.lines.line_net import LineNet, Source
from instep.node.lines.line_service import LineService
from instep.node.lines.saved_facts import keep_facts
from instep.node.replica.port import UnionPort
from instep.node.runtime.driver import Driver, run_all, wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree, definition_of
from instep.node.trees.keeping.lending import Lending
from instep.node.trees.keeping.shelf import Shelf
from instep.node.trees.served_tree import ServedTree
from instep.node.trees.tree_comparison import Numbers


class KeptLine(LineService):
    """One per line of another home. ``union`` is the tree that it lies in, with the other lines."""

    is_written_here = False
    facts: k.KeepFacts
    machine: KeepMachine

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet, union: UnionPort) -> None:
        self._union = union
        super().__init__(runtime, fileset, net)
        self.facts = keep_facts(runtime.store, self.line)
        self.standing = StandingRecord(Standing.UNKNOWN, wall_ms(), "starting", "starting")
        self.offered = OfferedHeads(runtime, Mode.REPLICATE)
        self.lending = Lending(self.tree.contents)
        shown = partial(union.shown, self.line.origin)
        self._serving = ServedTree(self.tree, lambda path: union.doubt((shown(path),)), shown=shown)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._asking: set[tuple[NodeName, bool]] = set()
        self.machine = KeepMachine(self.line, self.config(), random.Random(), self.facts)
        self.driver: Driver[k.KeepEvent, Any] = Driver(
            f"keep {self.line}", self.machine, self._perform, TimerFired, runtime.directory.records
        )
        self.driver.on_stuck = self._stuck
        self._stand_of_heads: k.KeepStand | None = None
        view = FilesetTree(runtime, fileset, self.tree.worker)
        self.elsewhere = self.offering = Offering(
            view,
            partial(home_link, self),
            lambda: self.live,
            lambda told: union.owns(self.line.origin, told),
            self._keep,
        )

    def _new_tree(self) -> FilesetTree:
        return self._union.tree

    def config(self) -> k.KeepConfig:
        writer = self.fileset.writer
        return k.KeepConfig(
            writer=writer,
            poll_ms=self.runtime.settings.poll_ms,
            overrules=overrules(self.runtime.store, self.line, writer),
        )

    async def run(self) -> None:
        self.driver.begin(Started())
        await run_all(self.driver.run(), self.offering.run())

    @property
    def drivers(self) -> tuple[Driver[Any, Any], ...]:
        return (self.driver, self.offering.driver)

    def reconfigure(self, fileset: FilesetSettings) -> None:
        self.fileset = self.offering.tree.fileset = fileset
        self.offering.reconfigure(fileset)
        self.driver.post(k.KeepConfigChanged(self.config()))

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: Any) -> None:
        match effect:
            case k.SaveKept(facts):
                if facts.head is not None:
                    self._union.proved(self.line.origin)
                # Pages that are here are no promise to any node: the next union's save makes them durable first.
                is_more = facts != msgspec.structs.replace(
                    self.facts, kept=facts.kept, definition=facts.definition
                )
                self._save_facts(facts, None, is_live_new=False, durable=is_more)
                self.runtime.tell()
            case k.KeptHead():
                self._union.parts_changed()
            case k.KeepStand():
                self._stand_of_heads = effect
                await self.stand_anew()
            case h.OfferHead(source, _):
                link = self.sources.get(source)
                message = self.head_message(source, with_bundle=False)
                if link is not None and message is not None:
                    link.reply(message)
            case KeepGeneration() | KeepEpoch() | Refuse() | Note() | SetTimer():
                self._keep(effect)
            case Cancel(req):
                task = self._tasks.get(req)
                if task is not None:
                    task.cancel()
            case FetchPages(req=req):
                self._spawn(req, self._fetch(effect), partial(_fetch_failed, req))
            case h.AskHeads(source=source, is_repeated=again) if (source, again) in self._asking:
                pass  # a slow answer is waited for, not asked for twice
            case h.AskHeads(req=req, source=source, is_repeated=again):
                self._asking.add((source, again))
                asking = self._spawn(
                    req, self._ask(req, source, again), lambda t: h.AskFailed(req, source, t)
                )
                asking.add_done_callback(lambda _: self._asking.discard((source, again)))
            case _:
                assert_never(effect)

    def _spawn(
        self, req: int, work: Coroutine[Any, Any, k.KeepEvent], failed: Callable[[Trouble], k.KeepEvent]
    ) -> asyncio.Task[None]:
        task = self.driver.spawn(work, lambda error: failed(trouble_of(error)))
        self._tasks[req] = task
        task.add_done_callback(lambda _: self._tasks.pop(req, None))
        return task

    async def _ask(self, req: int, source: NodeName, is_repeated: bool) -> k.KeepEvent:
        client, known = self.source(source).client, self.facts.head
        for head in await ask_for_heads(client, self.line, known, is_repeated=is_repeated):
            self.head_seen(source, head)
        return h.HeadsAnswered(req, source)

    async def _fetch(self, effect: FetchPages) -> k.KeepEvent:
        client = self.source(effect.source).client
        self.offered.keep_wanted(effect.head)
        kept = self.facts.kept
        await Fetcher(self.runtime).pages(
            self.line,
            effect.head,
            kept.root if kept is not None else None,
            partial(client.call, PAGES),
            is_small=self.offered.has_small_bundle,
        )
        definition = definition_of(self.runtime.store, effect.head)
        if definition is None:
            await self.offered.fetch_definition(client, self.line, effect.head)
            definition = definition_of(self.runtime.store, effect.head)
        if definition is None:
            return h.HeadSuperseded(effect.req)
        return k.PartFetched(effect.req, definition.digest)

    # Standing -----------------------------------------------------------------------------------------------

    async def stand_anew(self) -> None:
        """Show how the line stands: what its sources say, and then what the tree holds of it."""
        told = self._stand_of_heads
        if told is None:
            return
        record = StandingRecord(told.standing, wall_ms(), told.reason, told.code, told.next_steps)
        here = self._union.stand_of(self.line.origin, told.head)
        if here is not None and (told.standing is Standing.IN_STEP or _outweighs(here, told)):
            record = here
        await self._stand(record)

    @property
    def head(self) -> HeadRef | None:
        return self.facts.head

    @property
    def live(self) -> HeadRef | None:
        return self._union.live_of(self.line.origin)

    @property
    def is_whole(self) -> bool:
        return self._union.is_whole

    @property
    def senders(self) -> tuple[NodeName, ...]:
        return tuple(sorted(self.sources)) or (self.writer,)

    def known_definition(self) -> Definition | None:
        return definition_of(self.runtime.store, self.facts.kept or self.facts.head)

    def definition_digest(self) -> Digest:
        return self.facts.definition or EMPTY_DIGEST

    def in_use(self) -> tuple[HeadRef, ...]:
        used = (self.facts.head, self.facts.kept, *self._union.used_of(self.line.origin))
        return tuple(head for head in used if head is not None)

    def report_message(self) -> m.Report:
        live, is_attested = self.live, self.standing.standing is Standing.IN_STEP
        return m.Report(
            self.line,
            self.runtime.name,
            live,
            self.facts.head,
            self.standing,
            attested_root=live.root if live is not None and is_attested else b"",
            at_ms=wall_ms(),
            tree=live,
        )

    def _head_for(self, to: NodeName | None) -> HeadRef | None:
        """The line's writer gets the newest accepted head, so that one with amnesia goes on above it; others the one
        whose contents are here."""
        return self.facts.head if to == self.writer else self.live

    def shelf(self) -> Shelf:
        return self._serving.shelf()

    # Messages -----------------------------------------------------------------------------------------------

    def head_seen(self, source: NodeName, head: m.Head) -> None:
        """Verify what can be verified outside the machine, then hand it in."""
        self.epochs_seen(source, head.epochs)
        verdict = self.offered.take(source, head)
        self.driver.post(h.HeadSeen(source, head.generation, verdict, head.beside))

    def source_up(self, source: NodeName, link: Source, head: HeadRef | None) -> None:
        self.sources[source] = link
        has = head.id if head is not None else None
        poll_ms, passes_words = self.own_poll_ms(source), "fresh" in link.takes
        self.driver.post(h.SourceUp(source, source == self.writer, has, poll_ms, passes_words))
        self._union.reachable(self.line.origin)
        self.offering.home_changed()

    def source_down(self, source: NodeName, error: InstepError | None) -> None:
        self.sources.pop(source, None)
        self.offering.home_changed()
        self.driver.post(h.SourceDown(source, trouble_of(error) if error is not None else None))

    def reported(self, report: m.Report) -> None:
        """Nodes behind this one report to the line's writer through here; nothing waits for them."""

    def partner_lost(self, who: NodeName) -> None:
        """Nothing here waits for a partner."""

    def asked_to(self, what: str) -> None:
        if what in ("retry", "resend"):
            self.driver.nudge()
            self.driver.post(RetryAsked())
            self._union.retry()

    def lock_ended(self, source: NodeName, news: m.LockNotice) -> None:
        """Believed of the writer, or of the hub that is asked in its place; a hub passes it on."""
        if (home := home_link(self)) is not None and source == home.name:
            self.offering.lock_ended(news)
            for node in filter(self.passes_changes_of, self._net.connected(self.line)):
                self._net.tell_holder(node, news)

    def passes_changes_of(self, partner: NodeName) -> bool:
        """Of every partner that may have the line, as a home of many homes takes them, unless some are named."""
        return not self.fileset.offers_from or super().passes_changes_of(partner)

    # Acts and looks -----------------------------------------------------------------------------------------

    async def retry(self) -> None:
        self.asked_to("retry")

    async def catch_up(self, limit_s: float) -> None:
        for link in list(self.sources.values()):
            request = m.HeadsRequest((m.KnownLine(self.line, self.facts.head),))
            try:
                reply = await link.client.call(HEADS, request, total_s=limit_s)
            except UnavailableError:
                continue
            for head in reply.heads:
                self.head_seen(link.name, head)
        self.driver.post(h.PollAsked())

    def not_in_step(self, target: HeadRef | None, nodes: Collection[NodeName]) -> tuple[WaitingDocument, ...]:
        goal, live = target or self.facts.head, self.live
        is_there = goal is not None and live is not None and live.position >= goal.position
        if is_there and self.standing.standing is Standing.IN_STEP:
            return ()
        return (WaitingDocument(self.runtime.name, self.standing.standing.value),)

    def why_never(self, target: HeadRef | None, nodes: Collection[NodeName]) -> FailureDocument | None:
        return None

    def progress_of(self, nodes: Collection[NodeName]) -> list[tuple[int, int]]:
        return []

    async def _verified(self, live: HeadRef, is_deep: bool) -> Numbers:
        return await self._union.verified(self.line.origin, is_deep=is_deep)


def _outweighs(here: StandingRecord, told: k.KeepStand) -> bool:
    """A tree that is not as the line says is said also while no source can be reached, or its home is not heard of."""
    is_unheard = told.standing is Standing.UNREACHABLE or told.code in OF_WORDS
    return is_unheard and here.standing in (Standing.BLOCKED, Standing.DRIFTED)


def _fetch_failed(req: int, trouble: Trouble) -> k.KeepEvent:
    """A source that no longer has a generation did not fail: the machine asks for the newer head."""
    return h.HeadSuperseded(req) if trouble.code == "superseded" else FetchFailed(req, trouble)
