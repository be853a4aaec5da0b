"""The ``RolloutMachine``: sends a new generation of one written line through the partners, wave by wave.

``barrier -> waves -> (watching) -> (confirming) -> done``, or back. Level triggered: the intent is in
``RolloutFacts``, where the nodes are is read from their reports, and after every event each node's whole
order is compared with the one it has. Implements ``docs/spec/rollout.md``.
"""

from __future__ import annotations

from typing import assert_never

from instep.core.authors import joined
from instep.core.contract import check_all
from instep.core.rollout import contract
from instep.core.rollout import vocabulary as v
from instep.core.rollout.approving import is_enough, is_own, unapproved
from instep.core.rollout.book import GOING, UNCONFIRMED
from instep.core.rollout.nodes import NodePlace, Partner, failure_of, is_behind_retry, tries_again
from instep.core.rollout.show import RolloutShow
from instep.core.rollout.vocabulary import RolloutEffect, RolloutEvent, RolloutFacts, RolloutState
from instep.core.vocabulary import Note, TimerFired, Trouble
from instep.errors import Retry
from instep.model.counts import lasting
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import OnFailure
from instep.model.standing import Standing

SERIAL_LEAP_MAX = 1_000_000
"""So far above its own a writer believes a serial that a partner names, once."""
_FAILED = (RolloutState.PUTTING_BACK, RolloutState.PUT_BACK, RolloutState.STOPPED)
_WALKED = (RolloutState.DONE, RolloutState.CONFIRMING)


class RolloutMachine(RolloutShow):
    """One written line. ``absent_after_ms`` is how long a partner may be out of contact before it counts as
    absent (a poll interval)."""

    def step(self, event: RolloutEvent, now_ms: int, wall_ms: int = 0) -> tuple[RolloutEffect, ...]:
        """The only door. ``wall_ms`` is written down, never decided by."""
        self._now, self._wall_ms, self._out = now_ms, wall_ms, []
        self._take(event)
        if self._is_started:
            self._advance()
            self._order_all()
            self._mind_who_is_out()
            self._renew()
            self._show()
        effects = tuple(self._out)
        if self._facts != self._saved:
            self._saved = self._facts
            effects = (v.SaveRollout(self._facts), *effects)
        return check_all(contract.INVARIANTS, self, effects)

    # --- events ---------------------------------------------------------------------------------------------

    def _take(self, event: RolloutEvent) -> None:
        match event:
            case v.RolloutStarted(head, author):
                self._start(head, author)
            case v.PolicyChanged():
                self._configure(event)
            case v.PartnersChanged(partners):
                self._take_partners(partners)
            case v.HeadPublished():
                self._begin(event.head, event.replaced, event.author)
            case v.PartnerReported(node, report):
                self._seen(node, report)
            case v.PartnerLost(node):
                self._lost(node)
            case TimerFired(name):
                self._fired(name)
            case v.AnswersDiffered(request, head, reason):
                is_running = head == self._facts.target and self._facts.state in (*GOING, *_WALKED)
                refusal = None if is_running else self._refusal("of that generation to put back")
                if is_running:
                    self._fail(None, "golden_differs", reason)
                self._out.append(v.GiveRolloutAnswer(request, refusal))
            case _:
                self._out.append(v.GiveRolloutAnswer(event.request, self._do(event)))

    def _fired(self, name: str) -> None:
        self._timers.pop(name, None)
        state = self._facts.state
        if name == "watch" and state is RolloutState.WATCHING:
            self._end_watch()
        elif name == "renew" and state in UNCONFIRMED:
            self._set(serial=self._facts.serial + 1)
        elif name == "confirm" and state is RolloutState.CONFIRMING:
            self._go_back(None, "not_confirmed", "no operator confirmed it in time")

    def _take_partners(self, names: tuple[NodeName, ...]) -> None:
        """A node that was taken out of the list loses a permit that it did not use yet: its place went to the next one,
        so when it is listed again it waits for its turn. One that had used it keeps it, however often the list changes
        meanwhile; for a node that is not listed at the start this is unknown."""
        leave = (n for n in self._facts.granted if n not in names)
        left = tuple(
            n
            for n in leave
            if (n in self._partners or not self._is_listed) and self._place(n) is not NodePlace.SWITCHED
        )
        self._is_listed = True
        if left:
            self._take_permits(left)
        for name in left:
            self._orders.pop(name, None)
        before, self._partners = self._partners, {}
        for name in names:
            self._partners[name] = before.get(name) or Partner(lost_at_ms=self._now)
            self._timer("absent", self._now + self._absent_after_ms)

    def _configure(self, event: v.PolicyChanged) -> None:
        self._policy = event.policy
        if event.absent_after_ms not in (None, self._absent_after_ms):
            self._absent_after_ms = event.absent_after_ms
            self._timer("absent", self._now + event.absent_after_ms)

    def _start(self, head: HeadRef | None, author: str) -> None:
        """Timers restart with their whole length: the time that passed before the start is unknown."""
        self._is_started = True
        facts = self._facts
        if (
            head is not None
            and head != facts.target
            and (facts.target is None or _is_above(head, facts.target))
        ):
            self._begin(head, facts.target, author)
            return
        if facts.state is RolloutState.WATCHING:
            self._timer("watch", self._now + facts.policy.canary_for_ms)
        elif facts.state is RolloutState.CONFIRMING:
            self._confirming()

    def _begin(self, head: HeadRef, replaced: HeadRef | None, author: str) -> None:
        facts = self._facts
        if facts.target is not None and not _is_above(head, facts.target):
            return
        finishing = tuple(dict.fromkeys((*facts.finishing, *self._busy())))
        if not v.ended(facts.state):
            self._end(RolloutState.SUPERSEDED)
        self._begin_facts(head, replaced, author, finishing, unapproved(facts))
        self._orders.clear()
        self._since_ms.clear()
        for name in ("watch", "confirm"):
            self._timer(name, None)

    def _seen(self, node: NodeName, report: v.PartnerReport) -> None:
        partner = self._partners.get(node)
        if partner is None:
            return
        partner.report, partner.lost_at_ms = report, None
        told = max(report.order_serial, report.spent_permit)
        if report.head == self._facts.target and 0 < told - self._facts.serial <= SERIAL_LEAP_MAX:
            self._set(serial=told)  # This node lost state: it goes on above what it once ordered.
            self._orders.clear()
        order = self._orders.get(node)
        if order is not None and (report.order_serial != order.serial or report.head != order.head):
            del self._orders[node]  # It does not hold what it was given: it is given again.

    def _lost(self, node: NodeName) -> None:
        partner = self._partners.get(node)
        if partner is not None and partner.lost_at_ms is None:
            partner.lost_at_ms = self._now
            self._orders.pop(node, None)
            self._timer("absent", self._now + self._absent_after_ms)

    def _do(self, ask: v.Ask) -> Trouble | None:
        facts, state = self._facts, self._facts.state
        match ask:
            case v.PauseAsked() | v.ResumeAsked():
                if state not in GOING:
                    return self._refusal("to pause or to resume")
                is_paused = isinstance(ask, v.PauseAsked)
                if is_paused != facts.is_paused:
                    self._set(is_paused=is_paused, serial=facts.serial + 1)
            case v.AbortAsked():
                if state not in (*GOING, RolloutState.CONFIRMING):
                    return self._refusal("to abort")
                if ask.puts_back:
                    self._go_back(None, "aborted", "an operator aborted it")
                else:
                    self._set(serial=facts.serial + 1)
                    self._end(RolloutState.ABORTED)
            case v.ConfirmAsked():
                if state is not RolloutState.CONFIRMING:
                    return self._refusal("to confirm")
                self._set(is_confirmed=True, serial=facts.serial + 1)
                self._timer("confirm", None)
                self._end(RolloutState.DONE)
            case v.ApproveAsked(_, person, number):
                return self._approve(person, number)
            case v.BeginAnewAsked():
                if facts.target is None or not v.ended(state) or state is RolloutState.DONE:
                    return self._refusal("to retry")
                self._retry()
            case v.ReloadAsked():
                if state is not RolloutState.DONE:
                    return self._refusal("that is done, so that the live generation could be reloaded")
                # A number of its own: a node that takes another order has not taken this one.
                serial = facts.serial + 1
                self._set(serial=serial + 1, reload_serial=serial, reloads_together=not ask.is_rolling)
            case _:
                assert_never(ask)
        return None

    def _approve(self, person: str, seen: int | None) -> Trouble | None:
        """Let the partners have it, by the word of a person whom the policy lets say so. One who looked at another
        generation than the present one (``seen``) approves nothing."""
        facts = self._facts
        number = facts.target.number if facts.target is not None else 0
        if seen not in (None, number):
            reason = f"generation {seen} is to be approved, and the newest one is generation {number}"
            step = f"look at it, then: instep rollout approve {self.line.fileset} --generation {number}"
            return Trouble("other_generation", reason, Retry.NEVER, 4, step)
        if not facts.is_to_approve:
            return self._refusal("that waits for an approval")
        if is_own(facts, person):
            reason = f"{person} may not approve this: its author is {facts.author}, and approve is other_than_author"
            return Trouble("own_change", reason, Retry.NEVER, 5, "let another person approve it")
        if person in facts.approvals:
            return None
        approvals = (*facts.approvals, person)
        self._set(approvals=approvals)
        if is_enough(facts, approvals):
            self._set(approved_by=joined(approvals), serial=facts.serial + 1)
        self._out.append(Note("approved", f"{person} approved generation {number}", (("person", person),)))
        return None

    def _retry(self) -> None:
        facts = self._facts
        if not v.ended(facts.state):
            self._end(RolloutState.SUPERSEDED)  # Some may still be on their way back.
        self._begin_facts(facts.target, facts.replaced, facts.author, facts.finishing, facts.unapproved)
        self._set(retry_serial=facts.serial + 1, attempt=facts.attempt + 1)
        self._since_ms.clear()

    def _begin_facts(
        self, target: HeadRef | None, replaced: HeadRef | None, author: str, finishing: tuple[NodeName, ...],
        without: tuple[str, ...],
    ) -> None:  # fmt: skip
        """A rollout at the barrier, by the present policy."""
        serial = self._facts.serial + 1
        self._facts = RolloutFacts(
            target=target, replaced=replaced, policy=self._policy, state=RolloutState.BARRIER, serial=serial,
            author=author, started_wall_ms=self._wall_ms, finishing=finishing,
            unapproved=without,
        )  # fmt: skip

    def _is_repaired(self) -> bool:
        """Whether the node that failed was made to retry. One that was only too slow for a rollout that was stopped
        refused nothing, and waits as before."""
        facts = self._facts
        was_slow = facts.state is RolloutState.STOPPED and facts.failed_code == "not_finished"
        if facts.failed_node is None or facts.state not in _FAILED or was_slow:
            return False
        partner = self._partners.get(facts.failed_node)
        return partner is not None and tries_again(partner, facts.target, facts.serial)

    def _refusal(self, what: str) -> Trouble:
        reason = f"there is no rollout {what}: its state is {self._facts.state.value}"
        return Trouble("no_rollout", reason, Retry.NEVER, 4, f"instep rollout show {self.line.fileset}")

    # --- what is missing ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        facts = self._facts
        if facts.target is None:
            return
        if self._is_repaired():
            self._retry()
        self._mind_who_is_out()
        if facts.state in GOING or facts.state is RolloutState.CONFIRMING:
            self._judge()
        if self._facts.state in (*GOING, *_WALKED):
            self._end_spent_permits()
        if self._facts.state is RolloutState.PUTTING_BACK:
            if all(self._is_back(name) or self._is_overdue(name) for name in self._partners):
                self._end(RolloutState.ABORTED if facts.failed_code == "aborted" else RolloutState.PUT_BACK)
            return
        is_open = self._facts.state is RolloutState.BARRIER and not self._facts.is_paused
        if is_open and not self._facts.is_to_approve and self._is_barrier_met():
            self._set(state=RolloutState.WAVES)
        if self._facts.state is RolloutState.WAVES and not self._facts.is_paused:
            self._grant()
        elif self._facts.state in _WALKED:
            self._grant_late()

    def _judge(self) -> None:
        """A granted node that refused the target, or that did not come to hold it in time, has failed."""
        facts = self._facts
        assert facts.target is not None
        for name in facts.granted:
            partner = self._partners.get(name)
            if partner is None:
                continue
            is_old = is_behind_retry(partner.report, facts.retry_serial)
            why = None if is_old else failure_of(partner.report, facts.target)
            if why is None and self._place(name) is not NodePlace.SWITCHED and self._is_overdue(name):
                why = ("not_finished", f"it was not live {lasting(self._within_ms)} after its permit")
            if why is not None:
                self._fail(name, *why)
                return

    def _end_spent_permits(self) -> None:
        """A node that refused the target, and is made to retry there, waits for its turn like one that is late."""
        spent = tuple(name for name in self._facts.granted if self._is_spent(name))
        if spent:
            self._take_permits(spent)

    def _is_spent(self, name: NodeName) -> bool:
        partner, permit = self._partners.get(name), self._permit_of(name)
        report = None if partner is None else partner.report
        return report is not None and report.head == self._facts.target and 0 < permit <= report.spent_permit

    def _end_watch(self) -> None:
        """A canary that died or stands ill meanwhile has failed, whatever its probe said."""
        for name in self._facts.granted:
            partner = self._partners.get(name)
            report = None if partner is None else partner.report
            if partner is not None and partner.lost_at_ms is not None:
                self._fail(name, "canary_lost", "it was out of reach when its time as a canary ended")
                return
            if report is not None and report.standing in (Standing.FAILING, Standing.DAMAGED):
                self._fail(name, report.code or "canary_failed", report.reason or "it stands ill as a canary")
                return
        self._set(is_watched=True, state=RolloutState.WAVES)

    def _fail(self, name: NodeName | None, code: str, reason: str) -> None:
        if self._facts.policy.on_failure is OnFailure.PUT_BACK:
            self._go_back(name, code, reason)
            return
        self._set(
            failed_node=name, failed_code=code, failed_reason=reason[:1000], serial=self._facts.serial + 1
        )
        self._end(RolloutState.STOPPED)

    def _go_back(self, name: NodeName | None, code: str, reason: str) -> None:
        self._set(
            state=RolloutState.PUTTING_BACK,
            failed_node=name,
            failed_code=code,
            failed_reason=reason[:1000],
            serial=self._facts.serial + 1,
        )
        self._since_ms.clear()
        for timer in ("watch", "confirm"):
            self._timer(timer, None)

    def _is_back(self, name: NodeName) -> bool:
        """Absent ones are not waited for: they find the order to go back when they return. One that was not
        heard since the start may hold the target."""
        partner, target = self._partners[name], self._facts.target
        if partner.lost_at_ms is not None:
            return self._now - partner.lost_at_ms >= self._absent_after_ms
        if name in self._facts.granted:
            return self._place(name) is NodePlace.PUT_BACK
        return partner.report is not None and target not in (partner.report.live, partner.report.tree)


def _is_above(head: HeadRef, other: HeadRef) -> bool:
    return head.position > other.position
