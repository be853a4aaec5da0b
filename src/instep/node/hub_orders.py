"""What a hub orders those behind it: to go where it has been, and back when it went back.

A hub has no rollout of its own: its state is the order. Those behind it get their permits together, once the
generation is live at the hub; waves are the writer's affair, among its direct partners.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from instep.core.follow_vocabulary import Due, FollowFacts
from instep.model.definition import Definition
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.rollout import DEFAULT_POLICY, Order, RolloutPolicy, Strategy, Verdict, decode_policy
from instep.net.messages import Report
from instep.node.line_net import LineNet
from instep.node.settings import Settings

__all__ = ["HubOrders", "OwnState", "orders_from", "own_state"]


@dataclass(frozen=True, slots=True)
class OwnState:
    """How the line stands at the hub itself. ``live`` is None while a switch or a hook is under way."""

    live: HeadRef | None
    refused: HeadRef | None
    unconfirmed: HeadRef | None
    policy: RolloutPolicy


def own_state(facts: FollowFacts, definition_of: Callable[[HeadRef], Definition | None]) -> OwnState:
    """What those behind a hub may be told of it."""
    definition = definition_of(facts.live) if facts.live is not None else None
    policy = decode_policy(definition.rollout) if definition is not None else DEFAULT_POLICY
    is_whole = facts.live == facts.tree and facts.due is Due.NOTHING
    return OwnState(facts.live if is_whole else None, facts.refused, facts.unconfirmed, policy)


def orders_from(settings: Settings, writer: NodeName, sources: Iterable[NodeName]) -> NodeName | None:
    """Whose rollout this node takes part in: the writer's when this node dials it, else the hub's that it has the
    line from, of several the first by name; None while no hub is known."""
    partner = settings.partners.get(writer)
    if partner is not None and partner.address is not None:
        return writer
    return min(sources, default=None)


class HubOrders:
    """The direct partners of one followed line and the order that each of them got last."""

    def __init__(self, line: LineId, net: LineNet) -> None:
        self._line = line
        self._net = net
        self._reports: dict[NodeName, Report] = {}
        self._given: dict[NodeName, Order] = {}

    def seen(self, report: Report, own: OwnState) -> None:
        """A direct partner told how it stands."""
        self._reports[report.node] = report
        self._order(report, own)

    def lost(self, who: NodeName) -> None:
        self._reports.pop(who, None)
        self._given.pop(who, None)

    def own_changed(self, own: OwnState) -> None:
        """The hub itself stands otherwise."""
        for report in self._reports.values():
            self._order(report, own)

    def _order(self, report: Report, own: OwnState) -> None:
        """Level: what the node should hold, given when it does not hold it. A serial above all that it knows."""
        verdict = verdict_for(report, own)
        if verdict is None or report.head is None:
            return
        given = self._given.get(report.node)
        if given is not None and given.head == report.head and given.verdict is verdict:
            if report.order_serial >= given.serial:
                return
            order = given
        else:
            serial = max(report.order_serial, given.serial if given is not None else 0) + 1
            policy, head = own.policy, report.head
            drains = policy.strategy is not Strategy.TOGETHER
            confirm_ms = policy.confirm_within_ms if own.unconfirmed == head else None
            order = Order(head, serial, verdict, drains, policy.finish_within_ms, confirm_ms)
        self._given[report.node] = order
        self._net.order(self._line, report.node, order)


def verdict_for(report: Report, own: OwnState) -> Verdict | None:
    """What the hub's own state means for a node behind it; None when nothing is to be said."""
    head = report.head
    if head is None:
        return None
    if head == own.refused:
        return Verdict.PUT_BACK if report.refused != head else None
    if head != own.live:
        return None
    if report.live != head:
        was_ordered_back = report.refused == head and report.standing.code == "put_back_ordered"
        return Verdict.SWITCH if report.waits_for_permit or was_ordered_back else None
    is_kept = own.policy.confirm_within_ms is not None and own.unconfirmed != head
    return Verdict.KEEP if is_kept and report.order_serial else None
