"""What each node is ordered at present: its verdict from the intent and its place, given again until it fits."""

from __future__ import annotations

import msgspec

from instep.core import rollout_vocabulary as v
from instep.core.rollout_book import GOING
from instep.core.rollout_nodes import Partner, Place, in_order
from instep.core.rollout_vocabulary import RolloutState
from instep.core.rollout_waves import RENEW_MS_MIN, RolloutWaves
from instep.model.ids import NodeName
from instep.model.rollout import DURATION_MS_MAX, Order, RolloutPolicy, Strategy, Verdict
from instep.model.standing import Standing

__all__ = ["RolloutOrders"]


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
            if old is not None and _is_same(old, order) and not self._is_renewed(name, old, order):
                continue
            self._orders[name] = order
            self._out.append(v.GiveOrder(name, order))

    def _is_renewed(self, name: NodeName, old: Order, new: Order) -> bool:
        """Who waits to be confirmed is told of every step, so that its own time begins anew."""
        is_waiting = new.verdict is Verdict.SWITCH and new.confirm_within_ms is not None
        return is_waiting and new.serial > old.serial and self._place(name) is Place.SWITCHED

    def _order_for(self, name: NodeName) -> Order:
        facts = self._facts
        assert facts.target is not None
        policy: RolloutPolicy = facts.policy
        verdict = self._verdict(name)
        serial = facts.serial
        if verdict is Verdict.RELOAD:
            serial = facts.reload_serial
        elif facts.reload_serial and self._place(name) is Place.SWITCHED:
            serial = facts.reload_serial - 1  # Below the order to reload, which would else count as old.
        drains = self._strategy() is not Strategy.TOGETHER
        confirm_within_ms = self._confirm_within_ms()
        return Order(
            facts.target, serial, verdict, drains, policy.finish_within_ms, confirm_within_ms, facts.attempt
        )

    def _confirm_within_ms(self) -> int | None:
        """Before everybody has it nobody can confirm: until then a node's time is longer, and begins anew with every
        step and every ``renew``, so that only a writer that is gone lets it pass."""
        within_ms = self._facts.policy.confirm_within_ms
        if within_ms is None or self._facts.state not in GOING:
            return within_ms
        return min(DURATION_MS_MAX, max(within_ms, RENEW_MS_MIN) + self._within_ms)

    def _verdict(self, name: NodeName) -> Verdict:
        facts = self._facts
        is_granted = name in facts.granted
        if self._is_to_go_back:
            return Verdict.PUT_BACK if self._may_go_back(name) else Verdict.HOLD
        if not is_granted or (self._is_held and self._place(name) is Place.STAGED):
            return Verdict.HOLD
        if facts.state is RolloutState.DONE:
            return Verdict.RELOAD if self._may_reload(name) else Verdict.KEEP
        return Verdict.KEEP if v.ended(facts.state) else Verdict.SWITCH

    @property
    def _is_held(self) -> bool:
        """A permit that was not used yet is withdrawn."""
        facts = self._facts
        return facts.is_paused or facts.state in (RolloutState.STOPPED, RolloutState.ABORTED)

    def _may_go_back(self, name: NodeName) -> bool:
        """Who serves the target goes back when its turn comes, a batch at a time; all others at once."""
        if self._strategy() is Strategy.TOGETHER or self._place(name) is not Place.SWITCHED:
            return True
        if self._is_going_back(name):
            return True
        busy = [n for n in self._partners if self._is_going_back(n) and not self._is_overdue(n)]
        turn = [
            n
            for n in in_order(self._facts.policy, tuple(self._partners))
            if self._place(n) is Place.SWITCHED
            and self._partners[n].lost_at_ms is None
            and not self._is_going_back(n)
        ]
        return name in turn[: max(0, self._facts.policy.batch - len(busy))]

    def _may_reload(self, name: NodeName) -> bool:
        """Whether its turn has come: fewer than a batch before it have not finished theirs."""
        if not self._facts.reload_serial:
            return False
        busy = 0
        for other in in_order(self._facts.policy, tuple(self._partners)):
            if other == name:
                return busy < self._facts.policy.batch
            partner = self._partners[other]
            if (
                other in self._facts.granted
                and partner.lost_at_ms is None
                and not self._has_reloaded(partner)
            ):
                busy += 1
        return False

    def _has_reloaded(self, partner: Partner) -> bool:
        report = partner.report
        return (
            report is not None
            and report.order_serial >= self._facts.reload_serial
            and not report.is_drained
            and report.standing is not Standing.APPLYING
        )


def _is_same(old: Order, new: Order) -> bool:
    """Whether ``new`` says nothing that ``old`` did not; to reload is said once a serial."""
    if new.verdict is Verdict.RELOAD:
        return old == new
    return bool(msgspec.structs.replace(old, serial=new.serial) == new)
