"""A partner's part in rollouts: its report, the drain around a switch, and a hub's orders to the nodes behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from instep.core.follow import vocabulary as f
from instep.core.follow.permits import serial_told, spent_told
from instep.core.follow.vocabulary import FollowFacts
from instep.core.rollout.hub import HubBook, OwnState
from instep.core.rollout.hub import own_state as state_of
from instep.core.vocabulary import PartnerReport
from instep.model.definition import Definition
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.rollout import DEFAULT_POLICY, decode_policy
from instep.model.standing import StandingRecord
from instep.net.messages import messages as m
from instep.net.messages.messages import Report
from instep.net.messages.partner_reports import report_message, view_of_report
from instep.node.config.settings import Settings
from instep.node.lines.line_net import LineNet
from instep.node.runtime.draining import rollout_key
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime

DRAIN_REASON_MAX = 1_000


def report_of(
    runtime: Runtime,
    line: LineId,
    facts: f.FollowFacts,
    told: f.FollowReport | None,
    standing: StandingRecord,
) -> m.Report:
    """``told`` is the machine's last report: one moment's truth, so that a live generation that is not recorded yet
    is not reported. Drained counts the drain of this line's rollout; the reasons are all."""
    seen = told or PartnerReport(
        standing.standing, standing.code, standing.reason, facts.head, facts.live, facts.tree,
        replaced=facts.replaced, refused=facts.refused,
        is_drained=facts.is_drained, order_serial=serial_told(facts), spent_permit=spent_told(facts),
    )  # fmt: skip
    return msgspec.structs.replace(
        report_message(line, runtime.name, seen, standing),
        attested_root=seen.live.root if seen.live is not None else b"",
        at_ms=wall_ms(),
        refused_config=runtime.refused_config[:DRAIN_REASON_MAX],
        drain_reason="; ".join(each.reason for each in runtime.draining.reasons())[:DRAIN_REASON_MAX],
    )


TOLD_WITHIN_S = 30.0
"""How long a switch waits for a balancer that asks to hear that this node is drained, and again that it is back."""


async def drain(runtime: Runtime, line: LineId, effect: f.DrainNode) -> f.NodeDrained:
    """Drain this node; the drain is on disk before any balancer learns of it, so that a crash does not lose it."""
    reason = f"generation {effect.head.number} of {line.fileset} is going live"
    runtime.draining.begin(rollout_key(line.fileset), reason)
    runtime.draining.linger_ms = runtime.settings.drain_linger_ms
    return f.NodeDrained(effect.req, await runtime.draining.told_out(TOLD_WITHIN_S))


async def offer_again(runtime: Runtime, line: LineId, effect: f.Return) -> f.Returned:
    """Offer this node again; it stays out when another cause drains it."""
    runtime.draining.end(rollout_key(line.fileset))
    return f.Returned(effect.req, await runtime.draining.told_in(TOLD_WITHIN_S))


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
