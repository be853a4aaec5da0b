"""The ``HomeMachine``: locks and change sets of one line at its home. Implements ``docs/spec/changes.md``.

A set is looked up, admitted, its contents fetched, then, one set at a time, admitted again, applied, published,
answered. Locks and sets are one machine: otherwise a grant could fall between the check of a set's locks and its
switch.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from instep.core import vocabulary as w
from instep.core.backoff import Chance
from instep.core.changes import home_contract as contract
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_admission import Admission, removals_of
from instep.core.changes.home_facts import ApplyingSet, HomeConfig, HomeFacts
from instep.core.changes.home_sets import HomePhase, HomeSets, PendingSet, SetJob
from instep.core.changes.home_vocabulary import HomeEffect, HomeEvent
from instep.core.contract import check_all
from instep.errors import Retry
from instep.model.change import ChangeAnswer, OutcomeKind, PathOutcome, author_from
from instep.model.ids import HeadRef, LineId
from instep.model.lock import LockEnd
from instep.model.paths import sort_key

RECOVER_AGAIN_MIN_MS = 250
RECOVER_AGAIN_MAX_MS = 30_000


class HomeMachine(HomeSets):
    """One written line. The clock of ``step`` is CLOCK_BOOTTIME."""

    def __init__(self, line: LineId, config: HomeConfig, rng: Chance, facts: HomeFacts | None = None) -> None:
        super().__init__(line, config, rng, facts)
        self._forget_asks()
        self._forget_sets()

    def step(self, event: HomeEvent, now_ms: int, wall_ms: int = 0) -> tuple[HomeEffect, ...]:
        """The only door. ``wall_ms`` dates what is kept, and says how old a change set is."""
        self._now, self._wall_ms, self._out = now_ms, wall_ms, []
        if self._is_started:
            self._lapse()
        self._take(event)
        if self._is_started:
            self._begin_apply()
            self._read_live()
            self._arm()
        return check_all(contract.INVARIANTS, self, self._ordered())

    @property
    def phase(self) -> str | None:
        """The phase of the change set under way, for status."""
        return self._job.phase.value if self._job is not None else None

    def _take(self, event: HomeEvent) -> None:
        match event:
            case h.HomeStarted():
                self._start(event)
            case h.HomeConfigChanged(config):
                self._config = config
            case h.HeadMoved(head, entries):
                self._head, self._entries = head, entries
            case h.HomeLost():
                self._lose(event)
            case h.Submitted():
                self._submitted(event)
            case h.SubmitterGone(req):
                self._submitter_gone(req)
            case w.TimerFired(name):
                self._fired(name)
            case (
                h.LockAsked()
                | h.RefreshAsked()
                | h.ReleaseAsked()
                | h.BreakAsked()
                | h.OwnEdit()
                | h.LiveRead()
                | h.LiveReadFailed()
            ):
                self._take_about_locks(event)
            case _:
                self._take_answer(event)

    def _take_answer(self, event: h.SetAnswer) -> None:
        """An answer about a change set; one to an older request is dropped."""
        match event:
            case h.LookedUp():
                self._looked_up(event)
            case h.ContentsHere():
                self._contents_here(event)
            case h.ContentsFailed():
                self._contents_failed(event)
            case h.ChangesApplied() | h.ApplyFailed() | h.PathsPublished():
                job = self._job
                if job is None or job.req != event.req:
                    return
                assert isinstance(event, contract.PHASES[job.phase].events), (job.phase, event)
                if isinstance(event, h.ChangesApplied):
                    self._applied(job, event.outcomes)
                elif isinstance(event, h.ApplyFailed):
                    job.trouble = event.trouble
                    self._recover(job)
                else:
                    self._finish(job, event.head, event.reason)
            case h.ChangesRecovered():
                self._recovered(event)
            case h.ChangesNotRecovered():
                self._not_recovered(event)
            case _:
                assert_never(event)

    def _fired(self, name: str) -> None:
        if name == "lock-end":
            self._timer_ms = None
        elif name == "recover" and self._job is not None and self._job.phase is HomePhase.RECOVER:
            self._recover(self._job)

    # --- the beginning and the end ----------------------------------------------------------------------------

    def _start(self, event: h.HomeStarted) -> None:
        """After another boot each lock has its whole time again; in another epoch none is in force."""
        assert not self._sets, "nothing is asked before the start"
        self._is_started = True
        self._head, self._entries = event.head, event.entries
        facts = self._facts
        if event.epoch != facts.epoch:
            for lock in facts.locks:
                self._end_lock(lock, LockEnd.WRITER_CHANGED)
        elif event.boot_id != facts.boot_id:
            whole = (msgspec.structs.replace(x, deadline_ms=self._now + x.ttl_ms) for x in facts.locks)
            self._set(locks=tuple(whole))
        self._set(epoch=event.epoch, boot_id=event.boot_id)
        self._lapse()
        self._own_edit(tuple(lock.path for lock in self._facts.locks))
        if facts.applying is not None:
            pending = PendingSet(facts.applying.id, None, req=self._next_req())
            self._sets[pending.id] = pending
            self._job = SetJob(pending, HomePhase.LOOK, pending.req)
            self._out.append(h.LookUp(pending.req, pending.id))

    def _lose(self, event: h.HomeLost) -> None:
        self._lost_to = event
        for lock in self._facts.locks:
            self._end_lock(lock, LockEnd.WRITER_CHANGED, event.writer or "")
        trouble = self._not_taken(self._config.node)
        assert trouble is not None
        for pending in tuple(self._sets.values()):
            if self._job is None or self._job.pending is not pending:
                self._drop(pending, trouble)

    # --- one set at a time ------------------------------------------------------------------------------------

    def _begin_apply(self) -> None:
        """Sets that are ready are decided in the order in which their contents came."""
        while self._job is None:
            pending = next((each for each in self._sets.values() if each.phase is HomePhase.READY), None)
            if pending is None:
                return
            assert pending.submission is not None
            admission = self._admit(pending.submission)
            if admission.admitted:
                self._apply(pending, admission)
            else:
                self._answer(pending, admission.decided, None, "")

    def _apply(self, pending: PendingSet, admission: Admission) -> None:
        submission = pending.submission
        assert submission is not None
        token = self._honoured(submission)
        pending.phase = HomePhase.APPLY
        job = SetJob(pending, HomePhase.APPLY, self._next_req(), admission.admitted, admission.decided, token)
        self._job = job
        self._set(applying=ApplyingSet(pending.id, token if submission.releases else None))
        self._doubt_reads(admission.admitted)
        self._out.append(h.KeepChange(pending.id, submission, admission.decided))
        self._out.append(
            h.ApplyChanges(
                job.req, pending.id, submission.change_set, admission.admitted, submission.accepts_deletions
            )
        )

    def _applied(self, job: SetJob, outcomes: tuple[PathOutcome, ...]) -> None:
        """The tree is changed, durably: the locks of changed paths stand for the new files."""
        submission = job.pending.submission
        assert submission is not None
        found = {outcome.path: outcome for outcome in (*job.decided, *outcomes)}
        changes = submission.change_set.changes
        assert set(job.admitted) == {each.path for each in outcomes}, (
            "every path that was tried has an outcome"
        )
        job.outcomes = tuple(self._in_full(job, found[change.path]) for change in changes)
        for change, outcome in zip(changes, job.outcomes, strict=True):
            lock = self._lock_of(change.path)
            if outcome.is_made and lock is not None and lock.fence == job.token:
                base = change.new if outcome.entry is None else outcome.entry
                self._put_lock(msgspec.structs.replace(lock, base=base))
        applied = [each for each in job.outcomes if each.kind is OutcomeKind.APPLIED]
        gone = {change.path for change in changes if change.new is None}
        made = tuple(each.path for each in job.outcomes if each.is_made)
        accepted = tuple(path for path in made if path in gone) if submission.accepts_deletions else ()
        if not accepted:
            removed = sum(each.path in gone for each in applied)
            self._count_removals(submission.source, min(removals_of(submission.change_set), removed))
        if not made:
            self._finish(job, None, "")
            return
        job.phase, job.req = HomePhase.PUBLISH, self._next_req()
        change_set = submission.change_set
        author = change_set.author
        if submission.source != self._config.node:
            author = author_from(submission.source, author)
        self._out.append(h.PublishPaths(job.req, made, author, change_set.message, accepted))

    def _in_full(self, job: SetJob, outcome: PathOutcome) -> PathOutcome:
        """An outdated path whose lock had ended is ``expired``, with the reason."""
        assert job.pending.submission is not None
        if outcome.kind is not OutcomeKind.OUTDATED or job.token is not None:
            return outcome
        gone = self._expiry(job.pending.submission.change_set, outcome.path)
        if gone is None:
            return outcome
        reason = gone.reason or (f"by {gone.by}" if gone.by else "")
        return msgspec.structs.replace(outcome, kind=OutcomeKind.EXPIRED, code=gone.why.value, reason=reason)

    def _finish(self, job: SetJob, head: HeadRef | None, reason: str) -> None:
        self._job = None
        self._end_applying()
        self._answer(job.pending, job.outcomes, head, reason)

    def _end_applying(self) -> None:
        """The lock that the author wants released ends in the same save, if its path is as the author wanted."""
        applying = self._facts.applying
        assert applying is not None
        lock = next((x for x in self._facts.locks if x.fence == applying.releases), None)
        if lock is not None:
            self._end_lock(lock, LockEnd.RELEASED)
        self._set(applying=None)

    def _answer(
        self, pending: PendingSet, outcomes: tuple[PathOutcome, ...], head: HeadRef | None, reason: str
    ) -> None:
        """Kept before it is sent: the same id is never decided again."""
        assert pending.submission is not None
        del self._sets[pending.id]
        is_held_back = head is None and any(outcome.is_made for outcome in outcomes)
        above = self._head if is_held_back else None
        answer = ChangeAnswer(pending.id, tuple(sorted(outcomes, key=_in_order)), head, reason, above)
        self._out.append(h.KeepAnswer(answer, pending.submission.source))
        self._say(pending.submission, answer)
        self._out.extend(h.ReplyChange(req, answer) for req in pending.waiters)

    # --- after a crash, or a failure --------------------------------------------------------------------------

    def _recover(self, job: SetJob) -> None:
        """The journal says what became of the set. A new number: what answered before is answered already."""
        job.phase, job.req = HomePhase.RECOVER, self._next_req()
        self._out.append(h.RecoverChanges(job.req, job.pending.id))

    def _recovered(self, event: h.ChangesRecovered) -> None:
        job = self._job
        if job is None or job.req != event.req:
            return
        self._backoff.clear("recover")
        if job.pending.submission is None:
            job.pending.submission, job.decided = event.kept, event.decided
        if event.outcomes is None or job.pending.submission is None:
            self._interrupted(job)
            return
        if not job.admitted:
            done = {outcome.path for outcome in job.decided}
            paths = (change.path for change in job.pending.submission.change_set.changes)
            job.admitted = tuple(path for path in paths if path not in done)
            job.token = self._honoured(job.pending.submission)
        self._applied(job, event.outcomes)

    def _interrupted(self, job: SetJob) -> None:
        """Nothing was changed: the set is forgotten, and may come again."""
        self._job = None
        self._set(applying=None)
        trouble = job.trouble or w.Trouble(
            "interrupted", "the home stopped before it changed anything", Retry.LATER, 7
        )
        self._drop(job.pending, trouble)

    def _not_recovered(self, event: h.ChangesNotRecovered) -> None:
        job = self._job
        if job is not None and job.req == event.req:
            job.req = self._next_req()
            at_ms = self._backoff.fail("recover", self._now, RECOVER_AGAIN_MIN_MS, RECOVER_AGAIN_MAX_MS)
            self._out.append(w.SetTimer("recover", at_ms))


def _in_order(outcome: PathOutcome) -> bytes:
    """Outcomes stand in the order of the changes."""
    return sort_key(outcome.path)
