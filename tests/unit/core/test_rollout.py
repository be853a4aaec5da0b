"""The writer of a rollout against partners that obey: waves, failure, pause, confirmation."""

from __future__ import annotations

from instep.core.rollout import vocabulary as v
from instep.core.rollout.machine import RolloutMachine
from instep.core.rollout.vocabulary import PartnerReport, RolloutState
from instep.core.vocabulary import TimerFired
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.rollout import Absent, OnFailure, RolloutPolicy, Strategy, Verdict, why_not_order
from instep.model.standing import Standing

LINE = LineId(FilesetName("catalog"), NodeName("main"))
OLD, NEW = (HeadRef(1, n, Digest(bytes([n]) * 32), Digest(bytes([n]) * 32)) for n in (1, 2))
NODES = tuple(NodeName(n) for n in ("s1", "s2", "s3"))


class Fleet:
    """Machine and the last order of every node; a node reports as ordered, when asked."""

    def __init__(self, **policy: object) -> None:
        self.machine = RolloutMachine(LINE)
        self.orders: dict[str, v.GiveOrder] = {}
        self.kept: list[RolloutState] = []
        self.now = 0
        self.say(v.PolicyChanged(RolloutPolicy(**policy)))  # type: ignore[arg-type]
        self.say(v.RolloutStarted(), v.PartnersChanged(NODES), v.HeadPublished(NEW, OLD))

    def say(self, *events: v.RolloutEvent) -> None:
        for event in events:
            known = self.machine.facts.serial
            for effect in self.machine.step(event, self.now):
                if isinstance(effect, v.GiveOrder):
                    assert why_not_order(effect.order) is None, f"no node would take {effect.order}"
                    before = self.orders.get(effect.node)
                    # A node takes no order that is older than the one it has, but for a reload, which has its own number.
                    if before is not None and effect.order.verdict is not Verdict.RELOAD:
                        assert effect.order.serial >= before.order.serial
                    self.orders[effect.node] = effect
                elif isinstance(effect, v.KeepRollout):
                    self.kept.append(effect.facts.state)
            assert self.machine.facts.serial >= known

    def report(self, node: str, **said: object) -> None:
        order = self.orders.get(node)
        facts: dict[str, object] = {"head": NEW, "live": OLD, "tree": OLD, **said}
        facts["order_serial"] = order.order.serial if order else 0
        self.say(v.PartnerReported(NodeName(node), PartnerReport(Standing.HELD, **facts)))  # type: ignore[arg-type]

    def stage(self, *nodes: str) -> None:
        for node in nodes:
            self.report(node, staged=NEW, waits_for_permit=True)

    def switched(self, node: str) -> None:
        self.report(node, live=NEW, tree=NEW, replaced=OLD)

    def verdicts(self) -> list[Verdict]:
        return [self.orders[n].order.verdict for n in NODES]

    @property
    def state(self) -> RolloutState:
        return self.machine.facts.state


def test_the_node_with_the_oldest_live_generation_goes_first_unless_the_policy_names_one() -> None:
    """Steady changes began each rollout with the first names, and the last partner got none of them."""
    for order, expected in (((), "s3"), ((NodeName("s2"),), "s2")):
        fleet = Fleet(strategy=Strategy.ROLLING, order=order)
        oldest = HeadRef(1, 0, Digest(b"o" * 32), Digest(b"o" * 32))
        for node, live in (("s1", OLD), ("s2", OLD), ("s3", oldest)):
            fleet.report(node, live=live, tree=live, staged=NEW, waits_for_permit=True)
        assert [n for n in NODES if fleet.orders[n].order.verdict is Verdict.SWITCH] == [expected]


def test_rolling_waits_for_all_and_then_lets_one_go_at_a_time() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage("s1", "s2")
    assert fleet.state is RolloutState.BARRIER
    fleet.stage("s3")
    assert fleet.verdicts() == [Verdict.SWITCH, Verdict.HOLD, Verdict.HOLD]
    assert fleet.orders["s1"].order.drains
    assert [fleet.orders[node].order.permit > 0 for node in NODES] == [True, False, False]
    fleet.switched("s1")
    assert fleet.verdicts() == [Verdict.SWITCH, Verdict.SWITCH, Verdict.HOLD]
    fleet.switched("s2")
    fleet.switched("s3")
    assert fleet.verdicts() == [Verdict.KEEP] * 3
    assert fleet.kept == [RolloutState.DONE]


def test_a_failed_canary_puts_back_everyone_that_has_it() -> None:
    fleet = Fleet(strategy=Strategy.CANARY)
    fleet.stage(*NODES)
    fleet.report("s1", refused=NEW, code="probe_failed", reason="status 500")
    assert fleet.verdicts() == [Verdict.PUT_BACK] * 3
    assert fleet.kept == [RolloutState.PUT_BACK]
    assert fleet.machine.facts.failed_node == "s1"


def test_put_back_waits_for_a_node_that_had_switched() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage(*NODES)
    fleet.switched("s1")
    fleet.report("s2", refused=NEW, code="probe_failed", reason="status 500")
    assert fleet.state is RolloutState.PUTTING_BACK
    fleet.report("s1", refused=NEW)
    assert fleet.kept == [RolloutState.PUT_BACK]


def test_stop_gives_no_further_permit_and_leaves_the_switched_alone() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING, on_failure=OnFailure.STOP)
    fleet.stage(*NODES)
    fleet.switched("s1")
    fleet.report("s2", refused=NEW, code="probe_failed", reason="status 500")
    assert fleet.state is RolloutState.STOPPED
    assert fleet.verdicts() == [Verdict.KEEP, Verdict.HOLD, Verdict.HOLD]
    fleet.stage("s2")
    assert (fleet.state, fleet.machine.facts.attempt) == (RolloutState.WAVES, 2)
    assert fleet.verdicts() == [Verdict.HOLD, Verdict.SWITCH, Verdict.HOLD]


def test_unconfirmed_goes_back_and_to_confirm_after_that_is_refused() -> None:
    fleet = Fleet(strategy=Strategy.TOGETHER, confirm_within_ms=1_000)
    fleet.stage(*NODES)
    for node in NODES:
        fleet.switched(node)
    assert fleet.machine.facts.state.value == "confirming"
    fleet.now = 1_000
    fleet.say(TimerFired("confirm"), v.ConfirmAsked(7))
    assert fleet.state is RolloutState.PUTTING_BACK
    assert fleet.verdicts() == [Verdict.PUT_BACK] * 3


def test_a_writer_that_comes_back_in_mid_wave_goes_on_where_it_was() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage(*NODES)
    fleet.machine = RolloutMachine(LINE, fleet.machine.facts)
    fleet.say(v.PartnersChanged(NODES), v.RolloutStarted(NEW))
    fleet.stage("s2", "s3")
    assert fleet.verdicts() == [Verdict.SWITCH, Verdict.HOLD, Verdict.HOLD]
    fleet.switched("s1")
    assert fleet.verdicts() == [Verdict.SWITCH, Verdict.SWITCH, Verdict.HOLD]


def test_pause_holds_the_next_wave_and_resuming_twice_permits_once() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage(*NODES)
    fleet.say(v.PauseAsked(1))
    fleet.switched("s1")
    assert fleet.verdicts()[1] is Verdict.HOLD
    fleet.say(v.ResumeAsked(2), v.ResumeAsked(3))
    assert fleet.machine.facts.granted == ("s1", "s2")


def test_a_retry_waits_for_nodes_to_hear_of_it_and_begins_anew() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage(*NODES)
    fleet.report("s1", refused=NEW, code="probe_failed", reason="status 500")
    stale = fleet.orders["s1"].order.serial
    fleet.say(v.BeginAnewAsked(1))
    old = PartnerReport(Standing.FAILING, head=NEW, live=OLD, tree=OLD, refused=NEW, order_serial=stale)
    fleet.say(v.PartnerReported(NodeName("s1"), old))
    assert (fleet.state, fleet.kept) == (RolloutState.BARRIER, [RolloutState.PUT_BACK])
    fleet.stage(*NODES)
    assert fleet.verdicts() == [Verdict.SWITCH, Verdict.HOLD, Verdict.HOLD]


def test_a_node_that_was_repaired_and_made_to_try_again_begins_the_rollout_anew() -> None:
    fleet = Fleet()
    fleet.stage(*NODES)
    for _ in range(2):
        fleet.report("s1", refused=NEW, code="probe_failed", reason="status 500")
        assert fleet.kept == [RolloutState.PUT_BACK]
    fleet.stage("s1")
    assert fleet.state is RolloutState.WAVES
    assert fleet.orders["s1"].order.verdict is Verdict.SWITCH
    assert fleet.orders["s2"].order.verdict is Verdict.HOLD


def test_nobody_begins_while_a_node_is_drained_for_the_rollout_before() -> None:
    fleet = Fleet()
    fleet.report("s3")
    fleet.report("s1", is_drained=True, tree=OLD)
    fleet.stage("s2")
    assert "s2" not in fleet.machine.facts.granted
    fleet.report("s1")
    assert fleet.machine.facts.granted == ("s2",)


def test_nobody_begins_before_every_partner_was_heard_or_is_absent() -> None:
    """A writer that starts does not know which nodes are drained: one that it has not heard may be."""
    fleet = Fleet()
    fleet.stage("s1", "s2")
    assert not fleet.machine.facts.granted
    fleet.now += 30_000
    fleet.say(TimerFired("absent"))
    assert fleet.machine.facts.granted == ("s1",)


def test_with_auto_a_node_that_does_not_wait_gets_no_order_and_a_line_without_partners_is_done() -> None:
    fleet = Fleet()
    for node in NODES:
        fleet.report(node)
        fleet.switched(node)
    assert (fleet.orders, fleet.kept) == ({}, [RolloutState.DONE])
    alone = RolloutMachine(LINE)
    alone.step(v.RolloutStarted(NEW), 0)
    assert alone.facts.state is RolloutState.DONE


def test_who_reloads_keeps_its_turn_when_one_that_comes_before_it_is_back() -> None:
    fleet = Fleet()
    for node in NODES:
        fleet.switched(node)
    fleet.say(v.PartnerLost(NodeName("s1")))
    fleet.say(v.ReloadAsked(1, is_rolling=True))
    assert fleet.orders["s2"].order.verdict is Verdict.RELOAD
    fleet.report("s1", live=NEW, tree=NEW)
    reloading = [node for node, given in fleet.orders.items() if given.order.verdict is Verdict.RELOAD]
    assert reloading == ["s2"]
    fleet.switched("s2")
    assert fleet.orders["s1"].order.verdict is Verdict.RELOAD


def test_who_is_lost_while_it_reloads_is_waited_for_until_its_time_has_passed() -> None:
    fleet = Fleet()
    for node in NODES:
        fleet.switched(node)
    fleet.say(v.ReloadAsked(1, is_rolling=True))
    assert fleet.orders["s1"].order.verdict is Verdict.RELOAD
    fleet.say(v.PartnerLost(NodeName("s1")))
    assert "s2" not in fleet.orders
    fleet.now += 100_000
    fleet.say(TimerFired("absent"))
    assert "s2" not in fleet.orders, "it is known to be absent, and its time has not passed"
    fleet.now += 220_000
    fleet.say(TimerFired("node-s1"))
    assert fleet.orders["s2"].order.verdict is Verdict.RELOAD


def test_a_node_that_reloads_for_long_and_is_in_reach_keeps_its_turn() -> None:
    fleet = Fleet()
    for node in NODES:
        fleet.switched(node)
    fleet.say(v.ReloadAsked(1, is_rolling=True))
    fleet.now += 320_000
    fleet.say(TimerFired("node-s1"))
    assert "s2" not in fleet.orders


def done_without_s3() -> Fleet:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.say(v.PartnerLost(NodeName("s3")))
    fleet.now += 60_000
    fleet.say(TimerFired("absent"))
    for node in ("s1", "s2"):
        fleet.switched(node)
    return fleet


def test_a_reload_and_a_late_permit_wait_for_each_other() -> None:
    fleet = done_without_s3()
    assert fleet.state is RolloutState.DONE
    fleet.stage("s3")
    assert fleet.orders["s3"].order.verdict is Verdict.KEEP
    fleet.say(v.ReloadAsked(1, is_rolling=True))
    assert "s1" not in fleet.orders or fleet.orders["s1"].order.verdict is not Verdict.RELOAD
    fleet.switched("s3")
    assert fleet.orders["s1"].order.verdict is Verdict.RELOAD


def test_no_other_order_has_the_serial_of_the_reload() -> None:
    """A node that goes live late holds its permit by a later order: that is not the one to reload, which it would
    then do next to another."""
    fleet = done_without_s3()
    fleet.stage("s3")
    fleet.say(v.ReloadAsked(1, is_rolling=True), v.PartnerLost(NodeName("s3")))
    fleet.report("s3", staged=NEW, is_drained=True)
    assert fleet.orders["s3"].order.verdict is Verdict.KEEP
    assert fleet.orders["s3"].order.serial > fleet.machine.facts.reload_serial


def test_a_late_permit_waits_for_who_was_ordered_to_reload() -> None:
    fleet = done_without_s3()
    fleet.say(v.ReloadAsked(1, is_rolling=True))
    assert fleet.orders["s1"].order.verdict is Verdict.RELOAD
    fleet.stage("s3")
    assert fleet.orders["s3"].order.verdict is Verdict.HOLD


def test_who_tries_again_while_others_go_back_begins_another_attempt_and_nobody_tells_that_all_are_back() -> (
    None
):
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage(*NODES)
    fleet.switched("s1")
    fleet.report("s2", refused=NEW, code="probe_failed", reason="status 500")
    assert fleet.orders["s1"].order.verdict is Verdict.PUT_BACK
    fleet.stage("s2")
    assert fleet.kept == [RolloutState.SUPERSEDED]
    assert fleet.machine.facts.attempt == 2


def test_a_reload_reaches_who_went_live_without_a_permit_and_stops_where_it_fails() -> None:
    fleet = Fleet()
    for node in NODES:
        fleet.switched(node)
    fleet.say(v.ReloadAsked(1, is_rolling=True))
    assert fleet.orders["s1"].order.verdict is Verdict.RELOAD and "s2" not in fleet.orders
    fleet.report("s1", live=NEW, tree=NEW, is_drained=True)
    assert fleet.orders["s1"].order.verdict is Verdict.RELOAD
    fleet.report("s1", live=NEW, tree=NEW, code="reload_failed")
    assert "s2" not in fleet.orders
    fleet.switched("s1")
    assert fleet.orders["s2"].order.verdict is Verdict.RELOAD
    together = Fleet()
    for node in NODES:
        together.switched(node)
    together.say(v.ReloadAsked(1))
    assert together.verdicts() == [Verdict.RELOAD] * 3
    assert not together.orders["s1"].order.drains


def test_nodes_that_refused_after_the_rollout_was_done_wait_for_their_turn_when_they_are_tried_again() -> (
    None
):
    """Both came late, had their permits, and refused; an operator repairs both and says retry at both at once."""
    fleet = Fleet(strategy=Strategy.ROLLING, absent=Absent.SKIP, quorum_percent=1)
    fleet.say(v.PartnerLost(NodeName("s1")), v.PartnerLost(NodeName("s2")))
    fleet.now = 40_000
    fleet.stage("s3")
    fleet.switched("s3")
    assert fleet.state is RolloutState.DONE
    for node in ("s1", "s2"):
        fleet.stage(node)
        permit = fleet.orders[node].order.permit
        assert permit
        fleet.report(node, refused=NEW, spent_permit=permit)
        assert fleet.orders[node].order.verdict is Verdict.HOLD
    for node in ("s1", "s2"):
        fleet.report(node, staged=NEW, waits_for_permit=True, spent_permit=fleet.machine.facts.serial)
    assert [fleet.orders[n].order.verdict for n in ("s1", "s2")] == [Verdict.KEEP, Verdict.HOLD]


def test_the_order_to_reload_may_be_older_than_a_late_permit() -> None:
    """One node's turn to reload comes after another had its late permit, and has the serial of when it was asked
    for."""
    fleet = done_without_s3()
    fleet.say(v.ReloadAsked(1, is_rolling=True))
    for node in ("s1", "s2"):
        fleet.report(node, live=NEW, tree=NEW)
    fleet.stage("s3")
    fleet.switched("s3")
    order = fleet.orders["s3"].order
    assert (order.verdict, order.serial) == (Verdict.RELOAD, fleet.machine.facts.reload_serial)
    assert order.permit > order.serial


def test_a_node_that_used_its_permit_keeps_it_while_it_is_not_listed() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage(*NODES)
    fleet.switched("s1")
    names = tuple(NodeName(n) for n in NODES)
    fleet.say(v.PartnersChanged(names[1:]), v.PartnersChanged(names[1:2]), v.PartnersChanged(names))
    assert NodeName("s1") in fleet.machine.facts.granted


def test_other_answers_through_the_balancer_put_back_what_is_done() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING)
    fleet.stage(*NODES)
    for node in NODES:
        fleet.switched(node)
    assert fleet.kept == [RolloutState.DONE]
    fleet.say(v.AnswersDiffered(1, OLD, "of another generation"))
    assert fleet.verdicts() == [Verdict.KEEP] * 3
    fleet.say(v.AnswersDiffered(2, NEW, "map: 12% of the pixels differ"))
    assert fleet.verdicts() == [Verdict.PUT_BACK, Verdict.HOLD, Verdict.HOLD]
    assert fleet.state is RolloutState.PUTTING_BACK
    for node in NODES:
        assert fleet.orders[node].order.verdict is Verdict.PUT_BACK
        fleet.report(node, refused=NEW)
    assert fleet.kept == [RolloutState.DONE, RolloutState.PUT_BACK]
    facts = fleet.machine.facts
    assert (facts.failed_node, facts.failed_code) == (None, "golden_differs")
    fleet.say(v.AnswersDiffered(3, NEW, "again"))
    assert fleet.kept == [RolloutState.DONE, RolloutState.PUT_BACK]


def test_other_answers_stop_where_the_policy_says_so() -> None:
    fleet = Fleet(strategy=Strategy.ROLLING, on_failure=OnFailure.STOP)
    fleet.stage(*NODES)
    for node in NODES:
        fleet.switched(node)
    fleet.say(v.AnswersDiffered(1, NEW, "map: 12% of the pixels differ"))
    assert fleet.kept == [RolloutState.DONE, RolloutState.STOPPED]
    assert fleet.verdicts() == [Verdict.KEEP] * 3
