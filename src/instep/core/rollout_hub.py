"""What a hub orders the nodes behind it: its own state decides, and nothing else (``docs/spec/rollout.md``)."""

from __future__ import annotations

from instep.core.follow_vocabulary import FollowFacts
from instep.model.ids import HeadRef
from instep.model.rollout import Order, Verdict

__all__ = ["order_behind"]


def order_behind(facts: FollowFacts, head: HeadRef | None, order_serial: int = 0) -> Order | None:
    """The present order for a node behind this one, from the ``head`` and ``order_serial`` of its last report; None
    when there is nothing to order.

    What is live here may be switched to, and is kept once it is confirmed here; what is refused here is put back
    there. Nobody drains: those behind a hub go when they are ready, all at once. Orders of one serial replace each
    other, and the stream keeps them in order, so the serial is that of the hub's own order or the one it has.
    """
    if head is None or head not in (facts.refused, facts.live):
        return None
    own = (
        facts.order if facts.order is not None and facts.order.head == head else Order(head, 1, Verdict.KEEP)
    )
    if head == facts.refused:
        verdict = Verdict.PUT_BACK
    elif facts.unconfirmed == head:
        verdict = Verdict.SWITCH
    else:
        verdict = Verdict.RELOAD if own.verdict is Verdict.RELOAD else Verdict.KEEP
    serial = max(own.serial, order_serial)
    return Order(head, serial, verdict, False, own.finish_within_ms, own.confirm_within_ms, own.attempt)
