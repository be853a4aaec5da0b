"""The ``OfferMachine``: edits made at a node that follows a line, brought to its home. Implements
``docs/spec/changes.md``.

An edit is ``waiting``, then ``offered`` in the one change set under way, then ``accepted`` until its generation is
here, or ``losing`` until its local version is in the archive. Under a lock it is ``editing``. A removal among too many
is ``blocked``.
"""

from __future__ import annotations

from typing import assert_never

from instep.core import vocabulary as w
from instep.core.changes import offer_contract as contract
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer_book import DrawnValues
from instep.core.changes.offer_locks import OfferLocks
from instep.core.changes.offer_vocabulary import EditState, OfferEffect, OfferEvent, OfferFacts
from instep.core.contract import check_all
from instep.errors import Retry
from instep.model.counts import counted
from instep.model.ids import LineId
from instep.model.lock import LockEnd, LockGone


class OfferMachine(OfferLocks):
    """One followed line. The clock of ``step`` is CLOCK_BOOTTIME."""

    def __init__(self, line: LineId, config: o.OfferConfig, facts: OfferFacts | None = None) -> None:
        super().__init__(line, config, facts)
        self._forget_looks()
        self._forget_offers()
        self._forget_locks()

    def step(self, event: OfferEvent, now_ms: int, wall_ms: int = 0) -> tuple[OfferEffect, ...]:
        """The only door. ``wall_ms`` dates change sets."""
        self._now, self._wall_ms, self._out = now_ms, wall_ms, []
        owned = tuple(self._owned)
        if self._is_started:
            self._lapse()
        self._take(event)
        self._forget_looks_at(path for path in owned if path not in self._owned)
        if self._is_started:
            self._go_on_releasing()
            self._submit_next()
            self._look()
            self._arm()
            self._report()
        return check_all(contract.INVARIANTS, self, self._ordered())

    @property
    def phase(self) -> str | None:
        return "submit" if self._job is not None else None

    def _take(self, event: OfferEvent) -> None:
        match event:
            case o.OffersStarted():
                self._start(event)
            case o.OfferConfigChanged(config):
                self._configure(config)
            case o.TreeLooked():
                self._looked(event)
            case o.HomeUp():
                self._is_up = True
                self._try_again()
            case o.HomeDown():
                self._is_up = False
                self._fail_releases(self._unreachable())
            case o.HeadReached():
                self._head_reached(event)
            case o.EditsSetAside(paths):
                self._set_aside(paths)
            case o.RemovalsJudged(are_accepted):
                self._judge_removals(are_accepted=are_accepted)
            case o.OffersRetried():
                self._try_again()
            case w.TimerFired(name):
                self._fired(name)
            case o.LockWanted() | o.ReleaseWanted() | o.LockNews():
                self._take_about_locks(event)
            case _:
                self._take_answer(event)

    def _take_about_locks(self, event: o.LockWanted | o.ReleaseWanted | o.LockNews) -> None:
        match event:
            case o.LockWanted():
                self._lock_wanted(event)
            case o.ReleaseWanted():
                self._release_wanted(event)
            case o.LockNews():
                self._lock_news(event)
            case _:
                assert_never(event)

    def _take_answer(self, event: o.OfferAnswerEvent) -> None:
        """One to an older request is dropped."""
        match event:
            case o.OfferAnswered():
                self._answered(event)
            case o.OfferFailed():
                self._submit_failed(event)
            case o.LockAnswered():
                self._lock_answered(event)
            case o.LockAskFailed():
                self._lock_ask_failed(event)
            case o.PathsLooked():
                self._paths_looked(event)
                self._release_looked(event)
            case o.LookFailed():
                self._look_failed(event)
                self._release_not_looked(event)
            case _:
                assert_never(event)

    def _fired(self, name: str) -> None:
        if name in ("submit", "look"):
            self._backoff.come_due(name)
        elif name == "lock-end":
            self._timer_ms = None

    def _start(self, event: o.OffersStarted) -> None:
        """A lock's time is not known after another boot. Its token goes on saying when the edit was made."""
        self._is_started = True
        self._draws = DrawnValues(event.nonce_seed)
        self._backoff = type(self._backoff)(self._draws)
        self._entries = event.entries
        if event.boot_id != self._facts.boot_id:
            for held in self._facts.held:
                self._lock_lost(held, LockGone(LockEnd.UNKNOWN, "", "this machine was started anew"))
        for owned in tuple(self._owned.values()):
            if owned.state is EditState.ASKED:
                self._superseded(
                    owned
                )  # A generation that was not laid there may have come just before the end.
        self._set(boot_id=event.boot_id)

    def _configure(self, config: o.OfferConfig) -> None:
        """Edits that nothing is known of at the home are given back to the policy that counts now."""
        is_end = self._config.offers and not config.offers
        self._config = config
        if is_end:
            for owned in tuple(self._owned.values()):
                if owned.token is None and owned.state in (EditState.WAITING, EditState.BLOCKED):
                    del self._owned[owned.path]
        self._try_again()

    def _try_again(self) -> None:
        self._backoff.clear_all()
        self._refused = None

    # --- what is shown ----------------------------------------------------------------------------------------

    def _report(self) -> None:
        counts = dict.fromkeys(EditState, 0)
        for owned in self._owned.values():
            counts[owned.state] += 1
        shown = tuple((state, count) for state, count in counts.items() if count)
        report = o.ReportOffers(shown, self._trouble(counts[EditState.BLOCKED]))
        if report != self._reported:
            self._reported = report
            self._out.append(report)

    def _trouble(self, blocked: int) -> w.Trouble | None:
        if self._refused is not None:
            return self._refused
        if blocked:
            reason = f"{counted(blocked, 'path')} removed here would be removed everywhere"
            name = self.line.fileset
            steps = f"instep offer accept-deletions {name}; or: instep offer undo-deletions {name}"
            return w.Trouble("removals_blocked", reason, Retry.NEVER, 4, steps)
        return self._failed
