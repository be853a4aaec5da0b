"""The ``KeepMachine``: keeps the newest head of another home's line with all its pages, for the union of all lines.

It has no tree: it takes heads and epoch records, fetches the pages of the newest head, and says so. Which head that is,
and which source is asked, is decided in ``core/heads``. One job at a time, and level triggered, as every machine of a
line.
"""

from __future__ import annotations

from typing import assert_never

from instep.core import vocabulary as w
from instep.core.backoff import Chance
from instep.core.contract import check_all
from instep.core.heads import vocabulary as h
from instep.core.heads.line_heads import OWN_POLL, POLL, LineHeads
from instep.core.heads.stand import (
    Stand,
    disputed,
    heard_of,
    named,
    of_trouble,
    out_of_reach,
)
from instep.core.keep import contract
from instep.core.keep import vocabulary as k
from instep.core.keep.phases import KeepPhase
from instep.core.line_machine import LineJob
from instep.core.lines.accept import is_left_behind
from instep.errors import Retry
from instep.model.ids import HeadRef, LineId
from instep.model.standing import Standing

SUPERSEDES_MAX = 8
"""So often in a row a newer head interrupts the fetching of an older one; then that one is finished first."""
SUPERSEDED_TOLD = 3
"""After so many failures in a row *superseded* is shown as trouble."""
_SOURCE_EXITS = (5, 7, 9, 10)
"""Failures of a fetch with these exit codes are the source's, not this node's."""

KeepJob = LineJob[KeepPhase]


class KeepMachine(LineHeads[k.KeepFacts, k.KeepConfig, KeepPhase, k.KeepEffect, k.KeepStand]):
    """One line of another home."""

    phases = contract.PHASES
    numbered = (w.Cancel, h.AskHeads)
    early = (w.KeepGeneration, w.KeepEpoch, w.Cancel, w.FetchPages)
    save = k.SaveKept
    acts_and_saves = k.SaveKept
    wants_first_word = True

    def __init__(
        self, line: LineId, config: k.KeepConfig, rng: Chance, facts: k.KeepFacts | None = None
    ) -> None:
        super().__init__(line, config, rng, facts or k.KeepFacts())
        self._trouble: w.Trouble | None = None
        self._supersedes = 0
        self._grace_until_ms: int | None = None
        """Until then the head is left to the writer, which is connected and has not sent it yet."""

    def step(self, event: k.KeepEvent, now_ms: int) -> tuple[k.KeepEffect | w.LineEffect, ...]:
        """The only door: take in one event, begin what is missing, return the effects in order."""
        self._now = now_ms
        self._out = []
        self._take(event)
        if self._is_started:
            self._interrupt()
            self._begin_fetch()
            self._look_at_words()
            self._tell()
        return check_all(contract.INVARIANTS, self, self._ordered())

    def _take(self, event: k.KeepEvent) -> None:  # noqa: C901  one line a kind
        match event:
            case w.Started():
                self._start()
            case k.KeepConfigChanged():
                self._configure(event.config)
            case h.SourceUp():
                self._source_up(event)
            case h.SourceDown():
                self._source_down(event)
            case h.SourceNoticed():
                self._source_noticed(event)
            case h.WordHeard():
                self._words.take(event, self._now)
            case h.HeadSeen():
                self._head_seen(event)
            case w.EpochSeen():
                self._epoch_seen(event)
            case h.HeadsAnswered() | h.AskFailed():
                pass
            case w.Paused():
                self._pause(event)
            case w.Resumed():
                self._pause(None)
            case w.RetryAsked():
                self._retry()
            case h.PollAsked():
                self._ask_all()
            case w.TimerFired():
                self._timer(event.name)
            case _:
                job = self._end_job(event)
                if job is not None:
                    self._take_answer(job, event)

    def _take_answer(self, job: KeepJob, event: k.KeepAnswer) -> None:
        assert job.head is not None
        match event:
            case k.PartFetched():
                self._succeed()
                self._supersedes = 0
                self._set(kept=job.head, definition=event.definition)
                self._out.append(k.KeptHead(job.head, event.definition))
            case w.FetchFailed():
                self._trouble = event.trouble
                if event.trouble.exit_code in _SOURCE_EXITS or event.trouble.retry is Retry.ELSEWHERE:
                    self._penalize(job.source)
                else:
                    self._hold_back("fetch", self._config.retry_min_ms, self._retry_most())
            case h.HeadSuperseded():
                self._superseded(job)
            case _:
                assert_never(event)

    def _superseded(self, job: KeepJob) -> None:
        assert job.source is not None
        source = self._sources.get(job.source)
        if source is not None:
            source.lost()
            self._penalize(job.source)
            if source.failures >= SUPERSEDED_TOLD:
                reason = f"{job.source} does not have the pages of {named(job.head)} (any more)"
                self._trouble = w.Trouble("superseded", reason, Retry.LATER, 7)
            self._say(h.AskHeads(self._next_req(), job.source, is_repeated=True))

    def _start(self) -> None:
        self._is_started = True
        if not self._sources.is_any_up:
            self._lost_at_ms = self._now
            self._out.append(w.SetTimer("contact", self._now + self._contact_ms()))
        self._arm_poll()
        self._ask_all()
        if self._facts.kept is not None:
            self._out.append(k.KeptHead(self._facts.kept, self._facts.definition))

    def _configure(self, config: k.KeepConfig) -> None:
        self._config = config
        self._succeed()
        if self._is_started:
            self._arm_poll()
            self._ask_all()

    def _retry(self) -> None:
        self._succeed()
        self._sources.forgive()
        self._ask_all()

    def _succeed(self) -> None:
        self._trouble = None
        self._backoff.clear("fetch")

    def _timer(self, name: str) -> None:
        if name == POLL or name.startswith(OWN_POLL):
            self._polled(name)
        elif name == "grace":
            self._grace_until_ms = None
        elif name.startswith("retry-"):
            self._backoff.come_due(name.removeprefix("retry-"))

    def _arm_full_look(self) -> None:
        """There is no tree to look at."""

    def _head_accepted(self, head: HeadRef) -> None:
        """Where a hub passed it on, a connected writer is about to send it with its pages."""
        self._succeed()
        is_direct = any(source.is_writer and not source.holds(head.id) for source in self._sources.all_up())
        before, self._grace_until_ms = self._grace_until_ms, None
        if is_direct:
            self._grace_until_ms = self._now + self._config.direct_grace_ms
        if before != self._grace_until_ms:
            self._out.append(w.SetTimer("grace", self._grace_until_ms))

    # --- what is missing ------------------------------------------------------------------------------------

    def _wanted(self) -> HeadRef | None:
        """The head to fetch, or None when it is kept or something stands against it."""
        facts = self._facts
        head = facts.head
        if head is None or facts.is_paused or facts.epochs.disputed is not None:
            return None
        if facts.kept is not None and head.position <= facts.kept.position:
            return None
        return None if is_left_behind(head, facts.epochs) else head

    def _interrupt(self) -> None:
        """Leave the fetching of a head that is not wanted any more, but not for ever."""
        job = self._job
        if job is None or job.head == self._wanted():
            return
        if self._wanted() is not None:
            if self._supersedes >= SUPERSEDES_MAX:
                return
            self._supersedes += 1
        self._out.append(w.Cancel(job.req))
        self._job = None

    def _begin_fetch(self) -> None:
        target = self._wanted()
        if self._job is not None or target is None or not self._backoff.is_ready("fetch", self._now):
            return
        if self._grace_until_ms is not None:
            has_come = any(source.is_writer and source.holds(target.id) for source in self._sources.all_up())
            if not has_come and self._now < self._grace_until_ms:
                return
            self._grace_until_ms = None
        source = self._choose(target)
        if source is not None:
            self._out.append(w.FetchPages(self._begin(KeepPhase.FETCH, target, source), source, target))

    # --- the standing ---------------------------------------------------------------------------------------

    def _tell(self) -> None:
        stand, facts = self._stand(), self._facts
        told = k.KeepStand(stand.standing, stand.code, stand.reason, facts.head, facts.kept, stand.next_steps)
        if told != self._reported:
            self._reported = told
            self._out.append(told)

    def _stand(self) -> Stand:
        """Its files stay as they are while its home is away, and no other node becomes its writer."""
        facts, line = self._facts, self.line
        if facts.is_paused:
            step = f"instep resume {line.fileset}"
            return Stand(Standing.PAUSED, "paused", facts.paused_reason or "paused here", (step,))
        if facts.epochs.disputed is not None:
            return disputed(facts.epochs)
        trouble = self._trouble or self._offer_trouble
        if trouble is not None:
            return of_trouble(line, trouble)
        if facts.head is None:
            if not self._sources.is_any_up:
                return out_of_reach("no generation is known and no source can be reached")
            return Stand(Standing.UNKNOWN, "no_generation", "nothing was published yet")
        if facts.kept != facts.head:
            reason = f"{named(facts.kept)} is here, head is generation {facts.head.number}"
            if not self._sources.is_any_up:
                return out_of_reach(f"{reason}; no node that has it can be reached")
            return Stand(Standing.BEHIND, None, reason)
        is_lost = self._lost_at_ms is not None and self._now - self._lost_at_ms >= self._contact_ms()
        source = self._sources.ahead_of(facts.head)
        ahead = (source.name, source.knows) if source is not None and source.knows is not None else None
        heard = heard_of(line, facts.head, is_lost, ahead, self._sources.cut_off())
        return heard or self._by_words(facts.head) or Stand(Standing.IN_STEP)
