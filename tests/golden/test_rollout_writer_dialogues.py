"""The writer of a rollout, as dialogues: the reports of its partners and its orders to them."""

from __future__ import annotations

import pytest

from instep.core.rollout import vocabulary as v
from instep.core.rollout.machine import RolloutMachine
from instep.core.vocabulary import TimerFired
from instep.model.ids import NodeName
from instep.model.rollout import Approval, Order, RolloutPolicy, Strategy, Verdict
from instep.model.standing import Standing
from tests.golden.dialogue import LINE, Dialogue, ref

S1, S2, S3 = (NodeName(name) for name in ("s1", "s2", "s3"))
ROLLING = RolloutPolicy(strategy=Strategy.ROLLING, order=(S2,))


class Writer(Dialogue):
    """A writer and its partners' reports; each names the serial of the last order that it was given."""

    def __init__(self, policy: RolloutPolicy = ROLLING, *partners: NodeName) -> None:
        super().__init__(RolloutMachine(LINE))
        self.orders: dict[NodeName, Order] = {}
        self.say(v.PolicyChanged(policy), v.PartnersChanged(partners or (S1, S2)), v.RolloutStarted(ref(1)))
        for node in partners or (S1, S2):
            self.tell(node, head=ref(1), live=ref(1), tree=ref(1))
        self.lines.clear()
        self.say(v.HeadPublished(ref(2), ref(1), "ana"))

    def say(self, *events: object) -> Dialogue:
        for event in events:
            super().say(event)
            for effect in self.effects:
                if isinstance(effect, v.GiveOrder):
                    self.orders[effect.node] = effect.order
        return self

    def tell(self, node: NodeName, **said: object) -> None:
        order = self.orders.get(node)
        facts: dict[str, object] = {"head": ref(2), "live": ref(1), "tree": ref(1), **said}
        facts.setdefault("order_serial", order.serial if order is not None else 0)
        self.say(v.PartnerReported(node, v.PartnerReport(Standing.HELD, **facts)))  # type: ignore[arg-type]

    def staged(self, *nodes: NodeName) -> None:
        for node in nodes:
            self.tell(node, staged=ref(2), waits_for_permit=True)

    def switched(self, *nodes: NodeName) -> None:
        for node in nodes:
            self.tell(node, live=ref(2), tree=ref(2), replaced=ref(1))


def test_a_put_back_goes_one_after_another_and_waits_for_each() -> None:
    w = Writer(ROLLING, S1, S2, S3)
    w.staged(S1, S2, S3)
    w.switched(S2, S1)
    w.tell(S3, refused=ref(2), code="probe_failed", reason="status 500")
    assert (w.orders[S2].verdict, w.orders[S1].verdict) == (Verdict.PUT_BACK, Verdict.HOLD)
    w.tell(S2, live=ref(2), tree=ref(1), refused=ref(2), is_drained=True)
    assert w.orders[S1].verdict is Verdict.HOLD
    w.tell(S2, refused=ref(2))
    assert w.orders[S1].verdict is Verdict.PUT_BACK
    w.tell(S1, refused=ref(2))
    w.check("rollout_put_back")


def test_a_reload_goes_one_after_another() -> None:
    w = Writer()
    w.staged(S1, S2)
    w.switched(S2, S1)
    w.lines.clear()
    w.say(v.ReloadAsked(1, is_rolling=True))
    w.tell(S2, live=ref(2), tree=ref(2), is_drained=True)
    w.tell(S2, live=ref(2), tree=ref(2))
    w.tell(S1, live=ref(2), tree=ref(2), is_drained=True)
    w.tell(S1, live=ref(2), tree=ref(2))
    w.check("rollout_reload")


def test_who_was_away_gets_its_permit_when_it_is_back() -> None:
    w = Writer(ROLLING, S1, S2, S3)
    w.say(v.PartnerLost(S1), v.PartnerLost(S2))
    w.staged(S3)
    w.at(30_000).say(TimerFired("absent"))
    w.switched(S3)
    w.staged(S1, S2)
    assert w.machine.facts.state is v.RolloutState.DONE
    assert (w.orders[S1].verdict, w.orders[S2].verdict) == (Verdict.KEEP, Verdict.HOLD)
    w.switched(S1)
    assert w.orders[S2].verdict is Verdict.KEEP
    w.check("rollout_late")


def test_an_abort_puts_back_who_switched_and_withdraws_the_rest() -> None:
    w = Writer()
    w.staged(S1, S2)
    w.switched(S2)
    w.say(v.AbortAsked(1))
    w.tell(S2, refused=ref(2))
    w.tell(S1, refused=ref(2))
    w.say(v.AbortAsked(2))
    w.check("rollout_abort")


def test_a_newer_head_waits_for_who_is_on_its_way_to_the_one_before() -> None:
    w = Writer()
    w.staged(S1, S2)
    w.tell(S2, staged=ref(2), is_drained=True)
    w.say(v.HeadPublished(ref(3), ref(2), "ana"))
    w.tell(S1, head=ref(3), staged=ref(3), waits_for_permit=True)
    w.tell(S2, head=ref(3), tree=ref(2), is_drained=True)
    assert w.orders[S1].verdict is Verdict.HOLD
    w.tell(S2, head=ref(3), live=ref(2), tree=ref(2))
    w.tell(S2, head=ref(3), live=ref(2), tree=ref(2), staged=ref(3), waits_for_permit=True)
    assert w.orders[S2].verdict is Verdict.SWITCH
    w.check("rollout_superseded")


def test_the_time_to_confirm_begins_when_everybody_has_it() -> None:
    w = Writer(RolloutPolicy(strategy=Strategy.ROLLING, confirm_within_ms=2_000))
    w.staged(S1, S2)
    w.switched(S1)
    w.at(2_000).say(TimerFired("renew"))
    w.switched(S2)
    w.at(4_000).say(TimerFired("confirm"), v.ConfirmAsked(1))
    w.check("rollout_confirm")


def test_a_writer_that_lost_state_orders_above_what_its_partners_hold() -> None:
    w = Writer()
    w.tell(S1, staged=ref(2), waits_for_permit=True, order_serial=41)
    w.tell(S2, staged=ref(2), waits_for_permit=True, order_serial=3)
    assert w.orders[S2].serial > 41
    w.check("rollout_lost_state")


def test_a_canary_that_is_gone_when_its_time_ends_has_failed() -> None:
    w = Writer(RolloutPolicy(strategy=Strategy.CANARY, canary_for_ms=5_000))
    w.staged(S1, S2)
    w.switched(S1)
    w.at(1_000).say(v.PartnerLost(S1))
    w.at(5_000).say(TimerFired("watch"))
    assert w.orders[S2].verdict is Verdict.PUT_BACK
    w.check("rollout_canary")


@pytest.mark.parametrize(
    ("author", "own"),
    [
        ("ana", "ana"),
        ("auto, files of ana", "ana"),
        ("ben, by ana", "ben"),
        ("ben, by ana", "ana"),
        ("s1: ana", "ana"),
        ("ana by token deploy", "ana"),
        ("ana", "ana by token deploy"),
    ],
)
def test_a_rollout_waits_for_the_word_of_another_person(author: str, own: str) -> None:
    w = Writer(RolloutPolicy(strategy=Strategy.TOGETHER, approve=Approval.OTHER_THAN_AUTHOR))
    w.say(v.HeadPublished(ref(3), ref(2), author))
    for name in (S1, S2):
        w.tell(name, head=ref(3), staged=ref(3), live=ref(2), tree=ref(2), waits_for_permit=True)
    w.say(v.ApproveAsked(1, own))
    assert w.orders[S1].verdict is w.orders[S2].verdict is Verdict.HOLD
    w.say(v.ApproveAsked(2, "eve"))
    assert w.orders[S1].verdict is w.orders[S2].verdict is Verdict.SWITCH
    if (author, own) == ("ana", "ana"):
        w.check("rollout_approve")


def test_a_change_below_a_newer_one_is_approved_by_another_person_than_its_author() -> None:
    """Two persons who both changed something approve together; one who changed nothing approves alone."""
    w = Writer(RolloutPolicy(strategy=Strategy.TOGETHER, approve=Approval.OTHER_THAN_AUTHOR))
    w.say(v.HeadPublished(ref(3), ref(2), "ben; carl by token deploy"))
    for name in (S1, S2):
        w.tell(name, head=ref(3), staged=ref(3), live=ref(1), tree=ref(1), waits_for_permit=True)
    w.say(v.ApproveAsked(1, "ana"), v.ApproveAsked(2, "ana"))
    assert w.orders[S1].verdict is Verdict.HOLD, "generation 2 is hers, and has no approval"
    assert w.machine.view is not None and "beside that of ana" in w.machine.view.reason
    w.say(v.ApproveAsked(3, "ana by token ci"))
    assert w.orders[S1].verdict is Verdict.HOLD, "the same person again"
    w.say(v.ApproveAsked(4, "carl"))
    assert w.orders[S1].verdict is Verdict.SWITCH
    assert w.machine.facts.approved_by == "ana; ana by token ci; carl"
    w.say(v.HeadPublished(ref(4), ref(3), "auto"))
    for name in (S1, S2):
        w.tell(name, head=ref(4), staged=ref(4), live=ref(3), tree=ref(3), waits_for_permit=True)
    w.say(v.ApproveAsked(5, "ana"))
    assert w.orders[S1].verdict is Verdict.SWITCH, "changes with an approval need no second one"


def test_what_waited_for_an_approval_waits_for_another_after_a_restart_and_after_a_failure() -> None:
    w = Writer(RolloutPolicy(strategy=Strategy.ROLLING, approve=Approval.ONE))
    w.staged(S1, S2)
    assert w.orders[S1].verdict is Verdict.HOLD
    w.say(v.ApproveAsked(1, "ana"), v.ApproveAsked(2, "ana"))
    assert w.machine.facts.approved_by == "ana"
    w.tell(S1, refused=ref(2), code="probe_failed", reason="it answers 500")
    w.say(v.BeginAnewAsked(3))
    assert w.machine.facts.is_to_approve
