"""The partner's side of permits: held, drained, switched, returned; put back when no operator confirms."""

from __future__ import annotations

from msgspec.structs import replace

from instep.core.follow import vocabulary as f
from instep.core.vocabulary import HookEnded, HookKind, RunHook, TimerFired, Trouble
from instep.errors import Retry
from instep.model.rollout import Order, RolloutPolicy, Strategy, Verdict
from instep.model.standing import Standing
from tests.golden.dialogue import MAIN, OK, Dialogue, epoch, follower, generation, ref

ROLLING = RolloutPolicy(strategy=Strategy.ROLLING)


def held() -> Dialogue:
    facts = f.FollowFacts(head=ref(1), live=ref(1), tree=ref(1))
    d = follower(facts, knows_orders=True, has_probe=True)
    d.say(f.Started())
    d.say(f.RecoveryEnded(d.asked(f.Recover), f.RecoveryKind.NOTHING))
    d.say(f.SourceUp(MAIN, is_writer=True), f.EpochSeen(MAIN, epoch(), OK))
    d.say(f.HeadSeen(MAIN, generation(2), OK))
    d.say(f.PagesFetched(d.asked(f.FetchPages), ROLLING))
    return d.say(f.Staged(d.asked(f.StageContents)))


def permitted(d: Dialogue, confirm_within_ms: int | None = None) -> Dialogue:
    d.say(f.OrderGiven(MAIN, Order(ref(2), 1, Verdict.SWITCH, True, 60_000, confirm_within_ms)))
    d.say(f.NodeDrained(d.asked(f.DrainNode)))
    d.say(f.TreeSwitched(d.asked(f.Switch)))
    return d.say(HookEnded(d.asked(RunHook), HookKind.PROBE))


def test_a_permit_drains_switches_and_returns_before_live_is_recorded() -> None:
    d = held()
    assert d.machine.report.waits_for_permit
    permitted(d)
    d.say(f.Returned(d.asked(f.Return)))
    d.say(f.LiveRecorded(d.asked(f.RecordLive)))
    assert (d.machine.facts.live, d.machine.facts.replaced) == (ref(2), ref(1))
    assert not d.machine.facts.is_drained
    d.check("permit")


def test_an_order_of_the_same_serial_counts_and_an_older_one_does_not() -> None:
    """The writer raises the serial for its decisions, and gives permits under it as turns come."""
    d = held()
    d.say(f.OrderGiven(MAIN, Order(ref(2), 3, Verdict.HOLD)))
    d.say(f.OrderGiven(MAIN, Order(ref(2), 2, Verdict.SWITCH)))
    assert not any(isinstance(effect, f.Switch) for effect in d.effects)
    d.say(f.OrderGiven(MAIN, Order(ref(2), 3, Verdict.SWITCH)))
    assert any(isinstance(effect, f.Switch) for effect in d.effects)


def test_what_no_reload_hook_is_for_needs_no_permit() -> None:
    """With the default strategy only a reload makes a node wait for its turn."""
    facts = f.FollowFacts(head=ref(1), live=ref(1), tree=ref(1))
    for is_reloaded in (True, False):
        d = follower(facts, knows_orders=True, has_reload=True)
        d.say(f.Started())
        d.say(f.RecoveryEnded(d.asked(f.Recover), f.RecoveryKind.NOTHING))
        d.say(
            f.SourceUp(MAIN, is_writer=True),
            f.EpochSeen(MAIN, epoch(), OK),
            f.HeadSeen(MAIN, generation(2), OK),
        )
        d.say(f.PagesFetched(d.asked(f.FetchPages), is_reloaded=is_reloaded))
        d.say(f.Staged(d.asked(f.StageContents)))
        assert d.machine.report.waits_for_permit is is_reloaded
        assert any(isinstance(effect, f.Switch) for effect in d.effects) is not is_reloaded


def test_without_a_keep_in_time_live_goes_back_and_a_late_keep_changes_nothing() -> None:
    d = permitted(held(), 5_000)
    d.say(f.Returned(d.asked(f.Return)))
    d.say(f.LiveRecorded(d.asked(f.RecordLive)))
    d.at(5_000)
    if d.machine.phase is not None:
        d.say(f.DriftChecked(d.machine._job.req, (), 0))
    d.say(TimerFired("confirm"))
    d.say(f.NodeDrained(d.asked(f.DrainNode)))
    back = d.asked(f.PutBack)
    d.say(f.OrderGiven(MAIN, Order(ref(2), 2, Verdict.KEEP, True, 60_000, 5_000)))
    d.say(f.PutBackDone(back))
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE))
    d.say(f.Returned(d.asked(f.Return)))
    d.say(f.LiveRecorded(d.asked(f.RecordLive)))
    assert (d.machine.facts.live, d.machine.facts.refused) == (ref(1), ref(2))
    d.check("confirm_expired")


def test_what_is_not_finished_in_time_is_put_back_also_without_the_writer() -> None:
    d = held()
    d.say(f.OrderGiven(MAIN, Order(ref(2), 1, Verdict.SWITCH, True, 60_000)), f.SourceDown(MAIN))
    drain = d.machine._job.req
    d.say(f.NodeDrained(drain))
    switch = d.asked(f.Switch)
    d.at(60_000).say(TimerFired("finish"))
    d.say(f.TreeSwitched(switch))
    d.say(f.PutBackDone(d.asked(f.PutBack)))
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE))
    d.say(f.Returned(d.asked(f.Return)))
    facts = d.machine.facts
    assert (facts.live, facts.tree, facts.refused, facts.is_drained) == (ref(1), ref(1), ref(2), False)
    d.check("not_finished")


def test_a_second_attempt_makes_a_node_forget_that_it_refused() -> None:
    d = held()
    d.say(f.OrderGiven(MAIN, Order(ref(2), 1, Verdict.SWITCH)))
    d.say(f.TreeSwitched(d.asked(f.Switch)))
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE, Trouble("probe_failed", "status 500", Retry.LATER, 8)))
    d.say(f.PutBackDone(d.asked(f.PutBack)))
    d.say(f.OrderGiven(MAIN, Order(ref(2), 2, Verdict.PUT_BACK)))
    assert d.machine.facts.refused == ref(2)
    d.say(f.OrderGiven(MAIN, Order(ref(2), 3, Verdict.HOLD, attempt=2)))
    assert d.machine.facts.refused is None
    d.check("second_attempt")


def test_refused_in_the_middle_of_its_switch_a_node_does_not_tell_that_it_is_back() -> None:
    """A rollout that counted on the old tree would end while the new one lands."""
    d = held()
    d.say(f.OrderGiven(MAIN, Order(ref(2), 1, Verdict.SWITCH, False, 60_000)))
    switch = d.asked(f.Switch)
    d.say(TimerFired("finish"))
    assert (d.machine.report.refused, d.machine.report.tree) == (ref(2), ref(2))
    d.say(f.TreeSwitched(switch))
    d.say(f.PutBackDone(d.asked(f.PutBack)))
    assert d.machine.report.tree == ref(1)


def test_only_the_reload_that_was_ordered_drains_a_later_revert_does_not() -> None:
    """The order to reload is still there when a program writes into the tree: the node heals at once, and does not
    drain out of turn."""
    facts = f.FollowFacts(head=ref(1), live=ref(1), tree=ref(1))
    d = follower(facts, knows_orders=True, has_reload=True)
    d.say(f.Started())
    d.say(f.RecoveryEnded(d.asked(f.Recover), f.RecoveryKind.NOTHING))
    d.say(f.DriftChecked(d.asked(f.CheckDrift), (), 0))
    d.say(f.OrderGiven(MAIN, Order(ref(1), 2, Verdict.RELOAD, drains=True)))
    assert d.machine.report.is_drained
    d.say(f.NodeDrained(d.asked(f.DrainNode)))
    d.say(HookEnded(d.asked(RunHook), HookKind.RELOAD))
    d.say(f.Returned(d.asked(f.Return)))
    d.say(f.TreeTouched((b"a",)))
    d.at(200).say(TimerFired("drift-settle"))
    d.say(f.DriftChecked(d.asked(f.CheckDrift), (b"a",), 1))
    d.say(f.Reverted(d.asked(f.Revert), (b"a",)))
    assert not d.machine.report.is_drained
    d.say(HookEnded(d.asked(RunHook), HookKind.RELOAD))
    assert d.machine.facts.due is f.Due.NOTHING


def test_an_order_to_reload_that_is_not_begun_is_not_told_as_taken() -> None:
    """While the node looks for local changes it stands in step: the writer must not take that for reloaded."""
    facts = f.FollowFacts(head=ref(1), live=ref(1), tree=ref(1))
    d = follower(facts, knows_orders=True, has_reload=True)
    d.say(f.Started())
    d.say(f.RecoveryEnded(d.asked(f.Recover), f.RecoveryKind.NOTHING))
    check = d.asked(f.CheckDrift)
    d.say(f.OrderGiven(MAIN, Order(ref(1), 2, Verdict.RELOAD)))
    assert d.machine.report.order_serial == 1
    d.say(f.DriftChecked(check, (), 0))
    assert d.machine.report.order_serial == 2
    assert d.machine.report.standing is Standing.APPLYING


def test_what_was_forgiven_on_its_way_back_and_then_not_confirmed_stays_refused() -> None:
    """The node's settings changed while it went back by order; no operator confirmed the generation in time after
    that."""
    d = permitted(held(), 5_000)
    d.say(f.Returned(d.asked(f.Return)))
    d.say(f.LiveRecorded(d.asked(f.RecordLive)))
    check = d.machine._job.req
    d.say(f.OrderGiven(MAIN, Order(ref(2), 2, Verdict.PUT_BACK, confirm_within_ms=5_000)))
    d.say(f.DriftChecked(check, (), 0))
    back = d.asked(f.PutBack)
    d.say(f.RetryAsked())
    d.at(5_000).say(TimerFired("confirm"))
    d.say(f.PutBackDone(back))
    assert (d.machine.facts.refused, d.machine.facts.refused_code) == (ref(2), "not_confirmed")


def test_what_was_live_was_put_back_and_is_tried_again_is_recorded_again() -> None:
    """The put-back was not through when the next attempt's permit came: nothing may stay of it as if it were begun."""
    facts = f.FollowFacts(head=ref(2), live=ref(2), tree=ref(1), due=f.Due.PROBE, replaced=ref(1))
    d = follower(facts, knows_orders=True, has_probe=True)
    d.say(f.Started())
    d.say(f.RecoveryEnded(d.asked(f.Recover), f.RecoveryKind.NOTHING))
    failed = Trouble("probe_failed", "status 500", Retry.LATER, 8)
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE, failed))
    d.say(f.SourceUp(MAIN, is_writer=True, has=ref(2).id))
    d.say(f.PagesFetched(d.asked(f.FetchPages), ROLLING))
    d.say(f.Staged(d.asked(f.StageContents)))
    d.say(f.OrderGiven(MAIN, Order(ref(2), 5, Verdict.SWITCH, False, 60_000, 5_000, attempt=2)))
    d.say(f.TreeSwitched(d.asked(f.Switch)))
    assert (d.machine.facts.live, d.machine.facts.tree) == (ref(1), ref(2))
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE))
    d.say(f.LiveRecorded(d.asked(f.RecordLive)))
    now = d.machine.facts
    assert (now.live, now.replaced, now.begun, now.unconfirmed) == (ref(2), ref(1), None, ref(2))


def interrupted_on_its_way_back() -> Dialogue:
    """The probe failed, the put-back failed in its middle, and the recovery looks at the journal when an operator says
    ``retry``."""
    d = held()
    d.say(f.OrderGiven(MAIN, Order(ref(2), 1, Verdict.SWITCH, True, 60_000)))
    d.say(f.NodeDrained(d.asked(f.DrainNode)))
    d.say(f.TreeSwitched(d.asked(f.Switch)))
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE, Trouble("probe_failed", "status 500", Retry.LATER, 8)))
    d.say(f.PutBackFailed(d.asked(f.PutBack), Trouble("EXDEV", "a step fails", Retry.LATER, 8)))
    return d.say(f.RetryAsked())


def test_what_is_tried_again_while_its_put_back_is_being_recovered_is_refused_until_that_ended() -> None:
    """The recovery may finish the put-back: then the tree falls by the refusal, and the permit is used up."""
    d = interrupted_on_its_way_back()
    assert d.machine.facts.refused == ref(2)
    assert d.machine.report.standing is Standing.FAILING
    d.say(f.RecoveryEnded(d.pending("Recover"), f.RecoveryKind.FINISHED, ref(1)))
    now = d.machine.facts
    assert (now.tree, now.live, now.refused, now.begun, now.due) == (
        ref(1),
        ref(1),
        None,
        None,
        f.Due.PROBE,
    )
    d.check("tried_again_in_recovery")


def test_what_is_tried_again_while_its_put_back_is_undone_is_kept() -> None:
    d = interrupted_on_its_way_back()
    d.say(f.RecoveryEnded(d.pending("Recover"), f.RecoveryKind.UNDONE))
    now = d.machine.facts
    assert (now.tree, now.refused, now.due) == (ref(2), None, f.Due.PROBE)


def test_a_permit_ends_with_the_refusal_and_only_a_later_one_lets_the_node_try_again() -> None:
    """Its operator says retry while the rollout is done: the order that it has still says keep."""
    d = held()
    d.say(f.OrderGiven(MAIN, Order(ref(2), 7, Verdict.KEEP, True, 60_000, permit=5)))
    d.say(f.NodeDrained(d.asked(f.DrainNode)))
    d.say(f.TreeSwitched(d.asked(f.Switch)))
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE, Trouble("probe_failed", "status 500", Retry.LATER, 8)))
    assert d.machine.report.spent_permit == 5
    d.say(f.PutBackDone(d.asked(f.PutBack)))
    d.say(HookEnded(d.asked(RunHook), HookKind.PROBE))
    d.say(f.Returned(d.asked(f.Return)), f.RetryAsked())
    d.say(f.PagesFetched(d.pending("FetchPages"), ROLLING))
    d.say(f.Staged(d.asked(f.StageContents)))
    d.say(f.OrderGiven(MAIN, Order(ref(2), 8, Verdict.KEEP, True, 60_000, permit=5)))
    assert (d.machine.report.waits_for_permit, d.machine.facts.begun) == (True, None)
    d.say(f.OrderGiven(MAIN, Order(ref(2), 9, Verdict.KEEP, True, 60_000, permit=9)))
    assert (d.machine.facts.begun, d.machine.facts.is_drained) == (ref(2), True)
    d.check("permit_spent")


def test_what_goes_back_is_remembered_also_when_the_time_of_a_newer_permit_passes() -> None:
    """Live goes back by order while the repair's own permit is in use: that one is released, and asked for again."""
    order = Order(ref(3), 4, Verdict.SWITCH, False, 60_000, permit=4)
    facts = f.FollowFacts(
        head=ref(3), live=ref(2), tree=ref(2), replaced=ref(1), refused=ref(2), begun=ref(3), order=order
    )
    d = follower(facts, knows_orders=True, has_probe=True)
    d.say(f.Started())
    d.say(f.RecoveryEnded(d.asked(f.Recover), f.RecoveryKind.NOTHING))
    back = d.asked(f.PutBack)
    d.at(60_000).say(TimerFired("finish"))
    assert (d.machine.facts.refused, d.machine.facts.begun, d.machine.facts.spent) == (ref(2), None, 4)
    d.say(f.PutBackDone(back))
    assert (d.machine.facts.tree, d.machine.facts.refused) == (ref(1), ref(2))


def test_a_hook_that_comes_after_the_order_to_reload_was_not_meant_by_it() -> None:
    facts = f.FollowFacts(head=ref(1), live=ref(1), tree=ref(1))
    d = follower(facts, knows_orders=True)
    d.say(f.Started())
    d.say(f.RecoveryEnded(d.asked(f.Recover), f.RecoveryKind.NOTHING))
    d.say(f.DriftChecked(d.asked(f.CheckDrift), (), 0))
    d.say(f.OrderGiven(MAIN, Order(ref(1), 2, Verdict.RELOAD, drains=True)))
    assert (d.machine.report.order_serial, d.machine.facts.is_drained) == (2, False)
    d.say(f.FollowConfigChanged(replace(d.machine._config, has_reload=True)))
    assert d.machine.facts.due is f.Due.NOTHING
