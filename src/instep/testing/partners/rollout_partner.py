"""A simulated partner's side of rollouts: reports and orders on the stream, draining and returning. A hub
orders the nodes behind it.
"""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.rollout.hub import HubBook, OwnState, own_state
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import DEFAULT_POLICY, Order
from instep.model.standing import StandingRecord
from instep.net.messages import messages as m
from instep.net.messages.partner_reports import report_message, view_of_report
from instep.testing.checkers.rollout_watch import RolloutWatch
from instep.testing.partners.tree_jobs import TreeJobs
from instep.testing.world.disk import content_digest
from instep.testing.world.world import BrokenPromise

FINISH_SLACK_MS = 3_000


class RolloutSide:
    """A partner's part in rollouts: present only when the seed has them."""

    def __init__(self, partner: TreeJobs, watch: RolloutWatch) -> None:
        self.partner = partner
        self.watch = watch
        self._book = HubBook()
        self._begun: tuple[HeadRef, int, int] | None = None

    # --- reports and orders ---------------------------------------------------------------------------------

    def opened(self, other: str) -> None:
        report = self.partner.machine.report
        if other in self.partner.sources and report is not None:
            self._tell(other, report)

    def closed(self, other: str) -> None:
        self._book.lost(NodeName(other))

    def born(self) -> None:
        """The process that knew what it had ordered is gone. A permit in use has the whole time again, as the saved
        order says; a later order of the same head does not change it."""
        self._book = HubBook()
        self.saved(self.partner.store.facts or f.FollowFacts())

    def tell(self, report: f.FollowReport) -> None:
        for other in self.partner.sessions:
            if other in self.partner.sources:
                self._tell(other, report)

    def _tell(self, other: str, report: f.FollowReport) -> None:
        me = self.partner
        standing = StandingRecord(report.standing, 0, report.reason, report.code, report.next_steps)
        message = report_message(me.line, NodeName(me.name), report, standing)
        me.net.stream(me.name, other, m.encode(message))

    def heard_report(self, sender: str, message: m.Report) -> None:
        order = self._book.seen(NodeName(sender), view_of_report(message), self._own())
        if order is not None:
            self._give(sender, order)

    def order_those_behind(self) -> None:
        """Level: compared after every step with the orders given before."""
        for other, order in self._book.own_changed(self._own()):
            self._give(other, order)

    def _own(self) -> OwnState:
        facts: f.FollowFacts = self.partner.machine.facts
        live = facts.live
        return own_state(facts, DEFAULT_POLICY if live is None else self.partner.ledger.policy_of(live))

    def _give(self, other: str, order: Order) -> None:
        me = self.partner
        self.watch.ordered(other, order)
        me.net.stream(me.name, other, m.encode(m.OrderMessage(me.line, order)))

    def heard_order(self, sender: str, message: m.OrderMessage) -> None:
        me = self.partner
        event = f.OrderGiven(NodeName(sender), message.order)
        held = me.machine.facts.order
        if held is not None and held.attempt != message.order.attempt:
            self.watch.forgiven(me.name)
        me.post(event)
        if me.fails(me.world.options.duplicate):
            me.post(event)

    # --- out and back ---------------------------------------------------------------------------------------

    def drain(self, effect: f.DrainNode) -> None:
        me = self.partner
        self.watch.drains(me.name, effect.head, me.machine.facts)
        me.post(f.NodeDrained(effect.req), me.rng.uniform(0.5, 1) * me.world.options.drain_ms)

    def offer_again(self, effect: f.Return) -> None:
        me = self.partner
        self.watch.returns(me.name, has_probe=me.config.has_probe)
        me.post(f.Returned(effect.req), me.rng.uniform(0.5, 1) * me.world.options.drain_ms)

    def probe_fails(self, head: HeadRef) -> bool:
        """Some generations cannot be served on this node, and stay so until the faults stop."""
        me = self.partner
        chance = content_digest(me.name.encode() + head.id)[0] / 256
        return me.world.is_faulty and chance < me.world.options.probe_fails

    # --- promises -------------------------------------------------------------------------------------------

    def saved(self, facts: f.FollowFacts) -> None:
        """A permit that is used is finished, or the head refused, by this node's own deadline."""
        me = self.partner
        if facts.begun is None:
            self._begun = None
            return
        if self._begun is not None and self._begun[:2] == (facts.begun, me.incarnation):
            return
        begun = self._begun = (facts.begun, me.incarnation, me.world.now)
        order = facts.order
        within = 300_000 if order is None or order.head != facts.begun else order.finish_within_ms

        def check() -> None:
            now: f.FollowFacts = me.machine.facts
            if self._begun == begun and now.begun == begun[0] and now.refused != begun[0]:
                raise BrokenPromise(
                    "R8",
                    f"{me.name} began {begun[0].number} {within} ms ago, and neither finished nor refused it",
                )

        me.later(within * 1.1 + FINISH_SLACK_MS, check)
