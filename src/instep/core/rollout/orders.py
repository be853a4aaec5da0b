"""The present order of each node: its verdict from the intent and its place, given again until the node has it."""

from __future__ import annotations

from instep.core.rollout import vocabulary as v
from instep.core.rollout.book import UNCONFIRMED
from instep.core.rollout.nodes import NodePlace, has_reloaded, in_order, says_the_same
from instep.core.rollout.vocabulary import RolloutState
from instep.core.rollout.waves import RENEW_MS_MIN, RolloutWaves
from instep.model.ids import NodeName
from instep.model.rollout import DURATION_MS_MAX, Order, RolloutPolicy, Strategy, Verdict

_WITHOUT_IT = (NodePlace.STAGED, NodePlace.PUTTING_BACK, NodePlace.PUT_BACK)


class RolloutOrders(RolloutWaves):
    """Compares each node's whole order with the one that it was given."""

    def _order_all(self) -> None:
        if self._facts.target is None:
            return
        for name, partner in sorted(self._partners.items()):
            if partner.lost_at_ms is not None or partner.report is None:
                continue
            if partner.report.head != self._facts.target:
                continue  # It takes orders for its head only; its report of the new head brings this one.
            order, old = self._order_for(name), self._orders.get(name)
            is_known = (
                old is not None and says_the_same(old, order) and not self._is_renewed(name, old, order)
            )
            if is_known or self._needs_none(name, order):
                continue
            self._orders[name] = order
            if order.verdict is Verdict.RELOAD:
                self._reload_begun[name] = order.serial
            self._out.append(v.GiveOrder(name, order))

    def _is_renewed(self, name: NodeName, old: Order, new: Order) -> bool:
        """A node that waits to be confirmed gets an order at every step, so that its own time begins anew."""
        is_waiting = new.verdict in (Verdict.SWITCH, Verdict.HOLD) and new.confirm_within_ms is not None
        return is_waiting and new.serial > old.serial and self._place(name) is NodePlace.SWITCHED

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
        confirm_within_ms = self._confirm_within_ms()
        permit = 0 if self._strategy() is Strategy.TOGETHER else self._permit_of(name)
        return Order(
            facts.target, serial, verdict, drains, policy.finish_within_ms, confirm_within_ms, facts.attempt, permit
        )  # fmt: skip

    def _confirm_within_ms(self) -> int | None:
        """Before every node has it no operator can confirm, and a node that waits for its turn to go back must not go
        early. Until then a node's time is longer, and begins anew with every step and every ``renew``. Only a writer
        that is gone lets it pass."""
        within_ms = self._facts.policy.confirm_within_ms
        if within_ms is None or self._facts.state not in UNCONFIRMED:
            return within_ms
        return min(DURATION_MS_MAX, max(within_ms, RENEW_MS_MIN) + self._within_ms)

    def _verdict(self, name: NodeName) -> Verdict:
        facts = self._facts
        is_granted = name in facts.granted
        if self._is_to_go_back:
            return Verdict.PUT_BACK if self._may_go_back(name) else Verdict.HOLD
        if facts.state is RolloutState.DONE and self._serves(name) and self._may_reload(name):
            return Verdict.RELOAD  # also where the target went live without a permit
        if not is_granted or (self._is_held and self._place(name) in _WITHOUT_IT):
            return Verdict.HOLD
        return Verdict.KEEP if v.ended(facts.state) else Verdict.SWITCH

    @property
    def _is_held(self) -> bool:
        """A permit that is not used yet is withdrawn, also from a node that refused: on a retry it waits."""
        facts = self._facts
        return facts.is_paused or facts.state in (RolloutState.STOPPED, RolloutState.ABORTED)

    def _may_go_back(self, name: NodeName) -> bool:
        """A node that serves the target goes back when its turn comes, a batch at a time; all others at once."""
        if self._strategy() is Strategy.TOGETHER or self._place(name) is not NodePlace.SWITCHED:
            return True
        if self._is_going_back(name):
            return True
        busy = [n for n in self._partners if self._is_going_back(n) and not self._is_overdue(n)]
        turn = [
            n
            for n in in_order(self._facts.policy, tuple(self._partners))
            if self._place(n) is NodePlace.SWITCHED
            and self._partners[n].lost_at_ms is None
            and not self._is_going_back(n)
        ]
        return name in turn[: max(0, self._facts.policy.batch - len(busy))]

    def _may_reload(self, name: NodeName) -> bool:
        """Whether its turn has come: no node is under way, for this or with a late permit. A node that has its order
        keeps its turn, also when one that comes before it is back; a node that is lost meanwhile is waited for no
        longer than a node gets to finish."""
        facts = self._facts
        if not facts.reload_serial:
            return False
        if facts.reloads_together or has_reloaded(self._partners[name].report, facts.reload_serial):
            return True
        reloading = self._reloading()
        begun = [other for other in reloading if self._is_near(other) or not self._is_overdue(other)]
        turn = [
            other
            for other in in_order(facts.policy, tuple(self._partners))
            if other not in reloading
            and self._is_near(other)
            and self._serves(other)
            and not has_reloaded(self._partners[other].report, facts.reload_serial)
        ]
        out = {*begun, *self._in_flight()}
        places = 0 if self._is_one_unheard() else facts.policy.batch - len(out)
        return name in reloading or name in turn[: max(0, places)]

    def _is_near(self, name: NodeName) -> bool:
        return self._partners[name].lost_at_ms is None

    def _needs_none(self, name: NodeName, order: Order) -> bool:
        """With ``auto`` a node that does not wait gets no order to hold: it switches when it is ready, without one."""
        facts, report = self._facts, self._partners[name].report
        return (
            order.verdict is Verdict.HOLD
            and facts.policy.strategy is Strategy.AUTO
            and not (facts.retry_serial or name in self._orders or name in facts.granted)
            and not (report is not None and report.waits_for_permit)
        )
