"""A hub's orders to the nodes behind it: to go where it has been, and back when it went back.

A hub has no rollout of its own: its state is the order. The nodes behind it get their permits together, once the
generation is live at the hub; waves are the writer's affair, among its direct partners. Because they go together
no node drains: else all of them would be drained at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from instep.core.follow.vocabulary import Due, FollowFacts
from instep.core.rollout.book import GRACE_MS
from instep.core.rollout.vocabulary import PartnerReport
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import DURATION_MS_MAX, SERIAL_MAX, Order, RolloutPolicy, Verdict


@dataclass(frozen=True, slots=True)
class OwnState:
    """How the line stands at the hub itself. ``live`` is None while a switch or a hook is under way. ``serial`` and
    ``confirm_within_ms`` belong to its own newest order."""

    live: HeadRef | None
    refused: HeadRef | None
    unconfirmed: HeadRef | None
    policy: RolloutPolicy
    serial: int = 0
    confirm_within_ms: int | None = None


def own_state(facts: FollowFacts, policy: RolloutPolicy) -> OwnState:
    """The state of a hub that its orders are made from; ``policy`` comes from the live generation's definition."""
    is_whole = facts.live == facts.tree and facts.due is Due.NOTHING
    order, live = facts.order, facts.live if is_whole else None
    if order is None:
        return OwnState(live, facts.refused, facts.unconfirmed, policy)
    return OwnState(live, facts.refused, facts.unconfirmed, policy, order.serial, order.confirm_within_ms)


class HubBook:
    """The direct partners of one followed line, their newest reports, and the order that each got last."""

    def __init__(self) -> None:
        self._reports: dict[NodeName, PartnerReport] = {}
        self._given: dict[NodeName, Order] = {}
        self._renewed: dict[NodeName, int] = {}
        """The serial of the hub's own order with which the time to confirm began last."""

    def seen(self, node: NodeName, report: PartnerReport, own: OwnState) -> Order | None:
        """A direct partner reported: return the order to give it now."""
        self._reports[node] = report
        return self._order(node, report, own)

    def lost(self, node: NodeName) -> None:
        self._reports.pop(node, None)
        self._given.pop(node, None)
        self._renewed.pop(node, None)

    def own_changed(self, own: OwnState) -> tuple[tuple[NodeName, Order], ...]:
        """The hub's own state changed: the new orders, by node."""
        found = [(node, self._order(node, report, own)) for node, report in self._reports.items()]
        return tuple((node, order) for node, order in found if order is not None)

    def _order(self, node: NodeName, report: PartnerReport, own: OwnState) -> Order | None:
        """Level: the order that the node should hold, given when it does not hold it. Its serial is above all that
        the node knows."""
        verdict = _verdict(report, own)
        if verdict is None or report.head is None:
            return None
        given = self._given.get(node)
        is_unconfirmed = own.unconfirmed == report.head
        is_renewed = is_unconfirmed and own.serial > self._renewed.get(node, own.serial)
        if given is not None and given.head == report.head and given.verdict is verdict and not is_renewed:
            return given if report.order_serial < given.serial else None
        serial = min(SERIAL_MAX, max(report.order_serial, given.serial if given is not None else 0) + 1)
        policy, head = own.policy, report.head
        confirm_ms = own.confirm_within_ms if is_unconfirmed else None
        if confirm_ms is not None:  # The hub gives up first, and then orders them back.
            confirm_ms = min(DURATION_MS_MAX, confirm_ms + GRACE_MS)
            self._renewed[node] = own.serial
        order = self._given[node] = Order(head, serial, verdict, False, policy.finish_within_ms, confirm_ms)
        return order


def _verdict(report: PartnerReport, own: OwnState) -> Verdict | None:
    """The order that follows from the hub's own state for a node behind it; None when there is nothing to order."""
    head = report.head
    if head is None:
        return None
    if head == own.refused:
        return Verdict.PUT_BACK if report.refused != head else None
    if head != own.live:
        return None
    if report.live != head:
        was_ordered_back = report.refused == head and report.code == "put_back_ordered"
        return Verdict.SWITCH if report.waits_for_permit or was_ordered_back else None
    if own.unconfirmed == head:
        return Verdict.SWITCH if report.order_serial else None
    is_kept = own.policy.confirm_within_ms is not None
    return Verdict.KEEP if is_kept and report.order_serial else None
