"""The ``FollowMachine``: brings one line's tree at a partner to the newest head, and keeps it there.

``fetch -> stage -> gates -> validate -> switch -> reload -> probe -> live recorded``. The machine is level
triggered: every step looks at the facts and begins the one thing that is missing, one job at a time. The
newest head wins until the switch begins; from then on the apply runs to ``live`` or is put back. The state
that must survive a crash is in ``FollowFacts``; everything else is derived anew after ``Recover``. Implements design
section 7. The machine stands on floors, each a file: apply, drift, due, permits, heads, state, and ``line_machine``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, assert_never

from msgspec.structs import replace

from instep.core import vocabulary as w
from instep.core.contract import PhaseRow, check_all
from instep.core.follow import contract
from instep.core.follow import vocabulary as f
from instep.core.follow.apply import FollowApply
from instep.core.follow.permits import serial_told, spent_told
from instep.core.follow.standing import Seen, stand_of
from instep.core.follow.state import INTERRUPTIBLE, QUIET, FollowJob, FollowPhase
from instep.core.follow.vocabulary import DriftPolicy, FollowAnswer, FollowConfig, FollowEffect, FollowEvent
from instep.core.heads.line_heads import OWN_POLL, POLL
from instep.core.heads.stand import Stand
from instep.core.hook_writes import HookLoop


class FollowMachine(FollowApply):
    """One line at a partner."""

    phases: ClassVar[Mapping[Any, PhaseRow]] = contract.PHASES
    numbered: ClassVar[tuple[type, ...]] = (w.Cancel, f.AskHeads)
    early: ClassVar[tuple[type, ...]] = (w.KeepGeneration, w.KeepEpoch, w.Cancel, f.FetchPages)
    save = f.SaveFollow
    acts_and_saves = f.RecordLive

    def step(self, event: FollowEvent, now_ms: int) -> tuple[FollowEffect, ...]:
        """The only door: take in one event, begin what is missing, return the effects in order."""
        self._now = now_ms
        self._out = []
        self._take(event)
        if self._is_started:
            self._interrupt()
            if self._job is None:
                self._begin_next()
            self._look_at_words()
            self._tell()
        return check_all(contract.INVARIANTS, self, self._ordered())

    # --- events ---------------------------------------------------------------------------------------------

    def _take(self, event: FollowEvent) -> None:  # noqa: C901  one line a kind
        match event:
            case f.Started():
                self._start()
            case f.FollowConfigChanged():
                self._configure(event.config)
            case f.SourceUp():
                self._source_up(event)
            case f.SourceDown():
                self._source_down(event)
            case f.SourceNoticed():
                self._source_noticed(event)
            case f.WordHeard():
                self._words.take(event, self._now)
            case f.HeadSeen():
                self._head_seen(event)
            case f.EpochSeen():
                self._epoch_seen(event)
            case f.HeadsAnswered() | f.AskFailed():
                pass
            case f.Paused():
                self._pause(event)
            case f.Resumed():
                self._pause(None)
            case f.RetryAsked():
                self._retry()
            case w.HookAdded():
                self._is_hook_added = True
            case f.PollAsked():
                self._ask_all()
            case f.TreeTouched():
                self._touched(event)
            case f.OffersChanged():
                self._offers = event
            case w.RootBack():
                self._root_back()
            case w.WatchChanged():
                self._watch_changed(event.trouble)
            case f.OrderGiven():
                self._take_order(event)
            case f.HookOwed():
                self._owed = event.trouble
            case w.TimerFired():
                self._timer(event.name)
            case _:
                job = self._end_job(event)
                if job is not None:
                    self._take_answer(job, event)

    def _take_answer(self, job: FollowJob, event: FollowAnswer) -> None:  # noqa: C901  one line a kind
        match event:
            case f.RecoveryEnded():
                self._recovered(event)
                self._forgive_late()
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
                self._recover_if_due(event.trouble)
            case f.HeadSuperseded():
                self._source_moved_on(job)
            case f.GatesChecked():
                if event.refusal is None:
                    self._passed("is_gated")
                else:
                    self._sticky = None
                    self._fail("apply", event.refusal, least_ms=self._config.poll_ms // 2)
            case w.HookEnded():
                self._hook_ended(job, event.trouble)
            case f.TreeSwitched():
                self._switched(job, event.drifted)
            case f.SwitchFailed():
                self._switch_failed(job, event.trouble)
            case f.LiveRecorded():
                self._succeed("revert")  # That was of the tree before; this one is looked at anew.
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
                self._succeed("drift")
                if not event.paths:
                    self._succeed("revert")
                self._drift.found(event.paths, event.total, event.writers, event.hook_writes)
                self._looked()
                if event.cost is not None:
                    self._scan_cost = event.cost
                    self._arm_full_look()
            case f.DriftCheckFailed():
                self._drift.failed()
                self._fail("drift", event.trouble)
            case f.Reverted():
                self._reverted(event)
            case f.RevertFailed():
                self._revert_failed(event.trouble)
            case f.Compared():
                self._took_comparison(event, job)
            case f.NodeDrained():
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
            self._out.append(w.SetTimer("contact", self._now + self._contact_ms()))
        self._arm_poll()
        self._arm_full_look()
        if self._facts.begun is not None:
            self._arm_finish()
        if self._facts.unconfirmed is not None:
            self._arm_confirm()

    def _configure(self, config: FollowConfig) -> None:
        if replace(config, orders_from=self._config.orders_from) == self._config:
            self._config = config  # The node that orders changed: no failed step here may succeed by that.
            return
        if self._config.is_observing and not config.is_observing:
            self._is_recovered = False  # While it only observes, a node does not ask its tree what it holds.
        self._config = config
        self._stuck = self._failed_switch = None
        self._hook_loop = HookLoop()
        self._forgive()
        self._backoff.clear_all()
        self._troubles.clear()
        self._drift.touch((), everything=True)
        self._compared = None
        if self._job is not None and self._job.phase in (*INTERRUPTIBLE, FollowPhase.COMPARE):
            self._out.append(w.Cancel(self._job.req))
            self._job = None
        self._progress, self._sticky = None, None
        if self._is_started:
            self._arm_poll()
            self._arm_full_look()
            self._ask_all()

    def _retry(self) -> None:
        self._stuck = self._failed_switch = None
        self._hook_loop = HookLoop()
        self._forgive()
        self._backoff.clear_all()
        self._sources.forgive()
        self._drift.fights.forget()
        self._drift.touch((), everything=True)
        self._drift_ready_ms = 0
        self._compared = None
        self._ask_all()

    def _timer(self, name: str) -> None:
        if name == POLL or name.startswith(OWN_POLL):
            self._polled(name)
        elif name == "drift-scan":
            self._drift.touch((), everything=True)
            self._compared = None
            self._arm_full_look()
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

    # --- what is missing ------------------------------------------------------------------------------------

    def _begin_next(self) -> None:
        if not self._is_recovered:
            if self._backoff.is_ready("recover", self._now):
                self._out.append(f.Recover(self._begin(FollowPhase.RECOVER)))
        elif self._begin_due() or self._begin_apply():
            return
        elif self._config.is_observing:
            self._observe()
        else:
            self._mind_drift()

    # --- the reports ---------------------------------------------------------------------------------------

    def _stand(self) -> Stand:
        trouble = next(
            (t for k in ("recover", "due", "apply", "compare") if (t := self._troubles.get(k)) is not None),
            None,
        )
        fought = self._drift.fights.split(self._drift.drifted, self._now)[1]
        compared = self._compared
        if compared is not None and (self._facts.head is None or self._compared_with != self._facts.head.id):
            compared = None
        is_lost = self._lost_at_ms is not None and self._now - self._lost_at_ms >= self._contact_ms()
        ahead = self._sources.ahead_of(self._facts.head) if self._facts.head is not None else None
        seen = Seen(
            is_working=self._job is not None and self._job.phase not in QUIET,
            is_source_up=self._sources.is_any_up,
            waits_for=self._orders_from() if self._waits_for_permit() else None,
            is_contact_lost=is_lost,
            ahead=(ahead.name, ahead.knows) if ahead is not None and ahead.knows is not None else None,
            cut_off=self._sources.cut_off(),
            dated=self._by_words(self._facts.head) if self._facts.head is not None else None,
            trouble=trouble,
            offer_trouble=self._offer_trouble,
            owed=self._owed,
            drifted=self._drift.drifted,
            drifted_total=self._drift.total,
            fought=fought if self._config.drift is DriftPolicy.REVERT else (),
            offered=self._offered(),
            not_taken=self._offers.trouble,
            fighters=tuple(dict.fromkeys(self._drift.writers[p] for p in fought if p in self._drift.writers)),
            blind=self._blind,
            undeclared=self._hook_loop.undeclared,
            hook_writes=tuple(
                self._drift.hook_writes[p] for p in self._drift.drifted if p in self._drift.hook_writes
            ),
            was_away=self._drift.was_away,
            returning=self._drift.returning,
            returning_total=self._drift.returning_total,
            drift_trouble=self._troubles.get("drift") or self._troubles.get("revert"),
            compared=(
                None
                if compared is None
                else (compared.added, compared.changed, compared.removed, compared.sample)
            ),
        )
        return stand_of(self.line, self._config, self._facts, seen)

    def _tell(self) -> None:
        if self._job is not None and self._job.phase is FollowPhase.RECORD:
            return  # Live is reported when it is recorded.
        stand, facts = self._stand(), self._facts
        tree, job = facts.tree, self._job
        if job is not None and job.phase is FollowPhase.SWITCH and job.head == facts.refused:
            tree = job.head  # Refused while it is switched: no node may count on the old one.
        report = f.FollowReport(
            stand.standing,
            stand.code,
            stand.reason,
            facts.head,
            facts.live,
            tree,
            next_steps=stand.next_steps,
        )
        if self._config.knows_orders:
            report = replace(
                report,
                staged=self._staged(),
                replaced=facts.replaced,
                refused=facts.refused,
                waits_for_permit=self._waits_for_permit(),
                is_drained=facts.is_drained,
                order_serial=serial_told(facts),
                spent_permit=spent_told(facts),
            )
        if report != self._reported:
            self._reported = report
            self._out.append(report)

    def _is_saved(self) -> bool:
        """While live is being recorded, its effect has saved more than these facts say."""
        is_recording = self._job is not None and self._job.phase is FollowPhase.RECORD
        return super()._is_saved() or (is_recording and self._saved == self._recorded_facts())
