"""The ``FollowMachine``: brings one line's tree at a partner to the newest head, and keeps it there.

``fetch -> stage -> gates -> validate -> switch -> reload -> probe -> live recorded``. The machine is level
triggered: every step looks at the facts and begins the one thing that is missing, one job at a time. The
newest head wins until the switch begins; from then on the apply runs to ``live`` or is put back. What must
survive a crash is in ``FollowFacts``; everything else is derived anew after ``Recover``. Implements design
section 7.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import assert_never

import msgspec

from instep.core import follow_vocabulary as f
from instep.core.accept import (
    AcceptedEpoch,
    AcceptedHead,
    KnownRecord,
    OldRecord,
    Refused,
    judge_epoch,
    judge_head,
)
from instep.core.backoff import Backoff, Chance
from instep.core.drift import DriftView
from instep.core.follow_standing import Seen, Stand, stand_of
from instep.core.follow_vocabulary import (
    DriftPolicy,
    Due,
    FollowAnswer,
    FollowConfig,
    FollowEffect,
    FollowEvent,
    FollowFacts,
    FollowSourceEvent,
)
from instep.core.sources import Source, Sources
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
from instep.errors import Retry
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.paths import shown
from instep.model.rollout import DEFAULT_POLICY, Order, RolloutPolicy, Verdict

__all__ = ["FollowMachine"]

SUPERSEDES_MAX = 8
"""So often in a row a newer head interrupts the staging of an older one; then that one is finished first."""

SUPERSEDED_TOLD = 3
"""After so many failures in a row *superseded* is shown as trouble; once or twice it is everyday life."""

TOUCH_SETTLE_MS = 200
NAMED_MAX = 20
_RESOURCES_EXIT = 8
_SOURCE_EXITS = (5, 7, 9, 10)
"""Failures of a fetch or stage with these exit codes are the source's, not this node's."""

_EARLY = (KeepGeneration, KeepEpoch, Cancel, f.FetchPages)
"""Effects that name nothing which is not durable: they need not wait for the ``Save`` of their step."""


class _Phase(enum.Enum):
    RECOVER = "recover"
    FETCH = "fetch"
    STAGE = "stage"
    GATES = "gates"
    VALIDATE = "validate"
    SWITCH = "switch"
    RELOAD = "reload"
    PROBE = "probe"
    RECORD = "record"
    PUT_BACK = "put_back"
    CHECK = "check"
    REVERT = "revert"
    COMPARE = "compare"
    DRAIN = "drain"
    RETURN = "return"


_INTERRUPTIBLE = (_Phase.FETCH, _Phase.STAGE, _Phase.GATES)
_QUIET = (_Phase.RECOVER, _Phase.CHECK, _Phase.COMPARE)


@dataclass(frozen=True, slots=True)
class _Job:
    """The one request whose answer the machine waits for."""

    req: int
    phase: _Phase
    head: HeadRef | None = None
    source: NodeName | None = None


@dataclass(slots=True)
class _Progress:
    """How far the apply of ``target`` has come since start. Volatile: staging is resumable."""

    target: HeadRef
    is_fetched: bool = False
    is_staged: bool = False
    is_gated: bool = False
    is_validated: bool = False
    policy: RolloutPolicy = DEFAULT_POLICY
    is_reloaded: bool = True

    def needs_permit(self, config: FollowConfig) -> bool:
        """Whether the switch waits for the writer's permit: what reloads nothing disturbs nobody."""
        return self.policy.needs_permit(has_reload=config.has_reload and self.is_reloaded)


class FollowMachine:
    """One line at a partner. ``rng`` is for jitter; ``facts`` are what ``Save`` carried last."""

    def __init__(
        self, line: LineId, config: FollowConfig, rng: Chance, facts: FollowFacts | None = None
    ) -> None:
        self.line = line
        self._config = config
        self._rng = rng
        self._facts = facts or FollowFacts()
        self._saved: FollowFacts | None = self._facts
        self._now = 0
        self._out: list[FollowEffect] = []
        self._last_req = 0
        self._is_started = False
        self._is_recovered = False
        self._job: _Job | None = None
        self._progress: _Progress | None = None
        self._sources = Sources()
        self._backoff = Backoff(rng)
        self._troubles: dict[str, Trouble] = {}
        self._offer_trouble: Trouble | None = None
        self._owed: Trouble | None = None
        self._stuck: Digest | None = None
        self._is_forgiven = False
        self._supersedes = 0
        self._sticky: HeadRef | None = None
        self._drift = DriftView()
        self._drift_ready_ms = 0
        self._compared: f.Compared | None = None
        self._compared_with: Digest | None = None
        self._is_told_out = False
        self._lost_at_ms: int | None = None
        self._reported: f.Report | None = None

    @property
    def facts(self) -> FollowFacts:
        return self._facts

    @property
    def report(self) -> f.Report | None:
        """The last standing that was reported."""
        return self._reported

    @property
    def phase(self) -> str | None:
        """What is being done now, for status; None when at rest."""
        return self._job.phase.value if self._job else None

    def step(self, event: FollowEvent, now_ms: int) -> tuple[FollowEffect, ...]:
        """The only door: take in one event, begin what is missing, return the effects in order."""
        self._now = now_ms
        self._out = []
        self._take(event)
        if self._is_started:
            self._interrupt()
            if self._job is None:
                self._begin_next()
            self._tell()
        return self._ordered()

    # --- events ---------------------------------------------------------------------------------------------

    def _take(self, event: FollowEvent) -> None:
        match event:
            case f.Started():
                self._start()
            case f.ConfigChanged():
                self._configure(event.config)
            case (
                f.SourceUp()
                | f.SourceDown()
                | f.HeadSeen()
                | f.EpochSeen()
                | f.HeadsAnswered()
                | f.AskFailed()
            ):
                self._take_from_source(event)
            case f.Paused():
                self._set(
                    is_paused=True, paused_reason=event.reason, paused_until_wall_ms=event.until_wall_ms
                )
            case f.Resumed():
                self._set(is_paused=False, paused_reason="", paused_until_wall_ms=None)
            case f.RetryAsked():
                self._retry()
            case f.PollAsked():
                self._ask_all()
            case f.TreeTouched():
                self._touched(event)
            case f.OrderGiven():
                self._take_order(event)
            case f.HookOwed():
                self._owed = event.trouble
            case TimerFired():
                self._timer(event.name)
            case _:
                job = self._job
                if job is not None and job.req == event.req:
                    self._job = None
                    self._take_answer(job, event)

    def _take_answer(self, job: _Job, event: FollowAnswer) -> None:  # noqa: C901  one line a kind
        match event:
            case f.Recovered():
                self._recovered(event)
            case f.RecoverFailed():
                self._fail("recover", event.trouble)
            case f.PagesFetched():
                self._passed("is_fetched")
                assert self._progress is not None
                self._progress.policy = event.policy
                self._progress.is_reloaded = event.is_reloaded
            case f.Staged():
                self._passed("is_staged")
            case f.FetchFailed() | f.StageFailed():
                self._apply_failed(job, event.trouble)
            case f.Superseded():
                self._source_moved_on(job)
            case f.GatesChecked():
                if event.refusal is None:
                    self._passed("is_gated")
                else:
                    self._sticky = None
                    self._fail("apply", event.refusal, least_ms=self._config.poll_ms // 2)
            case HookEnded():
                self._hook_ended(job, event.trouble)
            case f.Switched():
                self._switched(job, event.drifted)
            case f.SwitchFailed():
                self._progress, self._sticky = None, None
                self._is_recovered = False
                self._fail("apply", event.trouble)
                self._get_stuck(job, event.trouble)
            case f.LiveRecorded():
                self._live_recorded()
            case f.RecordFailed():
                self._saved = None
                self._fail("due", event.trouble)
            case f.PutBackDone():
                self._put_back(job)
            case f.PutBackFailed():
                self._is_recovered = False
                self._fail("due", event.trouble)
            case f.DriftChecked():
                self._troubles.pop("drift", None)
                self._backoff.clear("drift")
                self._drift.found(event.paths, event.total, event.writers)
            case f.DriftCheckFailed():
                self._drift.failed()
                self._fail("drift", event.trouble)
            case f.Reverted():
                self._reverted(event.paths)
            case f.RevertFailed():
                self._drift.touch(self._drift.drifted)
                self._fail("drift", event.trouble)
            case f.Compared():
                self._took_comparison(event, job)
            case f.Drained():
                self._is_told_out = True
                self._name_untold("drained", event.untold)
            case f.Returned():
                self._is_told_out = False
                self._set(is_drained=False)
                self._name_untold("returned", event.untold)
            case _:
                assert_never(event)

    def _start(self) -> None:
        self._is_started = True
        if not self._sources.is_any_up:  # a source may be up before the start
            self._lost_at_ms = self._now
            self._out.append(SetTimer("contact", self._now + self._config.poll_ms))
        self._arm_poll()
        self._out.append(SetTimer("drift-scan", self._now + self._config.drift_scan_ms))
        if self._facts.begun is not None:
            self._arm_finish()
        if self._facts.unconfirmed is not None:
            self._arm_confirm()

    def _configure(self, config: FollowConfig) -> None:
        if config == self._config:
            return
        self._config = config
        self._stuck = None
        self._forgive()
        self._backoff.clear_all()
        self._troubles.clear()
        self._drift.touch((), everything=True)
        self._compared = None
        if self._job is not None and self._job.phase in (*_INTERRUPTIBLE, _Phase.COMPARE):
            self._out.append(Cancel(self._job.req))
            self._job = None
        self._progress, self._sticky = None, None
        if self._is_started:
            self._arm_poll()
            self._out.append(SetTimer("drift-scan", self._now + config.drift_scan_ms))
            self._ask_all()

    def _retry(self) -> None:
        self._stuck = None
        self._forgive()
        self._backoff.clear_all()
        self._sources.forgive()
        self._drift.fights.forget()
        self._drift.touch((), everything=True)
        self._drift_ready_ms = 0
        self._compared = None
        self._ask_all()

    def _forgive(self) -> None:
        """Forget the refused generation; a put-back that runs is finished first."""
        facts = self._facts
        if facts.refused is None:
            return
        if self._job is not None and self._job.phase is _Phase.PUT_BACK:
            self._is_forgiven = True
            return
        due = Due.RELOAD if facts.refused == facts.tree and facts.tree != facts.live else facts.due
        self._set(refused=None, refused_code="", refused_reason="", due=due)

    def _touched(self, event: f.TreeTouched) -> None:
        self._drift.touch(event.paths, everything=event.is_overflow)
        self._compared = None
        if self._drift_ready_ms <= self._now:
            self._drift_ready_ms = self._now + TOUCH_SETTLE_MS
            self._out.append(SetTimer("drift-settle", self._drift_ready_ms))

    def _timer(self, name: str) -> None:
        if name == "poll":
            self._ask_all()
            self._arm_poll()
        elif name == "drift-scan":
            self._drift.touch((), everything=True)
            self._compared = None
            self._out.append(SetTimer("drift-scan", self._now + self._config.drift_scan_ms))
        elif name == "drift-settle":
            self._drift_ready_ms = min(self._drift_ready_ms, self._now)
        elif name == "finish":
            self._finish_expired()
        elif name == "confirm":
            self._confirm_expired()
        elif name == "fight":
            self._drift.touch(self._drift.drifted)
        elif name.startswith("retry-"):
            self._backoff.come_due(name.removeprefix("retry-"))

    def _arm_poll(self) -> None:
        """A quarter of the interval is jitter, so that many partners do not ask at once."""
        delay = self._config.poll_ms * (1 - self._rng.random() / 4)
        self._out.append(SetTimer("poll", self._now + max(1, round(delay))))

    # --- sources and heads ----------------------------------------------------------------------------------

    def _take_from_source(self, event: FollowSourceEvent) -> None:
        match event:
            case f.SourceUp():
                self._sources.up(event.source, event.is_writer, event.has)
                self._lost_at_ms = None
                self._out.append(SetTimer("contact", None))
            case f.SourceDown():
                self._sources.down(event.source)
                if not self._sources.is_any_up and self._lost_at_ms is None:
                    self._lost_at_ms = self._now
                    self._out.append(SetTimer("contact", self._now + self._config.poll_ms))
            case f.HeadSeen():
                self._head_seen(event)
            case f.EpochSeen():
                self._epoch_seen(event)
            case f.HeadsAnswered() | f.AskFailed():
                pass
            case _:
                assert_never(event)

    def _head_seen(self, event: f.HeadSeen) -> None:
        source = self._sources.get(event.source)
        judged = judge_head(event.signed, event.verdict, self.line, self._facts.head, self._facts.epochs)
        match judged:
            case AcceptedHead():
                self._accept(judged, event, source)
            case KnownRecord() | OldRecord():
                if source is not None:
                    source.has = event.signed.id
                if isinstance(judged, KnownRecord):
                    self._offer_trouble = None
                else:
                    self._remind(source)
                    self._name_old(judged, source)
            case Refused():
                self._out.append(Refuse(event.source, judged.trouble))
                if judged.trouble.code == "unknown_epoch":
                    self._ask_epoch(source)
                    return
                if source is not None and source.is_writer:
                    self._offer_trouble = judged.trouble
                    if judged.trouble.code == "reused_number":
                        self._remind(source)
            case _:
                assert_never(judged)

    def _remind(self, source: Source | None) -> None:
        """A writer that offers less than it once published has lost its state."""
        if source is not None and source.is_writer and self._facts.head is not None:
            self._out.append(f.OfferHead(source.name, self._facts.head))

    def _name_old(self, judged: OldRecord, source: Source | None) -> None:
        """A hub may be late; a writer that offers what it once surpassed is worth a line."""
        head = self._facts.head
        if source is None or not source.is_writer or head is None:
            return
        epoch, number = judged.position
        code = "old_epoch" if epoch < head.epoch else "old_number"
        reason = f"generation {number} of epoch {epoch} is older than the head, {head.number} of epoch {head.epoch}"
        self._out.append(Refuse(source.name, Trouble(code, reason, Retry.ELSEWHERE, 9)))

    def _accept(self, judged: AcceptedHead, event: f.HeadSeen, source: Source | None) -> None:
        facts = self._facts
        if source is not None:
            source.has = judged.head.id
        self._out.append(KeepGeneration(event.signed))
        self._set(head=judged.head)
        if facts.refused is not None and facts.refused != facts.tree:
            self._set(refused=None, refused_code="", refused_reason="")
        self._offer_trouble = None
        self._compared = None
        if self._stuck is not None:
            self._stuck = None
            self._troubles.pop("apply", None)
            self._backoff.clear("apply")
        self._note(
            "head", f"generation {judged.head.number} is the head, from {event.source}", source=event.source
        )

    def _epoch_seen(self, event: f.EpochSeen) -> None:
        judged = judge_epoch(event.signed, event.verdict, self.line, self._facts.epochs, self._config.writer)
        match judged:
            case AcceptedEpoch():
                self._out.append(KeepEpoch(event.signed))
                self._set(epochs=judged.book)
                self._offer_trouble = None
                if judged.is_disputed:
                    self._note("epoch_conflict", f"epoch {judged.body.epoch} was given to more than one node")
                else:
                    self._note("epoch", f"{judged.body.writer} writes epoch {judged.body.epoch}")
            case KnownRecord() | OldRecord():
                pass
            case Refused():
                self._out.append(Refuse(event.source, judged.trouble))
            case _:
                assert_never(judged)

    def _ask_epoch(self, source: Source | None) -> None:
        """Ask for the epoch records that a head needs, once a retry interval."""
        if source is None:
            return
        if source.asked_at_ms is None or self._now - source.asked_at_ms >= self._config.retry_min_ms:
            source.asked_at_ms = self._now
            self._out.append(f.AskHeads(self._next_req(), source.name))

    def _ask_all(self) -> None:
        for source in self._sources.all_up():
            self._out.append(f.AskHeads(self._next_req(), source.name))

    # --- answers --------------------------------------------------------------------------------------------

    def _recovered(self, event: f.Recovered) -> None:
        self._is_recovered = True
        self._succeed("recover")
        self._progress = None
        self._drift.touch((), everything=True)
        target = event.target
        facts = self._facts
        if event.kind is not f.RecoveredKind.FINISHED or target is None:
            return
        if target == facts.tree:
            # Local changes were reverted: what they had changed under the application owes it a reload.
            if facts.due is Due.NOTHING and target == facts.live and self._config.has_reload:
                self._set(due=Due.RELOAD)
            return
        # A switch or a put-back that failed half way is over with this: its trouble has gone.
        self._succeed("apply")
        self._succeed("due")
        is_ahead = facts.head is None or target.position > facts.head.position
        self._set(tree=target, head=target if is_ahead else facts.head, due=self._first_due(target))
        self._note("recovered", f"the switch to generation {target.number} had been finished")

    def _passed(self, what: str) -> None:
        assert self._progress is not None
        setattr(self._progress, what, True)
        self._succeed("apply")

    def _apply_failed(self, job: _Job, trouble: Trouble) -> None:
        self._sticky = None
        if trouble.exit_code in _SOURCE_EXITS or trouble.retry is Retry.ELSEWHERE:
            self._troubles["apply"] = trouble
            self._penalize(job.source)
        else:
            self._fail("apply", trouble)
            self._get_stuck(job, trouble)

    def _get_stuck(self, job: _Job, trouble: Trouble) -> None:
        if trouble.retry is Retry.NEVER and trouble.exit_code != _RESOURCES_EXIT and job.head is not None:
            self._stuck = job.head.id

    def _source_moved_on(self, job: _Job) -> None:
        self._sticky = None
        assert job.source is not None
        source = self._sources.get(job.source)
        if source is not None:
            source.has = None
            self._penalize(job.source)
            if source.failures >= SUPERSEDED_TOLD:
                reason = f"{job.source} does not have the contents of {_named(job.head)} (any more)"
                self._troubles["apply"] = Trouble("superseded", reason, Retry.LATER, 7)
            self._out.append(f.AskHeads(self._next_req(), job.source))

    def _penalize(self, name: NodeName | None) -> None:
        source = None if name is None else self._sources.get(name)
        if source is None:
            return
        delay = min(self._retry_most(), self._config.retry_min_ms << source.failures)
        source.failures = min(source.failures + 1, 20)
        source.not_before_ms = self._now + max(1, round(delay * (0.5 + self._rng.random() / 2)))

    def _hook_ended(self, job: _Job, trouble: Trouble | None) -> None:
        assert job.head is not None
        if job.phase is _Phase.VALIDATE:
            if trouble is None:
                self._passed("is_validated")
            elif job.head == self._facts.head:
                self._sticky = None
                self._refuse(job.head, "validate_failed", trouble)
        elif job.phase is _Phase.RELOAD:
            if trouble is None:
                self._succeed("due")
                self._set(due=self._due_after_reload())
            else:
                self._fail("due", trouble)
        elif trouble is None:
            self._succeed("due")
            self._set(due=Due.NOTHING if job.head == self._facts.live else Due.RECORD)
        elif self._facts.live is None or job.head == self._facts.live or self._is_going_back(job.head):
            self._fail("due", trouble)
        else:
            self._refuse(job.head, "probe_failed", trouble)

    def _refuse(self, head: HeadRef, code: str, trouble: Trouble) -> None:
        reason = trouble.reason
        self._set(refused=head, refused_code=code, refused_reason=reason[:1000])
        self._note(code, f"generation {head.number} is refused: {reason}", generation=head.number)

    def _switched(self, job: _Job, drifted: tuple[bytes, ...]) -> None:
        assert job.head is not None
        self._succeed("apply")
        self._succeed("due")
        self._progress, self._sticky, self._supersedes = None, None, 0
        if self._facts.tree is None:
            self._drift.start_clean()
        self._set(tree=job.head, due=self._first_due(job.head))
        if drifted:
            paths = [shown(p) for p in drifted[:NAMED_MAX]]
            more = f" and {len(drifted) - NAMED_MAX} more" if len(drifted) > NAMED_MAX else ""
            self._note(
                "drift_archived", f"local changes went to the archive: {', '.join(paths)}{more}", paths=paths
            )

    def _live_recorded(self) -> None:
        live = self._facts.live
        assert live is not None
        self._set(due=Due.NOTHING)
        self._succeed("due")
        if self._facts.unconfirmed is not None:
            self._arm_confirm()
        self._drift.switched()
        self._note("live", f"generation {live.number} is live", generation=live.number)

    def _recorded_facts(self) -> FollowFacts:
        """What ``RecordLive`` saves. Until its answer the own facts say *live, recording due*, so that a save
        in between neither forgets the live generation nor claims that it was recorded."""
        return msgspec.structs.replace(self._facts, due=Due.NOTHING)

    def _put_back(self, job: _Job) -> None:
        assert job.head is not None
        self._succeed("due")
        self._progress = None
        self._set(tree=job.head, begun=None, due=self._first_due(job.head))
        if self._config.knows_orders:
            self._out.append(SetTimer("finish", None))
        self._drift.switched()
        self._out.append(f.DropStage())
        self._note("put_back", f"generation {job.head.number} is back", generation=job.head.number)
        if self._is_forgiven:
            self._is_forgiven = False
            self._set(refused=None, refused_code="", refused_reason="")

    def _reverted(self, paths: tuple[bytes, ...]) -> None:
        self._succeed("drift")
        self._drift.reverted(paths, self._now)
        named = [shown(p) for p in paths[:NAMED_MAX]]
        more = f" and {len(paths) - NAMED_MAX} more" if len(paths) > NAMED_MAX else ""
        self._note("drift_reverted", f"archived and restored: {', '.join(named)}{more}", paths=named)
        if self._config.has_reload:
            self._set(due=Due.RELOAD)

    def _took_comparison(self, event: f.Compared, job: _Job) -> None:
        assert job.head is not None
        if event.trouble is not None:
            self._fail("compare", event.trouble)
            return
        self._succeed("compare")
        self._compared, self._compared_with = event, job.head.id

    # --- what is missing ------------------------------------------------------------------------------------

    def _interrupt(self) -> None:
        """Leave what a newer head makes idle: fetching and staging an older one, looking for drift."""
        job = self._job
        if job is not None and job.phase is _Phase.CHECK and self._wanted() is not None:
            self._out.append(Cancel(job.req))
            self._drift.failed()
            self._job = None
            return
        if job is None or job.phase not in _INTERRUPTIBLE:
            return
        wanted = self._facts.head if self._config.is_observing else self._wanted()
        if job.head == wanted:
            return
        if wanted is not None and job.phase is not _Phase.FETCH and self._supersedes >= SUPERSEDES_MAX:
            self._sticky = job.head
            return
        self._supersedes += 1
        self._out.append(Cancel(job.req))
        self._job = None

    def _wanted(self) -> HeadRef | None:
        """The generation to apply, or None when the tree holds it or something stands against it."""
        facts = self._facts
        if self._config.is_observing or facts.epochs.disputed is not None:
            return None
        if self._sticky is not None:
            return self._sticky
        head = facts.head
        if head is None or head in (facts.tree, facts.refused) or head.id == self._stuck:
            return None
        if facts.tree is not None and head.position <= facts.tree.position:
            return None
        return head

    def _begin_next(self) -> None:
        if not self._is_recovered:
            if self._backoff.is_ready("recover", self._now):
                self._out.append(f.Recover(self._begin(_Phase.RECOVER)))
        elif self._is_paying() or self._is_applying():
            return
        elif self._config.is_observing:
            self._observe()
        else:
            self._mind_drift()

    def _is_paying(self) -> bool:
        """Begin what the tree's generation still owes; True when nothing else may begin meanwhile."""
        facts = self._facts
        tree, live = facts.tree, facts.live
        if tree is None:
            return False
        is_ready = self._backoff.is_ready("due", self._now)
        back = self._goes_back_to()
        if back is not None:
            if is_ready:
                if self._is_draining(tree):
                    return True
                source = next((s.name for s in self._sources.all_up()), None)
                self._out.append(f.PutBack(self._begin(_Phase.PUT_BACK, back), back, tree, source))
                return True
            # A put-back that cannot be done must not keep the repair away.
            return facts.head == facts.refused
        if facts.due is Due.RELOAD and not self._config.has_reload:
            self._set(due=self._due_after_reload())
        if self._facts.due is Due.PROBE and not self._config.has_probe:
            self._set(due=Due.RECORD)
        self._take_reload_order(tree)
        due = self._facts.due
        if due is Due.NOTHING:
            return self._is_returning()
        if not is_ready:
            # A failing reload must not keep a newer head away, which may well be the repair.
            return due is Due.RECORD
        if due is Due.RECORD:
            if self._is_returning():
                return True
            self._replace_live(tree)
            self._progress = None  # Recording empties the stage.
            self._out.append(
                f.RecordLive(self._begin(_Phase.RECORD, tree), tree, live, self._recorded_facts())
            )
        else:
            if due is Due.RELOAD and self._ordered_to_reload(tree) and self._is_draining(tree):
                return True
            phase, kind = (
                (_Phase.RELOAD, HookKind.RELOAD) if due is Due.RELOAD else (_Phase.PROBE, HookKind.PROBE)
            )
            self._out.append(RunHook(self._begin(phase, tree), kind, tree, live))
        return True

    def _is_applying(self) -> bool:
        """Begin the next step of the apply of the wanted head; True when a job began."""
        target = self._wanted()
        if target is None or not self._backoff.is_ready("apply", self._now):
            return False
        if self._progress is None or self._progress.target != target:
            self._progress = _Progress(target)
        progress, config, tree = self._progress, self._config, self._facts.tree
        if not progress.is_fetched or not progress.is_staged:
            source = self._choose(target)
            if source is None:
                return self._is_unstuck(target) and self._is_applying()
            if not progress.is_fetched:
                self._out.append(f.FetchPages(self._begin(_Phase.FETCH, target, source), source, target))
            else:
                self._out.append(
                    f.StageContents(self._begin(_Phase.STAGE, target, source), source, target, tree)
                )
            return True
        if self._facts.is_paused:
            return False
        if config.has_gates and not progress.is_gated:
            source = self._choose(target)
            if source is None:
                return self._is_unstuck(target) and self._is_applying()
            self._out.append(f.CheckGates(self._begin(_Phase.GATES, target, source), source, target))
        elif config.has_validate and not progress.is_validated:
            self._out.append(RunHook(self._begin(_Phase.VALIDATE, target), HookKind.VALIDATE, target, tree))
        elif self._has_permit(progress):
            if not self._is_draining(target):
                self._out.append(f.Switch(self._begin(_Phase.SWITCH, target), target, tree))
        else:
            return False
        return True

    def _is_unstuck(self, target: HeadRef) -> bool:
        """An older generation that was to be finished first, but that nobody offers any more, gives way."""
        if self._sticky is None or self._sources.next_try_ms(target.id) is not None:
            return False
        self._sticky = None
        return True

    def _choose(self, target: HeadRef) -> NodeName | None:
        source = self._sources.choose(target.id, self._now)
        if source is not None:
            return source.name
        at = self._sources.next_try_ms(target.id)
        if at is not None:
            self._out.append(SetTimer("retry-source", at))
        return None

    def _observe(self) -> None:
        head = self._facts.head
        if (
            head is None
            or not self._backoff.is_ready("compare", self._now)
            or self._drift_ready_ms > self._now
        ):
            return
        if self._compared is not None and self._compared_with == head.id:
            return
        if self._progress is None or self._progress.target != head:
            self._progress = _Progress(head)
        if self._progress.is_fetched:
            self._out.append(f.Compare(self._begin(_Phase.COMPARE, head), head))
            return
        source = self._choose(head)
        if source is not None:
            self._out.append(f.FetchPages(self._begin(_Phase.FETCH, head, source), source, head))

    def _mind_drift(self) -> None:
        tree, drift = self._facts.tree, self._drift
        if tree is None or not self._backoff.is_ready("drift", self._now):
            return
        if drift.is_dirty:
            if self._drift_ready_ms <= self._now:
                self._out.append(f.CheckDrift(self._begin(_Phase.CHECK, tree), tree, drift.ask()))
            return
        if not drift.drifted or self._config.drift is not DriftPolicy.REVERT or self._facts.is_paused:
            return
        free, fought = drift.fights.split(drift.drifted, self._now)
        if free:
            source = next((s.name for s in self._sources.all_up() if s.has == tree.id), None)
            self._out.append(f.Revert(self._begin(_Phase.REVERT, tree), tree, free, source))
        else:
            self._out.append(SetTimer("fight", drift.fights.ends_at(fought, self._now)))

    # --- permits --------------------------------------------------------------------------------------------

    def _orders_from(self) -> NodeName:
        return self._config.orders_from or self._config.writer

    def _take_order(self, event: f.OrderGiven) -> None:
        """Keep the newest order for the newest head; what it says is done by looking at it (level)."""
        order, old, facts = event.order, self._facts.order, self._facts
        if not self._config.knows_orders or event.source != self._orders_from() or order.head != facts.head:
            return
        if old is not None and old.head == order.head and order.serial < old.serial:
            return
        self._set(order=order)
        if order.verdict is Verdict.KEEP and facts.unconfirmed == order.head:
            self._set(unconfirmed=None)
            self._out.append(SetTimer("confirm", None))
            self._note("confirmed", f"generation {order.head.number} is confirmed")
        elif order.verdict is Verdict.PUT_BACK and facts.refused != order.head:
            reason = f"{event.source} orders it to be put back"
            self._refuse(order.head, "put_back_ordered", Trouble("put_back_ordered", reason, Retry.NEVER, 4))

    def _order_of(self, head: HeadRef | None) -> Order | None:
        order = self._facts.order
        return order if order is not None and order.head == head else None

    def _has_permit(self, progress: _Progress) -> bool:
        """Whether the switch may begin; using a permit begins it, and from then on it is finished first."""
        config, facts, target = self._config, self._facts, progress.target
        if facts.tree is None or not config.knows_orders:
            return True
        if not progress.needs_permit(config) or facts.begun == target:
            return True
        order = self._order_of(target)
        if order is None or order.verdict not in (Verdict.SWITCH, Verdict.KEEP):
            return False
        self._set(begun=target)
        self._sticky = target
        self._arm_finish()
        return True

    def _staged(self) -> HeadRef | None:
        progress, config = self._progress, self._config
        if progress is None or not progress.is_staged or config.is_observing:
            return None
        is_gated = progress.is_gated or not config.has_gates
        is_valid = progress.is_validated or not config.has_validate
        return progress.target if is_gated and is_valid else None

    def _waits_for_permit(self) -> bool:
        progress, config = self._progress, self._config
        if not config.knows_orders or progress is None or self._facts.is_paused:
            return False
        if self._job is not None and self._job.phase not in _QUIET:
            return False  # Looking for drift meanwhile is no reason not to go.
        staged = self._staged()
        return (
            staged is not None
            and staged == self._wanted()
            and self._facts.tree is not None
            and self._facts.begun != staged
            and progress.needs_permit(config)
        )

    def _is_draining(self, head: HeadRef) -> bool:
        """Begin to take the node out of its balancers when the order says so; True while that is under
        way."""
        order = self._order_of(head)
        if order is None or not order.drains or self._is_told_out:
            return False
        self._set(is_drained=True)
        self._out.append(f.Drain(self._begin(_Phase.DRAIN, head), head))
        return True

    def _is_returning(self) -> bool:
        """Begin to offer the node again once nothing more is to come; True when that began."""
        facts = self._facts
        if facts.begun is not None and facts.begun not in (facts.tree, self._wanted()):
            self._set(begun=None)
            self._out.append(SetTimer("finish", None))
        is_about_to_switch = self._facts.begun is not None and self._facts.begun != facts.tree
        if not facts.is_drained or is_about_to_switch:
            return False
        self._out.append(f.Return(self._begin(_Phase.RETURN, facts.tree)))
        return True

    def _replace_live(self, tree: HeadRef) -> None:
        """Take the tree for live, and remember what it replaced for as long as it can be put back."""
        facts = self._facts
        if facts.live == tree:
            return
        is_back = self._is_going_back(tree)
        order = self._order_of(tree)
        waits = facts.begun == tree and order is not None and order.confirm_within_ms is not None
        if waits and order is not None and order.verdict is Verdict.KEEP:
            waits = False
        if facts.begun is not None:
            self._out.append(SetTimer("finish", None))
        if self._config.knows_orders:
            self._set(
                replaced=None if is_back else facts.live, begun=None, unconfirmed=tree if waits else None
            )
        self._set(live=tree)

    def _is_going_back(self, head: HeadRef) -> bool:
        live = self._facts.live
        return live is not None and head.position < live.position

    def _goes_back_to(self) -> HeadRef | None:
        """What a refused tree is put back to: live, or what live replaced when live itself is refused."""
        facts = self._facts
        if facts.tree is None or facts.refused != facts.tree:
            return None
        return facts.live if facts.live != facts.tree else facts.replaced

    def _ordered_to_reload(self, tree: HeadRef) -> bool:
        order = self._order_of(tree)
        return order is not None and order.verdict is Verdict.RELOAD and tree == self._facts.live

    def _take_reload_order(self, tree: HeadRef) -> None:
        order, facts = self._order_of(tree), self._facts
        if order is None or not self._ordered_to_reload(tree) or order.serial <= facts.reloaded:
            return
        if facts.due is Due.NOTHING and self._config.has_reload:
            self._set(reloaded=order.serial, due=Due.RELOAD)

    def _arm_finish(self) -> None:
        order = self._order_of(self._facts.begun)
        within_ms = DEFAULT_POLICY.finish_within_ms if order is None else order.finish_within_ms
        self._out.append(SetTimer("finish", self._now + within_ms))

    def _arm_confirm(self) -> None:
        order = self._order_of(self._facts.unconfirmed)
        if order is None or order.confirm_within_ms is None:
            self._set(unconfirmed=None)  # A newer head's order came: this one is surpassed.
            return
        self._out.append(SetTimer("confirm", self._now + order.confirm_within_ms))

    def _finish_expired(self) -> None:
        """A permit that was used is finished in time or put back, also with the writer gone."""
        begun, live = self._facts.begun, self._facts.live
        if begun is None or begun in (live, self._facts.refused) or live is None:
            return
        self._sticky = None
        reason = f"it was not live within the time to finish; {_named(live)} is kept"
        self._refuse(begun, "not_finished", Trouble("not_finished", reason, Retry.NEVER, 7))

    def _confirm_expired(self) -> None:
        waits = self._facts.unconfirmed
        if waits is None:
            return
        self._set(unconfirmed=None)
        if waits != self._facts.live or self._facts.replaced is None:
            return
        reason = "nobody confirmed it in time"
        self._refuse(waits, "not_confirmed", Trouble("not_confirmed", reason, Retry.NEVER, 7))

    def _name_untold(self, what: str, untold: tuple[str, ...]) -> None:
        if untold:
            named = ", ".join(untold[:NAMED_MAX])
            self._note("untold", f"{what} here, but these did not ask in time: {named}", untold=untold)

    # --- small parts ----------------------------------------------------------------------------------------

    def _first_due(self, tree: HeadRef) -> Due:
        """What a tree that just came to hold this generation owes."""
        if self._config.has_reload:
            return Due.RELOAD
        return self._due_after(tree)

    def _due_after_reload(self) -> Due:
        assert self._facts.tree is not None
        return self._due_after(self._facts.tree)

    def _due_after(self, tree: HeadRef) -> Due:
        if tree == self._facts.live:
            is_probed = self._facts.is_drained or self._ordered_to_reload(tree)
            return Due.PROBE if is_probed and self._config.has_probe else Due.NOTHING
        return Due.PROBE if self._config.has_probe else Due.RECORD

    def _set(self, **changes: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **changes)

    def _next_req(self) -> int:
        self._last_req += 1
        return self._last_req

    def _begin(self, phase: _Phase, head: HeadRef | None = None, source: NodeName | None = None) -> int:
        assert self._job is None
        self._job = _Job(self._next_req(), phase, head, source)
        return self._job.req

    def _retry_most(self) -> int:
        """Never longer than a poll interval, so that a cause that has gone is noticed in time (P8)."""
        return min(self._config.retry_max_ms, self._config.poll_ms)

    def _fail(self, key: str, trouble: Trouble, least_ms: int | None = None) -> None:
        self._troubles[key] = trouble
        at = self._backoff.fail(key, self._now, least_ms or self._config.retry_min_ms, self._retry_most())
        self._out.append(SetTimer(f"retry-{key}", at))

    def _succeed(self, key: str) -> None:
        self._troubles.pop(key, None)
        self._backoff.clear(key)

    def _note(self, what: str, text: str, **facts: object) -> None:
        self._out.append(Note(what, text, tuple(facts.items())))

    def _stand(self) -> Stand:
        trouble = next(
            (t for k in ("recover", "due", "apply", "compare") if (t := self._troubles.get(k)) is not None),
            None,
        )
        fought = self._drift.fights.split(self._drift.drifted, self._now)[1]
        compared = self._compared
        if compared is not None and (self._facts.head is None or self._compared_with != self._facts.head.id):
            compared = None
        is_lost = self._lost_at_ms is not None and self._now - self._lost_at_ms >= self._config.poll_ms
        seen = Seen(
            is_working=self._job is not None and self._job.phase not in _QUIET,
            is_source_up=self._sources.is_any_up,
            waits_for=self._orders_from() if self._waits_for_permit() else None,
            is_contact_lost=is_lost,
            trouble=trouble,
            offer_trouble=self._offer_trouble,
            owed=self._owed,
            drifted=self._drift.drifted,
            drifted_total=self._drift.total,
            fought=fought if self._config.drift is DriftPolicy.REVERT else (),
            fighters=tuple(dict.fromkeys(self._drift.writers[p] for p in fought if p in self._drift.writers)),
            drift_trouble=self._troubles.get("drift"),
            compared=(
                None
                if compared is None
                else (compared.added, compared.changed, compared.removed, compared.sample)
            ),
        )
        return stand_of(self.line, self._config, self._facts, seen)

    def _tell(self) -> None:
        if self._job is not None and self._job.phase is _Phase.RECORD:
            return  # Live is told when it is recorded.
        stand, facts = self._stand(), self._facts
        report = f.Report(
            stand.standing, stand.code, stand.reason, stand.next_steps, facts.head, facts.live, facts.tree
        )
        if self._config.knows_orders:
            report = replace(
                report,
                staged=self._staged(),
                replaced=facts.replaced,
                refused=facts.refused,
                waits_for_permit=self._waits_for_permit(),
                is_drained=facts.is_drained,
                order_serial=facts.order.serial if facts.order is not None else 0,
            )
        if report != self._reported:
            self._reported = report
            self._out.append(report)

    def _ordered(self) -> tuple[FollowEffect, ...]:
        """The effects with at most one ``Save``, before everything that depends on it. ``RecordLive`` saves
        too."""
        record = next((e for e in self._out if isinstance(e, f.RecordLive)), None)
        if record is not None:
            self._saved = record.facts
            return tuple(self._out)
        is_recording = self._job is not None and self._job.phase is _Phase.RECORD
        if self._saved == self._facts or (is_recording and self._saved == self._recorded_facts()):
            return tuple(self._out)
        self._saved = self._facts
        early = [e for e in self._out if isinstance(e, _EARLY)]
        late = [e for e in self._out if not isinstance(e, _EARLY)]
        return (*early, f.Save(self._facts), *late)


def _named(head: HeadRef | None) -> str:
    return "nothing" if head is None else f"generation {head.number}"
