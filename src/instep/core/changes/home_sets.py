"""The floor of the ``HomeMachine`` that takes change sets in: looked up, admitted, their contents fetched, several at
once."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from instep.core import vocabulary as w
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_admission import HomeAdmission
from instep.core.changes.home_facts import REMEMBERED_MS, Submission
from instep.errors import Retry
from instep.model.change import ChangeAnswer, Fence, OutcomeKind, PathOutcome, wanted_contents
from instep.model.counts import counted, sized
from instep.model.ids import Digest
from instep.model.paths import shown

WAITERS_MAX = 8
NAMED_MAX = 5
DAY_MS = 86_400_000


class HomePhase(enum.Enum):
    """How far a change set is."""

    LOOK = "look"
    FETCH = "fetch"
    READY = "ready"
    APPLY = "apply"
    RECOVER = "recover"
    PUBLISH = "publish"


@dataclass(slots=True)
class PendingSet:
    """A set without an answer. ``submission`` is None for one that a crash interrupted, until the store gave it back.
    ``waiters`` are the requests that wait for its answer."""

    id: Digest
    submission: Submission | None
    waiters: list[int] = field(default_factory=list)
    phase: HomePhase = HomePhase.LOOK
    req: int = 0


@dataclass(slots=True)
class SetJob:
    """The one set that is being applied. ``token`` is honoured: its lock was in force when the set was admitted."""

    pending: PendingSet
    phase: HomePhase
    req: int
    admitted: tuple[bytes, ...] = ()
    decided: tuple[PathOutcome, ...] = ()
    token: Fence | None = None
    outcomes: tuple[PathOutcome, ...] = ()
    trouble: w.Trouble | None = None


class HomeSets(HomeAdmission):
    """The next floor applies the sets that are ready."""

    _sets: dict[Digest, PendingSet]
    """In the order in which they became ready, then in which they came."""
    _job: SetJob | None

    def _forget_sets(self) -> None:
        self._sets, self._job = {}, None

    def _is_changing(self, path: bytes) -> bool:
        job = self._job
        if job is None or job.phase is HomePhase.PUBLISH:
            return False
        return job.phase is not HomePhase.APPLY or path in job.admitted

    def _submitted(self, event: h.Submitted) -> None:
        submission = event.submission
        trouble = self._not_taken(submission.source)
        if trouble is None and submission.change_set.line != self.line:
            reason = f"a change set of {submission.change_set.line} was sent to the home of {self.line}"
            trouble = w.Trouble("wrong_line", reason, Retry.NEVER, 9)
        id_ = submission.change_set.id
        pending = self._sets.get(id_)
        if trouble is None and self._is_busy(submission, pending):
            reason = "more change sets wait than this home takes at once"
            trouble = w.Trouble("busy", reason, Retry.LATER, 7, "submit it again")
        if trouble is not None:
            self._out.append(h.ReplyNotTaken(event.req, trouble))
            return
        if pending is not None:
            pending.waiters.append(event.req)
            return
        pending = PendingSet(id_, submission, [event.req], req=self._next_req())
        self._sets[id_] = pending
        self._out.append(h.LookUp(pending.req, id_, submission.source))

    def _is_busy(self, submission: Submission, pending: PendingSet | None) -> bool:
        if pending is not None:
            return len(pending.waiters) >= WAITERS_MAX
        same = sum(
            each.submission is not None and each.submission.source == submission.source
            for each in self._sets.values()
        )
        return same >= self._config.pending_per_source or len(self._sets) >= self._config.pending_max

    def _submitter_gone(self, req: int) -> None:
        for pending in tuple(self._sets.values()):
            if req in pending.waiters:
                pending.waiters.remove(req)
                if not pending.waiters and pending.phase in (HomePhase.LOOK, HomePhase.FETCH):
                    self._forget(pending)

    def _looked_up(self, event: h.LookedUp) -> None:
        pending = next((x for x in self._sets.values() if x.req == event.req), None)
        if pending is None or pending.phase is not HomePhase.LOOK:
            return
        if self._job is not None and self._job.pending is pending:
            self._looked_up_after_crash(self._job, event.answer)
        elif event.answer is not None:
            del self._sets[pending.id]
            self._out.extend(h.ReplyChange(req, event.answer) for req in pending.waiters)
        elif (trouble := self._keeps_too_much(pending, event)) is not None:
            self._drop(pending, trouble)
        else:
            self._fetch(pending)

    def _keeps_too_much(self, pending: PendingSet, found: h.LookedUp) -> w.Trouble | None:
        """Answers are forgotten by their age alone: an id that comes again would be decided again."""
        assert pending.submission is not None
        source, config = pending.submission.source, self._config
        is_few = found.sets < config.sets_kept and found.size_bytes < config.bytes_kept
        if is_few or source == config.node:
            return None
        kept = f"{counted(found.sets, 'change set')} of {source} ({sized(found.size_bytes)})"
        reason = (
            f"the answers to {kept} are kept on {config.node}, {counted(config.sets_kept, 'change set')} and "
            f"{sized(config.bytes_kept)} of one node are, each for {REMEMBERED_MS // DAY_MS} days"
        )
        hint = f"make the changes on {config.node}; this goes on by itself when the oldest answers go"
        return w.Trouble("changes_kept_full", reason, Retry.LATER, 7, hint)

    def _looked_up_after_crash(self, job: SetJob, answer: ChangeAnswer | None) -> None:
        """The crash fell behind the answer, or before it."""
        if answer is None:
            self._recover(job)
            return
        self._job = None
        self._end_applying()
        del self._sets[job.pending.id]
        self._out.extend(h.ReplyChange(req, answer) for req in job.pending.waiters)

    def _fetch(self, pending: PendingSet) -> None:
        """Contents are fetched only for a set of which something may be tried."""
        submission = pending.submission
        assert submission is not None
        if wanted_contents(submission.change_set) and self._admit(submission).admitted:
            pending.phase, pending.req = HomePhase.FETCH, self._next_req()
            self._out.append(
                h.FetchOffered(pending.req, submission.source, pending.id, submission.change_set)
            )
        else:
            self._ready(pending)

    def _contents_here(self, event: h.ContentsHere) -> None:
        pending = self._fetching(event.req)
        if pending is not None:
            self._ready(pending)

    def _contents_failed(self, event: h.ContentsFailed) -> None:
        pending = self._fetching(event.req)
        if pending is not None:
            self._drop(pending, event.trouble)

    def _fetching(self, req: int) -> PendingSet | None:
        return next((x for x in self._sets.values() if x.phase is HomePhase.FETCH and x.req == req), None)

    def _ready(self, pending: PendingSet) -> None:
        pending.phase = HomePhase.READY
        self._sets[pending.id] = self._sets.pop(pending.id)  # behind those that were ready before

    def _drop(self, pending: PendingSet, trouble: w.Trouble) -> None:
        """Nothing was decided about the set."""
        self._out.extend(h.ReplyNotTaken(req, trouble) for req in pending.waiters)
        self._forget(pending)

    def _forget(self, pending: PendingSet) -> None:
        del self._sets[pending.id]
        self._out.append(h.DropOffered(pending.id))

    def _recover(self, job: SetJob) -> None:
        """Overridden above."""
        raise AssertionError(job)

    def _end_applying(self) -> None:
        """Overridden above."""
        raise AssertionError

    def _say(self, submission: Submission, answer: ChangeAnswer) -> None:
        """One line of events for the changes that were made, one for the rest."""
        author = f" ({submission.change_set.author})" if submission.change_set.author else ""
        by = f"{submission.source}{author}"
        made = [outcome for outcome in answer.outcomes if outcome.is_made]
        if made:
            self._note(
                "changes_made", f"{by} changed {named(made)}", paths=_shown(made), source=submission.source
            )
        refused = [outcome for outcome in answer.outcomes if outcome.kind is OutcomeKind.REFUSED]
        if refused:
            first = refused[0]
            self._note(
                "changes_refused", f"{by} may not change {named(refused)}: {first.reason or first.code}",
                paths=_shown(refused), source=submission.source, code=first.code,
            )  # fmt: skip
        late = [outcome for outcome in answer.outcomes if outcome not in made and outcome not in refused]
        if late:
            self._note(
                "changes_late", f"{by} was too late for {named(late)}: {late[0].kind.value}",
                paths=_shown(late), source=submission.source, outcome=late[0].kind.value,
            )  # fmt: skip


def named(outcomes: Iterable[PathOutcome]) -> str:
    paths = [shown(outcome.path) for outcome in outcomes]
    if len(paths) <= NAMED_MAX:
        return ", ".join(paths)
    return f"{counted(len(paths), 'path')}, among them {', '.join(paths[:NAMED_MAX])}"


def _shown(outcomes: Iterable[PathOutcome]) -> list[str]:
    return [shown(outcome.path) for outcome in outcomes][:NAMED_MAX]
