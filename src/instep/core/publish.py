"""The ``PublishMachine``: turns the tree of one own line into generations, and refuses to publish a disaster.

``scan -> guards -> validate -> reload -> commit -> announce``. Level triggered, one job at a time. Requests
of operators carry numbers; those that wait when a scan starts share it, and each gets exactly one answer. A
writer with amnesia learns its own newer heads from its partners and goes on above them. Implements design
section 5.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import assert_never

import msgspec

from instep.core import publish_vocabulary as p
from instep.core.accept import AcceptedEpoch, Refused, judge_epoch, word_of
from instep.core.backoff import Backoff, Chance
from instep.core.guards import judge_deletions, judge_problems
from instep.core.publish_standing import PublishSeen, publish_stand_of
from instep.core.publish_vocabulary import (
    PublishAnswer,
    PublishConfig,
    PublishEffect,
    PublishEvent,
    PublishFacts,
    PublishMode,
    ScanSummary,
)
from instep.core.right_to_write import owes_a_generation, why_not_writer
from instep.core.unpublished import YOUNG_MS, Unpublished
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
)
from instep.errors import PeerError, Retry
from instep.model.ids import HeadRef, LineId, NodeName

__all__ = ["PublishMachine"]

ADOPT_TRIES_MAX = 5
"""So often the pages of an adopted head are asked for."""

REQUESTS_MAX = 64
"""Requests waiting at once; more are answered with ``busy``."""


_EARLY = (KeepGeneration, KeepEpoch, Cancel)
"""Effects that name nothing which is not durable: they come before the ``Save`` of their step."""


class _Phase(enum.Enum):
    SCAN = "scan"
    VALIDATE = "validate"
    RELOAD = "reload"
    COMMIT = "commit"
    RESTORE = "restore"
    FETCH = "fetch"


@dataclass(frozen=True, slots=True)
class _Job:
    req: int
    phase: _Phase


@dataclass(slots=True)
class _Run:
    """One way from scan to announcement, for the requests that waited when it began."""

    parent: HeadRef | None
    base: HeadRef | None
    requests: tuple[p.PublishAsked, ...]
    rollback: p.RollbackAsked | None = None
    summary: ScanSummary | None = None
    is_validated: bool = False
    is_reloaded: bool = False
    committing: PublishFacts | None = None

    @property
    def is_asked(self) -> bool:
        return self.rollback is not None or bool(self.requests)

    @property
    def is_dry(self) -> bool:
        return bool(self.requests) and self.requests[0].is_dry_run

    @property
    def accepts_deletions(self) -> bool:
        return self.rollback is not None or any(r.accept_deletions for r in self.requests)

    @property
    def numbers(self) -> tuple[int, ...]:
        own = () if self.rollback is None else (self.rollback.request,)
        return (*own, *(r.request for r in self.requests))


_Request = p.PublishAsked | p.RollbackAsked


class PublishMachine:
    """One own line. ``rng`` is for jitter; ``facts`` are what ``Save`` carried last."""

    def __init__(
        self, line: LineId, config: PublishConfig, rng: Chance, facts: PublishFacts | None = None
    ) -> None:
        self.line = line
        self._config = config
        self._facts = facts or PublishFacts()
        self._saved: PublishFacts | None = self._facts
        self._now = 0
        self._out: list[PublishEffect] = []
        self._last_req = 0
        self._is_started = False
        self._job: _Job | None = None
        self._run: _Run | None = None
        self._requests: list[_Request] = []
        self._unpublished = Unpublished()
        self._due_shown: int | None = None
        self._backoff = Backoff(rng)
        self._trouble: Trouble | None = None
        self._offer_trouble: Trouble | None = None
        self._ask_req: int | None = None
        self._ask_until_ms = 0
        self._is_asked = False
        self._is_surveyed = False
        self._pages_from: dict[NodeName, None] = {}
        self._adopt_tries = 0
        self._announced: HeadRef | None = None
        self._reported: p.Report | None = None

    @property
    def facts(self) -> PublishFacts:
        return self._facts

    @property
    def report(self) -> p.Report | None:
        return self._reported

    @property
    def phase(self) -> str | None:
        """What is being done now, for status; None when at rest."""
        return self._job.phase.value if self._job else None

    def step(self, event: PublishEvent, now_ms: int) -> tuple[PublishEffect, ...]:
        """The only door: take in one event, begin what is missing, return the effects in order."""
        self._now = now_ms
        self._out = []
        self._take(event)
        if self._is_started:
            if self._job is None:
                self._begin_next()
            self._show_due()
            self._announce()
            self._tell()
        return self._ordered()

    # --- events ---------------------------------------------------------------------------------------------

    def _take(self, event: PublishEvent) -> None:  # noqa: C901  one line a kind
        match event:
            case p.Started():
                self._start()
            case p.ConfigChanged():
                self._configure(event.config)
            case p.TreeChanged():
                self._unpublished.touch(
                    event.paths, self._now, everything=event.is_overflow, trigger=self._config.trigger
                )
            case p.PublishAsked() | p.RollbackAsked():
                self._asked(event)
            case p.HeadOfOursSeen():
                self._head_of_ours(event)
            case p.EpochSeen():
                self._epoch_seen(event)
            case p.PartnersAnswered():
                if event.req == self._ask_req:
                    self._ask_req = None
                    self._partners_answered(event.answered)
            case p.PartnerSeen():
                self._partners_answered((event.source,))
            case p.Paused():
                self._set(
                    is_paused=True, paused_reason=event.reason, paused_until_wall_ms=event.until_wall_ms
                )
            case p.Resumed():
                self._set(is_paused=False, paused_reason="", paused_until_wall_ms=None)
            case p.RetryAsked():
                self._backoff.clear_all()
                self._unpublished.touch((), self._now, everything=True)
            case TimerFired():
                self._timer(event.name)
            case _:
                job = self._job
                if job is not None and job.req == event.req:
                    self._job = None
                    self._take_answer(job, event)

    def _take_answer(self, job: _Job, event: PublishAnswer) -> None:
        match event:
            case p.Scanned():
                self._scanned(event.summary)
            case p.ScanFailed() | p.RestoreFailed():
                self._fail_run(event.trouble)
            case p.CommitFailed():
                self._saved = None
                self._fail_run(event.trouble)
            case HookEnded():
                self._hook_ended(job, event)
            case p.Committed():
                self._committed(event.head)
            case p.Restored():
                pass
            case p.PagesFetched():
                self._backoff.clear("adopt")
                self._trouble = None
                self._pages_from.clear()
                self._adopt_tries = 0
                self._set(has_pages=True, base=self._facts.head)
                self._unpublished.touch((), self._now, everything=True)
            case p.FetchFailed():
                self._trouble = event.trouble
                self._hold_back("adopt")
                source = next(iter(self._pages_from))
                self._pages_from[source] = self._pages_from.pop(source)
                self._give_up_pages()
            case _:
                assert_never(event)

    def _start(self) -> None:
        self._is_started = True
        self._unpublished.touch((), self._now, everything=True)
        self._arm_rescan()
        self._ask_partners()

    def _configure(self, config: PublishConfig) -> None:
        if config == self._config:
            return
        old, self._config = self._config, config
        self._backoff.clear_all()
        if self._is_started:
            self._unpublished.touch((), self._now, everything=True)
            self._arm_rescan()
            if set(config.partners) - set(old.partners):
                self._ask_partners()

    def _asked(self, event: _Request) -> None:
        refusal = self._refusal()
        if refusal is not None:
            self._out.append(p.Answer(event.request, p.NotPublished(refusal)))
        elif isinstance(event, p.PublishAsked) and event.is_flush and self._config.mode is PublishMode.MANUAL:
            self._out.append(p.Answer(event.request, p.Unchanged(self._facts.head)))
        else:
            self._requests.append(event)
            self._backoff.clear("publish")
            if self._is_first_held and not (isinstance(event, p.PublishAsked) and event.is_flush):
                self._set(was_confirmed=True)

    def _refusal(self) -> Trouble | None:
        if len(self._requests) >= REQUESTS_MAX:
            return Trouble("busy", "too many publish requests wait already", Retry.LATER, 6)
        if self._facts.is_paused:
            resume = f"instep resume {self.line.fileset}"
            return Trouble(
                "paused", self._facts.paused_reason or "publishing is paused here", Retry.NEVER, 4, resume
            )
        return self._not_the_writer()

    def _not_the_writer(self) -> Trouble | None:
        return why_not_writer(self.line, self._facts, self._config.node)

    def _timer(self, name: str) -> None:
        if name == "settle":
            self._due_shown = None
        elif name == "young":
            if self._config.mode is PublishMode.AUTO and self._unpublished.is_dirty:
                self._unpublished.touch((), self._now)
        elif name == "rescan":
            self._unpublished.touch((), self._now, everything=True)
            self._arm_rescan()
            self._ask_partners()
        elif name == "ask":
            self._is_asked = self._is_asked or self._now >= self._ask_until_ms
            if not self._facts.was_confirmed:
                self._ask_partners()
        elif name == "retry-publish":
            self._backoff.come_due("publish")
            self._unpublished.touch((), self._now)
        elif name == "retry-adopt":
            self._backoff.come_due("adopt")

    def _arm_rescan(self) -> None:
        self._out.append(SetTimer("rescan", self._now + self._config.rescan_ms))

    # --- partners and our own past --------------------------------------------------------------------------

    def _ask_partners(self) -> None:
        if not self._config.partners:
            self._is_asked = True
            return
        self._last_req += 1
        self._ask_req = self._last_req
        self._ask_until_ms = self._now + self._config.ask_wait_ms
        self._out.append(p.AskPartners(self._ask_req))
        self._out.append(SetTimer("ask", self._ask_until_ms))

    def _partners_answered(self, answered: tuple[NodeName, ...]) -> None:
        if not answered:
            return
        self._is_asked = True
        if not self._facts.was_confirmed:
            self._set(was_confirmed=True)

    def _head_of_ours(self, event: p.HeadOfOursSeen) -> None:
        """A head of this line at a partner: when it is ours and not below what we know, it is our parent."""
        try:
            ref = event.signed.ref()
            is_this_line = event.signed.body().line == self.line
        except PeerError as error:
            self._refuse(event.source, error.error_code, error.reason)
            return
        head = self._facts.head
        if not is_this_line:
            self._refuse(
                event.source, "wrong_line", "a generation of another line was offered as one of ours"
            )
        elif not event.verdict.is_valid:
            self._refuse(event.source, event.verdict.code or "bad_signature", event.verdict.reason)
        elif head is not None and ref.position < head.position:
            pass
        elif head is not None and ref == head:
            if not self._facts.has_pages:
                self._pages_from[event.source] = None
        elif event.verdict.signer != self._config.node and not self._is_our_base(ref):
            self._refuse(event.source, "not_ours", f"{event.verdict.signer} signed generation {ref.number}")
        else:
            self._adopt(ref, event)

    def _is_our_base(self, ref: HeadRef) -> bool:
        """Another writer's generation that our own epoch builds on: part of our past like what we signed."""
        current = self._facts.epochs.current
        return current is not None and current.writer == self._config.node and ref.id == current.base

    def _adopt(self, ref: HeadRef, event: p.HeadOfOursSeen) -> None:
        highest = max(self._facts.highest, ref.number)
        self._out.append(KeepGeneration(event.signed))
        self._set(head=ref, highest=highest, epoch=max(self._facts.epoch, ref.epoch), has_pages=False)
        self._pages_from = {event.source: None}
        self._backoff.clear("adopt")
        if self._job is not None and self._job.phase in (_Phase.SCAN, _Phase.FETCH):
            self._out.append(Cancel(self._job.req))
            self._job = None
        self._unpublished.touch((), self._now, everything=True)
        self._out.append(
            Note(
                "adopted",
                f"{event.source} holds our generation {ref.number} of epoch {ref.epoch}, which is not known "
                "here: it becomes the parent of what this node publishes next",
                (("source", event.source), ("generation", ref.number)),
            )
        )

    def _give_up_pages(self) -> None:
        """Nobody has the pages of the adopted head: its name and number are enough to go on above it."""
        self._adopt_tries += 1
        if self._adopt_tries < ADOPT_TRIES_MAX:
            return
        self._adopt_tries = 0
        self._trouble = None
        self._pages_from.clear()
        self._set(has_pages=True)
        self._unpublished.touch((), self._now, everything=True)

    def _epoch_seen(self, event: p.EpochSeen) -> None:
        epochs, config = self._facts.epochs, self._config
        word = word_of(config.node, epochs, overrules=config.overrules)
        judged = judge_epoch(event.signed, event.verdict, self.line, epochs, word)
        if isinstance(judged, AcceptedEpoch):
            self._out.append(KeepEpoch(event.signed))
            self._set(epochs=judged.book)
            current = judged.book.current
            if current is not None and current.writer == self._config.node and judged.book.disputed is None:
                self._set(epoch=max(self._facts.epoch, current.epoch))
            self._out.append(Note("epoch", f"{judged.body.writer} writes epoch {judged.body.epoch}"))
        elif isinstance(judged, Refused):
            self._out.append(Refuse(event.source, judged.trouble))

    def _refuse(self, source: NodeName, code: str, reason: str) -> None:
        self._out.append(Refuse(source, Trouble(code, reason, Retry.NEVER, 9)))

    # --- answers of a run -----------------------------------------------------------------------------------

    def _scanned(self, summary: ScanSummary) -> None:
        run = self._run
        assert run is not None
        run.summary = summary
        self._is_surveyed = True
        if summary.unsettled:
            self._unpublished.remember(summary.unsettled)
            self._out.append(SetTimer("young", self._now + YOUNG_MS))
        refusal = judge_problems(summary.problems) or judge_deletions(
            summary.removed - summary.moved,
            summary.entries_before,
            self._config.deletions,
            accepted=run.accepts_deletions,
        )
        if run.is_dry:
            would = p.WouldPublish(
                summary.added, summary.changed, summary.removed, summary.changed_bytes, refusal
            )
            self._unpublished.give_back()
            self._end_run(would)
        elif refusal is not None:
            self._fail_run(refusal)
        elif self._is_unchanged(run, summary):
            self._succeed()
            self._end_run(p.Unchanged(self._facts.head))

    def _is_unchanged(self, run: _Run, summary: ScanSummary) -> bool:
        if run.parent != run.base:
            # Our newest generation is known by name only: what is here has to stand above it.
            return False
        if owes_a_generation(self._facts, self._config.node):
            return False
        if run.base is None:
            # An empty tree is a first generation only when somebody asked for it by hand.
            return summary.entries == 0 and not any(not r.is_flush for r in run.requests)
        return not (summary.added or summary.changed or summary.removed or summary.definition_changed)

    def _hook_ended(self, job: _Job, event: HookEnded) -> None:
        run = self._run
        assert run is not None
        if event.trouble is not None:
            self._fail_run(_hook_trouble(event.kind, event.trouble))
        elif job.phase is _Phase.VALIDATE:
            run.is_validated = True
        else:
            run.is_reloaded = True

    def _committed(self, head: HeadRef) -> None:
        run = self._run
        assert run is not None
        assert run.summary is not None
        assert run.committing is not None
        if run.parent != self._facts.head:
            # A newer head of ours was adopted meanwhile: what was just committed is not announced.
            self._drop_run()
            return
        if self._saved == run.committing:
            self._saved = msgspec.structs.replace(run.committing, head=head, base=head)
        self._set(head=head, base=head)
        summary = run.summary
        self._succeed()
        self._out.append(
            Note(
                "published",
                f"generation {head.number}: {summary.added} added, {summary.changed} changed, "
                f"{summary.removed} removed",
                (("generation", head.number), ("author", run.requests[0].author if run.requests else "")),
            )
        )
        self._end_run(
            p.Published(head, summary.added, summary.changed, summary.removed, summary.changed_bytes)
        )

    def _fail_run(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._unpublished.give_back()
        self._hold_back("publish")
        self._end_run(p.NotPublished(trouble))

    def _end_run(self, outcome: p.Outcome) -> None:
        run = self._run
        assert run is not None
        self._run = None
        for number in run.numbers:
            self._out.append(p.Answer(number, outcome))

    def _succeed(self) -> None:
        self._trouble = None
        self._backoff.clear("publish")
        self._out.append(SetTimer("retry-publish", None))

    # --- what is missing ------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        if not self._facts.has_pages and self._is_fetching_pages():
            return
        if self._run is not None and (
            self._run.parent != self._facts.head
            or self._facts.is_paused
            or self._not_the_writer() is not None
        ):
            self._drop_run()
        if self._run is None and not self._is_run_begun():
            return
        assert self._run is not None
        self._go_on(self._run)

    def _is_fetching_pages(self) -> bool:
        """Fetch the adopted head's pages; True always, since nothing can be scanned against it before."""
        if self._pages_from and self._backoff.is_ready("adopt", self._now):
            assert self._facts.head is not None
            source = next(iter(self._pages_from))
            self._out.append(p.FetchPages(self._begin(_Phase.FETCH), source, self._facts.head))
        return True

    def _drop_run(self) -> None:
        """The head moved below this run: its requests wait for the next one."""
        assert self._run is not None
        back: list[_Request] = list(self._run.requests)
        if self._run.rollback is not None:
            back.append(self._run.rollback)
        self._requests = back + self._requests
        self._unpublished.give_back()
        self._run = None

    def _is_run_begun(self) -> bool:
        """Begin a run for what waits: a rollback first, then requests, then what is due by itself."""
        if self._facts.is_paused or self._not_the_writer() is not None:
            self._answer_all_refused()
            return False
        if not self._is_asked:
            return False
        rollback = next((r for r in self._requests if isinstance(r, p.RollbackAsked)), None)
        if rollback is not None:
            self._requests.remove(rollback)
            self._run = _Run(self._facts.head, self._facts.base, (), rollback)
            self._out.append(p.Restore(self._begin(_Phase.RESTORE), rollback.target, self._facts.base))
            self._unpublished.remember((), everything=True)
            return True
        asked = [r for r in self._requests if isinstance(r, p.PublishAsked)]
        if asked:
            shared = tuple(
                r for r in asked if r.is_dry_run == asked[0].is_dry_run and not asked[0].is_dry_run
            )
            shared = shared or (asked[0],)
            self._requests = [r for r in self._requests if r not in shared]
            self._run = _Run(self._facts.head, self._facts.base, shared)
            return True
        if not self._is_due():
            return False
        self._run = _Run(self._facts.head, self._facts.base, ())
        return True

    def _answer_all_refused(self) -> None:
        waiting, self._requests = self._requests, []
        for request in waiting:
            refusal = self._refusal()
            assert refusal is not None
            self._out.append(p.Answer(request.request, p.NotPublished(refusal)))

    def _is_due(self) -> bool:
        if not self._backoff.is_ready("publish", self._now):
            return False
        if owes_a_generation(self._facts, self._config.node):
            return True
        if self._config.mode is PublishMode.MANUAL:
            return False
        if self._is_first_held:
            return False
        due = self._due_ms()
        return due is not None and due <= self._now

    @property
    def _is_first_held(self) -> bool:
        """An empty store may be amnesia: no first generation by itself before a partner answered."""
        return self._facts.head is None and not self._facts.was_confirmed and bool(self._config.partners)

    def _go_on(self, run: _Run) -> None:
        """Begin the next step of the run."""
        if self._job is not None:
            return
        config, summary = self._config, run.summary
        if summary is None:
            is_full = not config.is_watching or any(r.is_full for r in run.requests)
            if is_full:
                self._unpublished.remember((), everything=True)
            paths = self._unpublished.take()
            self._out.append(p.Scan(self._begin(_Phase.SCAN), run.base, paths))
            return
        if config.has_validate and not run.is_validated:
            self._out.append(RunHook(self._begin(_Phase.VALIDATE), HookKind.VALIDATE, None, run.base))
        elif config.has_reload and not run.is_reloaded:
            self._out.append(RunHook(self._begin(_Phase.RELOAD), HookKind.RELOAD, None, run.base))
        else:
            self._commit(run, summary)

    def _commit(self, run: _Run, summary: ScanSummary) -> None:
        number = self._facts.highest + 1
        asked = run.rollback or next((r for r in run.requests if r.message or r.author), None)
        self._set(highest=number)
        run.committing = self._facts
        self._out.append(
            p.Commit(
                self._begin(_Phase.COMMIT),
                self._facts.epoch,
                number,
                run.parent,
                summary.root,
                summary.entries,
                summary.size_bytes,
                asked.author if asked else "",
                asked.message if asked else "",
                run.committing,
            )
        )

    # --- small parts ----------------------------------------------------------------------------------------

    def _due_ms(self) -> int | None:
        config = self._config
        return self._unpublished.due_ms(config.settle_ms, config.settle_max_ms, config.trigger_max_ms)

    def _show_due(self) -> None:
        """Keep the settle timer at the moment when the next scan is due."""
        due = None if self._config.mode is PublishMode.MANUAL or self._job is not None else self._due_ms()
        if due is not None and due <= self._now:
            # Something else holds it back (a back-off, a pause, an unanswered question), and wakes us.
            due = None
        if due != self._due_shown:
            self._due_shown = due
            self._out.append(SetTimer("settle", due))

    def _announce(self) -> None:
        head = self._facts.head
        if head is not None and head == self._facts.base and head != self._announced:
            self._announced = head
            self._out.append(p.Announce(head))

    def _set(self, **changes: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **changes)

    def _begin(self, phase: _Phase) -> int:
        assert self._job is None
        self._last_req += 1
        self._job = _Job(self._last_req, phase)
        return self._last_req

    def _hold_back(self, key: str) -> None:
        at = self._backoff.fail(key, self._now, self._config.retry_min_ms, self._config.retry_max_ms)
        self._out.append(SetTimer(f"retry-{key}", at))

    def _tell(self) -> None:
        seen = PublishSeen(
            is_working=self._job is not None and self._job.phase is not _Phase.SCAN,
            trouble=self._not_the_writer() or self._trouble,
            is_first_held=self._is_first_held,
            is_fetching=not self._facts.has_pages,
            is_unpublished=self._config.mode is p.PublishMode.MANUAL and self._unpublished.is_touched,
            is_surveyed=self._is_surveyed or self._config.mode is p.PublishMode.MANUAL,
        )
        report = publish_stand_of(self.line, self._facts, seen)
        if report != self._reported:
            self._reported = report
            self._out.append(report)

    def _ordered(self) -> tuple[PublishEffect, ...]:
        """The effects with at most one ``Save``, before everything that depends on it. ``Commit`` saves
        too."""
        commit = next((e for e in self._out if isinstance(e, p.Commit)), None)
        if commit is not None:
            self._saved = commit.facts
            return tuple(self._out)
        if self._saved == self._facts:
            return tuple(self._out)
        self._saved = self._facts
        early = [e for e in self._out if isinstance(e, _EARLY)]
        late = [e for e in self._out if not isinstance(e, _EARLY)]
        return (*early, p.Save(self._facts), *late)


def _hook_trouble(kind: HookKind, trouble: Trouble) -> Trouble:
    reason = f"the {kind.value} hook failed: {trouble.reason}"
    return replace(trouble, code=f"{kind.value}_failed", reason=reason, retry=Retry.LATER)
