"""A hub's orders on the wire: the decisions of ``core.rollout_hub`` for the nodes behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from instep.core.follow.vocabulary import FollowFacts
from instep.core.rollout.hub import HubBook, OwnState
from instep.core.rollout.hub import own_state as state_of
from instep.model.definition import Definition
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.rollout import DEFAULT_POLICY, decode_policy
from instep.net.messages.messages import Report
from instep.net.messages.partner_reports import view_of_report
from instep.node.config.settings import Settings
from instep.node.lines.line_net import LineNet


def own_state(facts: FollowFacts, definition_of: Callable[[HeadRef], Definition | None]) -> OwnState:
    """The state of a hub that orders to the nodes behind it are made from."""
    definition = definition_of(facts.live) if facts.live is not None else None
    return state_of(facts, decode_policy(definition.rollout) if definition is not None else DEFAULT_POLICY)


def orders_from(settings: Settings, writer: NodeName, sources: Iterable[NodeName]) -> NodeName | None:
    """Whose rollout this node takes part in: the writer's when this node dials it, else the hub's that it has the
    line from, of several the first by name; None while no hub is known."""
    partner = settings.partners.get(writer)
    if partner is not None and partner.address is not None:
        return writer
    return min(sources, default=None)


class HubOrders:
    """Gives the direct partners of one followed line the order that the hub's own state means for them."""

    def __init__(self, line: LineId, net: LineNet) -> None:
        self._line = line
        self._net = net
        self._book = HubBook()

    def seen(self, report: Report, own: OwnState) -> None:
        """A direct partner reported its standing."""
        order = self._book.seen(report.node, view_of_report(report), own)
        if order is not None:
            self._net.order(self._line, report.node, order)

    def own_changed(self, own: OwnState) -> None:
        """The hub itself stands otherwise."""
        for node, order in self._book.own_changed(own):
            self._net.order(self._line, node, order)

    def lost(self, node: NodeName) -> None:
        """The session with a direct partner has ended: it gets its order anew when it is back."""
        self._book.lost(node)
