"""The ``RolloutMachine``: sends a new generation of one written line through the partners, wave by wave.

``barrier -> waves -> (watching) -> (confirming) -> done``, or back. Level triggered: the intent is in
``RolloutFacts``, where the nodes are is read from their reports, and after every event each node's whole
order is compared with the one it has. Implements ``docs/spec/rollout.md``.
"""

from __future__ import annotations

from typing import assert_never

import msgspec

from instep.core import rollout_vocabulary as v
from instep.core.rollout_nodes import (
    Partner,
    Place,
    failure_of,
    has_reloaded,
    in_order,
    is_behind_retry,
    is_counted,
    place_of,
    says_the_same,
    tries_again,
)
from instep.core.rollout_vocabulary import RolloutEffect, RolloutEvent, RolloutFacts, RolloutState
from instep.core.vocabulary import Note, SetTimer, TimerFired, Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.rollout import Absent, OnFailure, Order, RolloutPolicy, Strategy, Verdict

__all__ = ["RolloutMachine"]

GRACE_MS = 15_000
"""What a node gets over ``finish_within`` for its report to arrive."""
NAMED_MAX = 5
_GOING = (RolloutState.BARRIER, RolloutState.WAVES, RolloutState.WATCHING)
_WALKED = (RolloutState.DONE, RolloutState.CONFIRMING)


class RolloutMachine:
    """One written line. ``absent_after_ms`` is how long a partner may be out of contact before it counts as
    absent (a poll interval)."""

    def __init__(
        self, line: LineId, facts: RolloutFacts | None = None, absent_after_ms: int = 30_000
    ) -> None:
        self.line = line
        self._facts = facts or RolloutFacts()
        self._saved = self._facts
        self._absent_after_ms = absent_after_ms
        self._policy = self._facts.policy
        self._partners: dict[NodeName, Partner] = {}
        self._orders: dict[NodeName, Order] = {}
        self._permitted_at_ms: dict[NodeName, int] = {}
        self._timers: dict[str, int] = {}
        self._is_started = False
        self._now = 0
        self._wall_ms = 0
        self._out: list[RolloutEffect] = []
        self._shown: v.RolloutView | None = None

    @property
    def facts(self) -> RolloutFacts:
        return self._facts

    @property
    def view(self) -> v.RolloutView | None:
        return self._shown

    def step(self, event: RolloutEvent, now_ms: int, wall_ms: int = 0) -> tuple[RolloutEffect, ...]:
        """The only door. ``wall_ms`` is written down, never decided by."""
        self._now, self._wall_ms, self._out = now_ms, wall_ms, []
        self._take(event)
        if self._is_started:
            self._advance()
            self._order_all()
            self._show()
        if self._facts == self._saved:
            return tuple(self._out)
        self._saved = self._facts
        return (v.SaveRollout(self._facts), *self._out)

    # --- events ---------------------------------------------------------------------------------------------

    def _take(self, event: RolloutEvent) -> None:
        match event:
            case v.Started(head):
                self._start(head)
            case v.PolicyChanged(policy, absent_after_ms):
                self._policy = policy
                if absent_after_ms not in (None, self._absent_after_ms):
                    self._absent_after_ms = absent_after_ms
                    self._timer("absent", self._now + absent_after_ms)
            case v.PartnersChanged(partners):
                before, self._partners = self._partners, {}
                for name in partners:
                    self._partners[name] = before.get(name) or Partner(lost_at_ms=self._now)
                    self._timer("absent", self._now + self._absent_after_ms)
            case v.HeadPublished():
                self._begin(event.head, event.replaced, event.author)
            case v.PartnerSeen(node, report):
                self._seen(node, report)
            case v.PartnerLost(node):
                self._lost(node)
            case TimerFired(name):
                self._timers.pop(name, None)
                if name == "watch" and self._facts.state is RolloutState.WATCHING:
                    self._set(is_watched=True, state=RolloutState.WAVES)
                elif name == "confirm" and self._facts.state is RolloutState.CONFIRMING:
                    self._go_back(None, "not_confirmed", "nobody confirmed it in time")
            case _:
                self._out.append(v.Answer(event.request, self._do(event)))

    def _start(self, head: HeadRef | None) -> None:
        """Restarted times are the whole times: what ran before the start is not known."""
        self._is_started = True
        facts = self._facts
        if (
            head is not None
            and head != facts.target
            and (facts.target is None or _is_above(head, facts.target))
        ):
            self._begin(head, facts.target, "")
            return
        for name in facts.granted:
            self._permitted_at_ms[name] = self._now
        if facts.state is RolloutState.WATCHING:
            self._timer("watch", self._now + facts.policy.canary_for_ms)
        elif facts.state is RolloutState.PUTTING_BACK:
            self._arm_back()
        elif facts.state is RolloutState.CONFIRMING and facts.policy.confirm_within_ms is not None:
            self._timer("confirm", self._now + facts.policy.confirm_within_ms)

    def _begin(self, head: HeadRef, replaced: HeadRef | None, author: str) -> None:
        facts = self._facts
        if facts.target is not None and not _is_above(head, facts.target):
            return
        if not v.ended(facts.state):
            self._end(RolloutState.SUPERSEDED)
        self._facts = RolloutFacts(
            target=head,
            replaced=replaced,
            policy=self._policy,
            state=RolloutState.BARRIER,
            serial=facts.serial + 1,
            author=author,
            started_wall_ms=self._wall_ms,
        )
        self._orders.clear()
        self._permitted_at_ms.clear()
        for name in ("watch", "confirm", "back"):
            self._timer(name, None)

    def _seen(self, node: NodeName, report: v.PartnerReport) -> None:
        partner = self._partners.get(node)
        if partner is None:
            return
        partner.report, partner.lost_at_ms = report, None
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
                if state not in _GOING:
                    return self._refusal("to pause or to resume")
                is_paused = isinstance(ask, v.PauseAsked)
                if is_paused != facts.is_paused:
                    self._set(is_paused=is_paused, serial=facts.serial + 1)
            case v.AbortAsked():
                if state not in (*_GOING, RolloutState.CONFIRMING):
                    return self._refusal("to abort")
                if ask.puts_back:
                    self._go_back(None, "aborted", "somebody aborted it")
                else:
                    self._set(serial=facts.serial + 1)
                    self._end(RolloutState.ABORTED)
            case v.ConfirmAsked():
                if state is not RolloutState.CONFIRMING:
                    return self._refusal("to confirm")
                self._set(is_confirmed=True, serial=facts.serial + 1)
                self._timer("confirm", None)
                self._end(RolloutState.DONE)
            case v.RetryAsked():
                if facts.target is None or not v.ended(state) or state is RolloutState.DONE:
                    return self._refusal("to retry")
                self._retry()
            case v.ReloadAsked():
                if state is not RolloutState.DONE:
                    return self._refusal("that is done, so that what is live could be reloaded")
                serial = facts.serial + 1
                self._set(serial=serial, reload_serial=serial, reloads_together=not ask.is_rolling)
            case _:
                assert_never(ask)
        return None

    def _retry(self) -> None:
        facts = self._facts
        if not v.ended(facts.state):
            self._end(RolloutState.PUT_BACK)
        self._facts = RolloutFacts(
            target=facts.target, replaced=facts.replaced, policy=self._policy, state=RolloutState.BARRIER,
            serial=facts.serial + 1, author=facts.author, started_wall_ms=self._wall_ms,
            retry_serial=facts.serial + 1,
        )  # fmt: skip
        self._permitted_at_ms.clear()
        self._timer("back", None)

    def _is_repaired(self) -> bool:
        partner = self._partners.get(self._facts.failed_node) if self._facts.failed_node is not None else None
        return partner is not None and tries_again(partner, self._facts.target, self._facts.serial)

    def _refusal(self, what: str) -> Trouble:
        reason = f"there is no rollout {what}: its state is {self._facts.state.value}"
        return Trouble("no_rollout", reason, Retry.NEVER, 4, f"instep rollout show {self.line.fileset}")

    # --- what is missing ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        facts = self._facts
        if facts.target is None:
            return
        if facts.state in (RolloutState.PUTTING_BACK, RolloutState.PUT_BACK) and self._is_repaired():
            self._retry()
        if facts.state in _GOING or facts.state is RolloutState.CONFIRMING:
            self._judge()
        if self._facts.state is RolloutState.PUTTING_BACK:
            if all(self._is_back(name) for name in self._partners) or "back" not in self._timers:
                self._timer("back", None)
                self._end(RolloutState.ABORTED if facts.failed_code == "aborted" else RolloutState.PUT_BACK)
            return
        if self._facts.state is RolloutState.BARRIER and not self._facts.is_paused and self._is_barrier_met():
            self._set(state=RolloutState.WAVES)
        if self._facts.state is RolloutState.WAVES and not self._facts.is_paused:
            self._grant()
        elif self._facts.state in _WALKED:
            self._grant_late()

    def _judge(self) -> None:
        """A granted node that refused the target, or that did not come to hold it in time, has failed."""
        facts = self._facts
        assert facts.target is not None
        within_ms = facts.policy.finish_within_ms + GRACE_MS
        for name in facts.granted:
            partner = self._partners.get(name)
            if partner is None:
                continue
            is_old = is_behind_retry(partner.report, facts.retry_serial)
            why = None if is_old else failure_of(partner.report, facts.target)
            if why is None and self._place(name) is not Place.SWITCHED:
                at_ms = self._permitted_at_ms.setdefault(name, self._now) + within_ms
                if self._now < at_ms:
                    self._timer(f"node-{name}", at_ms)
                    continue
                why = ("not_finished", f"it was not live {within_ms} ms after its permit")
            if why is not None:
                self._fail(name, *why)
                return

    def _fail(self, name: NodeName, code: str, reason: str) -> None:
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
        for timer in ("watch", "confirm"):
            self._timer(timer, None)
        self._arm_back()

    def _arm_back(self) -> None:
        """A node that cannot go back must not keep the rollout from its end."""
        self._timer("back", self._now + self._facts.policy.finish_within_ms + GRACE_MS)

    def _end(self, state: RolloutState) -> None:
        self._set(state=state, is_paused=False, ended_wall_ms=self._wall_ms)
        self._out.append(v.KeepRollout(self._facts))
        facts = self._facts
        if facts.granted or facts.failed_reason:  # where nobody waited for a permit there is nothing to tell
            number = facts.target.number if facts.target is not None else 0
            why = f": {self._failure()}" if facts.failed_reason else ""
            self._out.append(Note("rollout", f"the rollout of generation {number} is {state.value}{why}"))

    def _failure(self) -> str:
        who = f"{self._facts.failed_node}: " if self._facts.failed_node else ""
        return f"{who}{self._facts.failed_reason}"

    def _strategy(self) -> Strategy:
        strategy = self._facts.policy.strategy
        return Strategy.ROLLING if strategy is Strategy.AUTO else strategy

    def _place(self, name: NodeName) -> Place:
        assert self._facts.target is not None
        partner = self._partners.get(name)
        report = None if partner is None else partner.report
        if is_behind_retry(report, self._facts.retry_serial):
            return Place.STAGING
        return place_of(report, self._facts.target)

    def _is_back(self, name: NodeName) -> bool:
        """Absent ones are not waited for: they find the order to go back when they return. One that was not
        heard since the start may hold the target."""
        partner, target = self._partners[name], self._facts.target
        if partner.lost_at_ms is not None:
            return self._now - partner.lost_at_ms >= self._absent_after_ms
        if name in self._facts.granted:
            return self._place(name) is Place.PUT_BACK
        return partner.report is not None and target not in (partner.report.live, partner.report.tree)

    def _expected(self) -> list[NodeName]:
        """The partners that this rollout is for, in the order of their turn."""
        policy = self._facts.policy
        return [
            name
            for name in in_order(policy, tuple(self._partners))
            if is_counted(
                self._partners[name], self._now, policy.absent is Absent.WAIT, self._absent_after_ms
            )
        ]

    def _is_barrier_met(self) -> bool:
        """``auto`` has none: its nodes go when they are ready, one at a time."""
        if self._facts.policy.strategy is Strategy.AUTO or not self._partners:
            return True
        expected = self._expected()
        if not expected:
            return False
        ready = [n for n in expected if self._place(n) not in (Place.STAGING, Place.PUT_BACK)]
        return len(ready) * 100 >= len(expected) * self._facts.policy.quorum_percent

    def _waiting(self) -> list[NodeName]:
        """Those that are staged here and now, reachable and without a permit, in order."""
        granted = self._facts.granted
        found = []
        for name in in_order(self._facts.policy, tuple(self._partners)):
            partner = self._partners[name]
            if name in granted or partner.lost_at_ms is not None or partner.report is None:
                continue
            if partner.report.waits_for_permit and self._place(name) is Place.STAGED:
                found.append(name)
        return found

    def _in_flight(self) -> list[NodeName]:
        """Those in their wave, and those that are drained yet for the rollout before."""
        granted = [
            n
            for n in self._facts.granted
            if n in self._partners and self._place(n) not in (Place.SWITCHED, Place.PUT_BACK)
        ]
        return [*granted, *(n for n in sorted(self._partners) if n not in granted and self._is_out(n))]

    def _is_out(self, name: NodeName) -> bool:
        partner = self._partners[name]
        return partner.lost_at_ms is None and partner.report is not None and partner.report.is_drained

    def _grant(self) -> None:
        waiting, in_flight = self._waiting(), self._in_flight()
        if self._strategy() is Strategy.TOGETHER:
            self._permit(waiting)
        elif not in_flight:
            if self._strategy() is Strategy.CANARY and self._facts.granted and not self._facts.is_watched:
                self._set(state=RolloutState.WATCHING)
                self._timer("watch", self._now + self._facts.policy.canary_for_ms)
                return
            self._permit(waiting[: self._facts.policy.batch])
        if self._is_walked():
            within_ms = self._facts.policy.confirm_within_ms
            if within_ms is None or not self._facts.granted:
                self._end(RolloutState.DONE)
            else:
                self._set(state=RolloutState.CONFIRMING)
                self._timer("confirm", self._now + within_ms)

    def _grant_late(self) -> None:
        """Who was absent gets its permit when it comes back, one batch at a time."""
        in_flight = [n for n in self._in_flight() if self._partners[n].lost_at_ms is None]
        if not in_flight:
            self._permit(self._waiting()[: self._facts.policy.batch])

    def _permit(self, names: list[NodeName]) -> None:
        if not names:
            return
        for name in names:
            self._permitted_at_ms[name] = self._now
        self._set(granted=(*self._facts.granted, *names), serial=self._facts.serial + 1)

    def _is_walked(self) -> bool:
        """Everyone expected holds the target; who refused it without a permit is past helping. A line without
        partners has nobody to wait for; one whose partners are all away waits for the first."""
        if not self._partners:
            return True
        expected = self._expected()
        places = [self._place(name) for name in expected]
        return bool(expected) and not self._in_flight() and set(places) <= {Place.SWITCHED, Place.PUT_BACK}

    # --- orders ---------------------------------------------------------------------------------------------

    def _order_all(self) -> None:
        if self._facts.target is None:
            return
        for name, partner in sorted(self._partners.items()):
            if partner.lost_at_ms is not None or partner.report is None:
                continue
            if partner.report.head != self._facts.target:
                continue  # It takes orders for its head only; its report of the new head brings this one.
            order, old = self._order_for(name), self._orders.get(name)
            if (old is not None and says_the_same(old, order)) or self._needs_none(name, order):
                continue
            self._orders[name] = order
            self._out.append(v.GiveOrder(name, order))

    def _needs_none(self, name: NodeName, order: Order) -> bool:
        """With ``auto`` a node that does not wait is not told to hold: it goes when it is ready, without a word."""
        facts, report = self._facts, self._partners[name].report
        return (
            order.verdict is Verdict.HOLD
            and facts.policy.strategy is Strategy.AUTO
            and not (facts.retry_serial or name in self._orders or name in facts.granted)
            and not (report is not None and report.waits_for_permit)
        )

    def _order_for(self, name: NodeName) -> Order:
        facts = self._facts
        assert facts.target is not None
        policy: RolloutPolicy = facts.policy
        verdict = self._verdict(name)
        serial = facts.serial
        if verdict is Verdict.RELOAD:
            serial = facts.reload_serial
        elif facts.reload_serial and self._serves(name):
            serial = facts.reload_serial - 1  # Below the order to reload, which would else count as old.
        drains = self._strategy() is not Strategy.TOGETHER
        if verdict is Verdict.RELOAD:
            drains = not facts.reloads_together
        return Order(facts.target, serial, verdict, drains, policy.finish_within_ms, policy.confirm_within_ms)

    def _verdict(self, name: NodeName) -> Verdict:
        facts = self._facts
        is_granted = name in facts.granted
        if facts.state in (RolloutState.PUTTING_BACK, RolloutState.PUT_BACK):
            return Verdict.PUT_BACK
        if facts.state is RolloutState.ABORTED:
            return Verdict.PUT_BACK if facts.failed_code == "aborted" else self._kept(is_granted)
        if facts.state is RolloutState.STOPPED:
            return self._kept(is_granted)
        if facts.state is RolloutState.DONE and self._serves(name) and self._may_reload(name):
            return Verdict.RELOAD  # also where the target went live without a permit
        if not is_granted or (facts.is_paused and self._place(name) is Place.STAGED):
            return Verdict.HOLD
        return Verdict.KEEP if facts.state is RolloutState.DONE else Verdict.SWITCH

    def _kept(self, is_granted: bool) -> Verdict:
        return Verdict.KEEP if is_granted else Verdict.HOLD

    def _may_reload(self, name: NodeName) -> bool:
        """Whether its turn has come: fewer than a batch before it have not finished theirs."""
        facts = self._facts
        if not facts.reload_serial:
            return False
        if facts.reloads_together:
            return True
        busy = 0
        for other in in_order(facts.policy, tuple(self._partners)):
            if other == name:
                return busy < facts.policy.batch
            partner = self._partners[other]
            is_meant = partner.lost_at_ms is None and self._serves(other)
            if is_meant and not has_reloaded(partner.report, facts.reload_serial):
                busy += 1
        return False

    def _serves(self, name: NodeName) -> bool:
        """Whether the target is live there, drained or not."""
        report, target = self._partners[name].report, self._facts.target
        return report is not None and report.live == report.tree == target and report.refused != target

    # --- small parts ----------------------------------------------------------------------------------------

    def _set(self, **changes: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **changes)

    def _timer(self, name: str, at_ms: int | None) -> None:
        if self._timers.get(name) == at_ms:
            return
        if at_ms is None:
            self._timers.pop(name, None)
        else:
            self._timers[name] = at_ms
        self._out.append(SetTimer(name, at_ms))

    def _show(self) -> None:
        facts = self._facts
        if facts.target is None:
            return
        nodes = []
        for name in in_order(facts.policy, tuple(self._partners)):
            partner = self._partners[name]
            report = partner.report
            state = "unreachable" if partner.lost_at_ms is not None else self._place(name).value
            if state == "staged" and name in facts.granted:
                state = "permitted"
            turn = facts.granted.index(name) if name in facts.granted else None
            wave = None if turn is None else turn // facts.policy.batch + 1
            is_drained = report is not None and report.is_drained
            nodes.append(v.NodeView(name, state, wave, None if report is None else report.reason, is_drained))
        view = v.RolloutView(facts, self._reason(), tuple(nodes))
        if view != self._shown:
            self._shown = view
            self._out.append(v.ShowRollout(view))

    def _reason(self) -> str:
        facts = self._facts
        if facts.failed_reason:
            return self._failure()
        if facts.is_paused:
            return "paused"
        if facts.state is RolloutState.BARRIER:
            late = [n for n in self._expected() if self._place(n) is Place.STAGING]
            return f"waits until these have staged it: {', '.join(late[:NAMED_MAX]) or 'no partner is known'}"
        if facts.state is RolloutState.WAVES:
            busy = self._in_flight() or [n for n in self._expected() if self._place(n) is not Place.SWITCHED]
            return f"waits for {', '.join(busy[:NAMED_MAX])}"
        words: str = facts.state.value
        return words


def _is_above(head: HeadRef, other: HeadRef) -> bool:
    return head.position > other.position
