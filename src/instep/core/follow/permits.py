"""A partner's part of a rollout: orders, permits and their deadlines, out of the balancers and back.

Implements the sections "Orders" and "The partner" of ``docs/spec/rollout.md``.
"""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.follow.heads import FollowHeads
from instep.core.follow.state import NAMED_MAX, QUIET, FollowPhase, Progress, named
from instep.core.follow.vocabulary import Due, FollowFacts
from instep.core.vocabulary import SetTimer, Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import DEFAULT_POLICY, Order, Verdict


def is_to_reload(facts: FollowFacts) -> bool:
    """Whether an order to reload what is live is not begun yet."""
    order = facts.order
    return (
        order is not None
        and order.verdict is Verdict.RELOAD
        and order.head == facts.tree == facts.live
        and order.serial > facts.reloaded
    )


def serial_told(facts: FollowFacts) -> int:
    """The serial in a report: the newest order's, or one less while the reload that it orders is not begun, so
    that the writer does not take it for done."""
    order = facts.order
    return 0 if order is None else order.serial - is_to_reload(facts)


def spent_told(facts: FollowFacts) -> int:
    """The highest permit for the present head that a refusal ended; 0 when there is none."""
    order = facts.order
    return facts.spent if order is not None and order.head == facts.head else 0


class FollowPermits(FollowHeads):
    """Keeps the newest order for the newest head; the machine looks at it and obeys (level)."""

    def _orders_from(self) -> NodeName:
        return self._config.orders_from or self._config.writer

    def _take_order(self, event: f.OrderGiven) -> None:
        """Keep the newest order for the newest head; the machine looks at it and obeys (level)."""
        order, old, facts = event.order, self._facts.order, self._facts
        if not self._config.knows_orders or event.source != self._orders_from() or order.head != facts.head:
            return
        if old is not None and old.head == order.head:
            if order.serial < old.serial:
                return
            if order.attempt != old.attempt and facts.refused == order.head:
                if self._may_be_put_back():
                    return  # It is given again, because the report does not name its serial.
                self._forgive()
        facts = self._facts
        is_going_back = facts.refused is not None and facts.refused == facts.tree
        if order.verdict is Verdict.PUT_BACK and is_going_back and facts.refused != order.head:
            return  # One put-back at a time, and the refusal is kept until that generation is out of the tree.
        is_same_head = old is not None and old.head == order.head
        self._set(order=order, spent=facts.spent if is_same_head else 0)
        is_renewed = old is not None and is_same_head and order.serial > old.serial
        is_waiting = order.verdict in (Verdict.SWITCH, Verdict.HOLD) and facts.unconfirmed == order.head
        if is_waiting and is_renewed:
            self._arm_confirm()
        elif order.verdict is Verdict.KEEP and facts.unconfirmed == order.head:
            self._set(unconfirmed=None)
            self._out.append(SetTimer("confirm", None))
            self._note("confirmed", f"generation {order.head.number} is confirmed")
        elif order.verdict is Verdict.PUT_BACK and facts.refused != order.head:
            reason = f"{event.source} orders it to be put back"
            self._refuse(order.head, "put_back_ordered", Trouble("put_back_ordered", reason, Retry.NEVER, 4))
        elif order.verdict in (Verdict.HOLD, Verdict.SWITCH) and self._was_ordered_back(order.head):
            self._forgive()  # The writer begins anew; a refusal by this node itself stands.

    def _was_ordered_back(self, head: HeadRef) -> bool:
        return self._facts.refused == head and self._facts.refused_code == "put_back_ordered"

    def _order_of(self, head: HeadRef | None) -> Order | None:
        order = self._facts.order
        return order if order is not None and order.head == head else None

    def _use_permit(self, progress: Progress) -> bool:
        """Whether the switch may begin; using a permit begins it, and from then on it is finished first."""
        config, facts, target = self._config, self._facts, progress.target
        if not config.knows_orders or (facts.live is None and not progress.policy.is_approved):
            return True
        if not progress.needs_permit(config) or facts.begun == target:
            return True
        if target != facts.head:
            self._sticky = None  # No order is about it any more.
            return False
        order = self._order_of(target)
        if order is None or order.verdict not in (Verdict.SWITCH, Verdict.KEEP):
            return False
        if order.permit and order.permit <= facts.spent:
            return False
        self._set(begun=target)
        self._sticky = target
        self._arm_finish()
        return True

    def _staged(self) -> HeadRef | None:
        """The staged head that a rollout waits for; None where no permit is needed, which saves one report an apply."""
        progress, config = self._progress, self._config
        if progress is None or not progress.is_staged or config.is_observing:
            return None
        if not progress.policy.needs_permit(has_reload=config.has_reload):
            return None
        is_gated = progress.is_gated or not config.has_gates
        is_valid = progress.is_validated or not config.has_validate
        return progress.target if is_gated and is_valid else None

    def _waits_for_permit(self) -> bool:
        progress, config = self._progress, self._config
        if not config.knows_orders or progress is None or self._facts.is_paused:
            return False
        if self._job is not None and self._job.phase not in QUIET:
            return False  # Looking for drift meanwhile is no reason not to go.
        staged = self._staged()
        return (
            staged is not None
            and staged == self._wanted()
            and (self._facts.live is not None or progress.policy.is_approved)
            and self._facts.begun != staged
            and progress.needs_permit(config)
        )

    def _begin_drain(self, head: HeadRef) -> bool:
        """Begin to take the node out of its balancers when the order says so; True while that is under
        way."""
        order = self._order_of(head)
        if order is None or not order.drains or self._is_told_out:
            return False
        self._set(is_drained=True)
        self._out.append(f.DrainNode(self._begin(FollowPhase.DRAIN, head), head))
        return True

    def _begin_return(self) -> bool:
        """Begin to offer the node again once nothing more is pending; True when that began."""
        facts = self._facts
        if facts.begun is not None and facts.begun not in (facts.tree, self._wanted()):
            self._set(begun=None)
            self._out.append(SetTimer("finish", None))
        is_about_to_switch = self._facts.begun is not None and self._facts.begun != facts.tree
        if not facts.is_drained or is_about_to_switch:
            return False
        self._out.append(f.Return(self._begin(FollowPhase.RETURN, facts.tree)))
        return True

    def _ordered_to_reload(self, tree: HeadRef) -> bool:
        order = self._order_of(tree)
        return order is not None and order.verdict is Verdict.RELOAD and tree == self._facts.live

    def _take_reload_order(self) -> None:
        """Only this reload has a turn at the writer: one that the node does by itself, as after a revert, does
        not drain."""
        order, facts = self._facts.order, self._facts
        if order is None or facts.due is not Due.NOTHING or not is_to_reload(facts):
            return
        self._set(reloaded=order.serial)  # Also without a hook: one that comes later was not meant.
        if self._config.has_reload:
            self._set(due=Due.RELOAD, is_drained=facts.is_drained or order.drains)

    def _arm_finish(self) -> None:
        order = self._order_of(self._facts.begun)
        within_ms = DEFAULT_POLICY.finish_within_ms if order is None else order.finish_within_ms
        self._out.append(SetTimer("finish", self._now + within_ms))

    def _arm_confirm(self) -> None:
        order = self._order_of(self._facts.unconfirmed)
        if order is None or order.confirm_within_ms is None:
            self._set(unconfirmed=None)  # A newer head's order came: this one is surpassed.
            return
        self._out.append(SetTimer("confirm", self._now + order.confirm_within_ms))

    def _finish_expired(self) -> None:
        """A permit that was used is finished in time or put back, also with the writer gone."""
        begun, live = self._facts.begun, self._facts.live
        if begun is None or begun in (live, self._facts.refused) or live is None:
            return
        self._sticky = None
        self._set(begun=None)
        reason = f"it was not live within the time to finish; {named(live)} is kept"
        self._refuse(begun, "not_finished", Trouble("not_finished", reason, Retry.NEVER, 7))

    def _confirm_expired(self) -> None:
        waits = self._facts.unconfirmed
        if waits is None:
            return
        self._set(unconfirmed=None)
        if waits != self._facts.live or self._facts.replaced is None:
            return
        reason = "no operator confirmed it in time"
        self._refuse(waits, "not_confirmed", Trouble("not_confirmed", reason, Retry.NEVER, 7))

    def _name_untold(self, what: str, untold: tuple[str, ...]) -> None:
        if untold:
            named = ", ".join(untold[:NAMED_MAX])
            self._note("untold", f"{what} here, but these did not ask in time: {named}", untold=untold)
