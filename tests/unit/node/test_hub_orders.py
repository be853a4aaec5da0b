"""A hub orders the nodes behind it by its own state: after it, back with it, confirmed with it; never twice the
same."""

from __future__ import annotations

import msgspec

from instep.core.rollout.hub import OwnState
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.rollout import DEFAULT_POLICY, Order, RolloutPolicy, Verdict
from instep.model.standing import Standing, StandingRecord
from instep.net.messages import messages as m
from instep.node.following.rollout_part import HubOrders

LINE = LineId(FilesetName("catalog"), NodeName("main"))
OLD, NEW = (HeadRef(1, n, Digest(bytes([n]) * 32), Digest(bytes([n]) * 32)) for n in (1, 2))
LEAF = NodeName("leaf")


class Net:
    """Keeps what was ordered; the other calls are not a hub's."""

    def __init__(self) -> None:
        self.given: list[Order] = []

    def order(self, line: LineId, node: NodeName, order: Order) -> None:
        assert (line, node) == (LINE, LEAF)
        self.given.append(order)


def report(code: str | None = None, **said: object) -> m.Report:
    standing = StandingRecord(Standing.HELD, 0, None, code)
    plain = m.Report(LINE, LEAF, OLD, NEW, standing, b"", 0, tree=OLD)
    return msgspec.structs.replace(plain, **said)


def own(live: HeadRef | None, refused: HeadRef | None = None, **more: object) -> OwnState:
    policy = RolloutPolicy(**more) if more else DEFAULT_POLICY  # type: ignore[arg-type]
    return OwnState(live, refused, None, policy)


def test_a_permit_comes_when_the_hub_serves_it_and_the_way_back_when_it_went_back() -> None:
    net = Net()
    hub = HubOrders(LINE, net)  # type: ignore[arg-type]
    hub.seen(report(waits_for_permit=True), own(OLD))
    assert net.given == []
    hub.own_changed(own(NEW))
    assert [order.verdict for order in net.given] == [Verdict.SWITCH]
    assert not net.given[0].drains, "they go together, and some node has to serve"
    hub.seen(report(waits_for_permit=True, order_serial=1), own(NEW))
    assert len(net.given) == 1, "an order that it holds is not sent again"
    hub.seen(report(live=NEW, tree=NEW, order_serial=1), own(OLD, refused=NEW))
    assert (net.given[-1].verdict, net.given[-1].serial) == (Verdict.PUT_BACK, 2)
    told = report(refused=NEW, code="put_back_ordered", order_serial=2)
    hub.seen(told, own(OLD, refused=NEW))
    assert len(net.given) == 2
    hub.seen(told, own(NEW))
    assert (net.given[-1].verdict, net.given[-1].serial) == (Verdict.SWITCH, 3), "the hub retried"


def test_a_lost_order_is_given_again_and_a_new_hub_counts_on() -> None:
    net = Net()
    hub = HubOrders(LINE, net)  # type: ignore[arg-type]
    for _ in range(2):
        hub.seen(report(waits_for_permit=True, order_serial=7), own(NEW))
    assert [order.serial for order in net.given] == [8, 8]


def test_nodes_that_need_no_permit_hear_nothing_and_confirmation_is_passed_on() -> None:
    net = Net()
    hub = HubOrders(LINE, net)  # type: ignore[arg-type]
    hub.seen(report(live=NEW, tree=NEW), own(NEW))
    assert net.given == []
    hub.seen(report(live=NEW, tree=NEW, order_serial=1), own(NEW, confirm_within_ms=5_000))
    assert [order.verdict for order in net.given] == [Verdict.KEEP]
