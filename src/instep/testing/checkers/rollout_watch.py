"""The checkers of rollouts: the rules of orders, permits, drains and ends, seen from outside.

R1 no node switches without a permit that it was given. R2 no more nodes than a batch are drained at once. R3 no node
is offered again before a probe that passed. R4 after a put-back every node is back. R5 no drain for ever. R6 a
rollout ends once, in a named state, and goes on where it was after a restart. R7 a generation whose time to confirm
is over cannot be confirmed.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from instep.core.follow.vocabulary import FollowFacts
from instep.core.rollout import vocabulary as v
from instep.core.rollout.book import GRACE_MS
from instep.core.vocabulary import Trouble
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.rollout import Order, RolloutPolicy, Strategy, Verdict
from instep.testing.world.world import BrokenPromise, World

NEAR_MS = 2_000
"""A stream as old as that has brought a report."""


@dataclass(slots=True)
class _Out:
    """A node that is out of the balancers for a rollout since its permit."""

    permitted_ms: int
    finish_within_ms: int
    is_back: bool


@dataclass(slots=True)
class RolloutWatch:
    """One line's rollouts. ``direct`` are the partners that the writer orders itself."""

    world: World
    direct: tuple[str, ...]
    policies: dict[Digest, RolloutPolicy] = field(default_factory=dict)
    """The policy of each generation's definition."""
    given: dict[tuple[str, Order], int] = field(default_factory=dict)
    """Every order that its giver sent, and when."""
    facts: v.RolloutFacts = field(default_factory=v.RolloutFacts)
    view: v.RolloutView | None = None
    ended: dict[tuple[Digest, int], v.RolloutState] = field(default_factory=dict)
    out: dict[str, _Out] = field(default_factory=dict)
    drained: dict[str, None] = field(default_factory=dict)
    unproven: dict[str, None] = field(default_factory=dict)
    was_unproven: dict[str, bool] = field(default_factory=dict)
    saved: dict[str, FollowFacts] = field(default_factory=dict)
    near: dict[str, int] = field(default_factory=dict)
    """The partners that the writer has a stream with, and since when."""
    expired: dict[tuple[str, Digest], int] = field(default_factory=dict)
    """By node and generation: the attempt that was not confirmed in time there."""
    spent: dict[tuple[str, Digest], int] = field(default_factory=dict)
    """By node and generation: the highest permit that a refusal ended there."""
    gone: dict[str, None] = field(default_factory=dict)
    """Nodes that are taken out of the writer's list."""
    open_requests: dict[int, None] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    # --- the writer -----------------------------------------------------------------------------------------

    def writer_woke(self, facts: v.RolloutFacts) -> None:
        self.open_requests.clear()
        if not self.is_restored and facts != self.facts:
            raise BrokenPromise("R6", "the writer forgot in a crash how far its rollout was")
        self.is_restored = False
        self.facts = facts

    is_restored: bool = False
    """The node directory is another one now: nothing is expected of it."""

    def rollout_saved(self, facts: v.RolloutFacts) -> None:
        old, self.facts = self.facts, facts
        if old.target is None or facts.target != old.target:
            self.count("rollouts")
            return
        if facts.attempt != old.attempt:
            return
        # An unused permit goes with a node that is taken out of the list; a refusal at the node ends its permit.
        stay = tuple(
            n for n in old.granted if n in facts.granted or not (n in self.gone or self._is_spent(n, old))
        )
        if facts.granted[: len(stay)] != stay or len(set(facts.granted)) != len(facts.granted):
            raise BrokenPromise("R6", f"permits went from {old.granted} to {facts.granted}")
        if facts.serial < old.serial:
            raise BrokenPromise("R6", f"the serial of orders fell from {old.serial} to {facts.serial}")
        differs = facts.failed_code == "golden_differs" and old.state is v.RolloutState.DONE
        if v.ended(old.state) and facts.state is not old.state and not differs:
            raise BrokenPromise("R6", f"an ended rollout went from {old.state.value} to {facts.state.value}")
        if old.state is v.RolloutState.PUTTING_BACK and facts.state is v.RolloutState.DONE:
            raise BrokenPromise("R7", "a rollout that is put back was confirmed")

    def _is_spent(self, node: str, facts: v.RolloutFacts) -> bool:
        assert facts.target is not None
        permit = dict(zip(facts.granted, facts.permits, strict=False)).get(NodeName(node), 0)
        return 0 < permit <= self.spent.get((node, facts.target.id), 0)

    def rollout_ended(self, facts: v.RolloutFacts) -> None:
        assert facts.target is not None
        key = (facts.target.id, facts.attempt)
        was_done = self.ended.get(key) is v.RolloutState.DONE and facts.failed_code == "golden_differs"
        if key in self.ended and not self.was_restored and not was_done:
            raise BrokenPromise(
                "R6", f"the rollout of {facts.target.number} ended twice: {facts.state.value}"
            )
        if not v.ended(facts.state):
            raise BrokenPromise("R6", f"a rollout ended as {facts.state.value}")
        self.ended[key] = facts.state
        is_aborted = facts.state is v.RolloutState.ABORTED and facts.failed_code == "aborted"
        if facts.state is v.RolloutState.PUT_BACK or is_aborted:
            self._check_put_back(facts)
        self.count(facts.state.value)

    def _check_put_back(self, facts: v.RolloutFacts) -> None:
        """R4. A node that is out of reach finds the order to go back when it returns; a node that was ordered
        and cannot is not waited for longer than a node gets to finish."""
        target = facts.target
        for name in facts.granted:
            here = self.saved.get(name)
            is_near = name in self.near and self.world.now - self.near[name] >= NEAR_MS
            if here is None or target not in (here.live, here.tree) or not is_near:
                continue
            orders = [
                at
                for (node, order), at in self.given.items()
                if node == name and order.head == target and order.attempt == facts.attempt
                and order.verdict is Verdict.PUT_BACK
            ]  # fmt: skip
            if not orders or self.world.now - min(orders) < facts.policy.finish_within_ms:
                raise BrokenPromise("R4", f"everything is put back, and {name} still has {_number(target)}")

    was_restored: bool = False

    def restored(self) -> None:
        """The writer's node directory is an older one from now on."""
        self.is_restored = self.was_restored = True

    def shown(self, view: v.RolloutView) -> None:
        self.view = view
        if not view.reason:
            raise BrokenPromise("P9", f"the rollout is {view.facts.state.value} without a reason")

    def asked(self, request: int) -> None:
        self.open_requests[request] = None

    def answered(self, request: int, trouble: Trouble | None, facts: v.RolloutFacts) -> None:
        if request not in self.open_requests:
            raise BrokenPromise("P9", f"rollout request {request} was answered twice")
        del self.open_requests[request]

    def ordered(self, node: str, order: Order) -> None:
        self.given.setdefault((node, order), self.world.now)

    # --- the partners ---------------------------------------------------------------------------------------

    def switches(self, node: str, head: HeadRef, facts: FollowFacts, *, has_reload: bool) -> None:
        self._change(node)
        is_asked_for = self.policies[head.id].needs_permit(has_reload=has_reload)
        is_used = head in (facts.begun, facts.refused)  # Its deadline may pass before the switch begins.
        if facts.live is not None and is_asked_for and not is_used:
            raise BrokenPromise("R1", f"{node} switches to {head.number} and has used no permit for it")

    def _begins(self, node: str, facts: FollowFacts) -> None:
        """A permit is used: it is in the newest order that this node has, and was given to it."""
        order, head = facts.order, facts.begun
        assert head is not None
        is_permit = (
            order is not None and order.head == head and order.verdict in (Verdict.SWITCH, Verdict.KEEP)
        )
        if order is None or not is_permit or (node, order) not in self.given:
            raise BrokenPromise("R1", f"{node} begins {head.number} without a permit; its order is {order}")
        if 0 < order.permit <= self.spent.get((node, head.id), 0):
            raise BrokenPromise("R1", f"{node} begins {head.number} with a permit that its refusal ended")
        self.count("permits used")

    def _change(self, node: str) -> None:
        """The tree of a node changes: while it is drained, it must be probed before it is offered."""
        self.was_unproven[node] = node in self.unproven
        if node in self.drained:
            self.unproven[node] = None

    def undone(self, node: str) -> None:
        """A switch that a crash interrupted was undone: the node is as before."""
        if not self.was_unproven.get(node, False):
            self.unproven.pop(node, None)

    def goes_back(self, node: str) -> None:
        self._change(node)
        self.count("put-backs")

    def left(self, node: str) -> None:
        """A node is not listed any more: it stands behind no balancer of the cluster, and takes no orders."""
        self.out.pop(node, None)
        self.near.pop(node, None)
        self.gone[node] = None

    def listed(self, node: str) -> None:
        self.gone.pop(node, None)

    def probed(self, node: str) -> None:
        self.unproven.pop(node, None)

    def drains(self, node: str, head: HeadRef, facts: FollowFacts) -> None:
        """R2. A node that is drained for longer than its own deadline, or beyond the writer's knowledge, counts no
        more. To go back is not counted: a node that finds out by itself does not ask."""
        now, order = self.world.now, facts.order
        is_back = facts.refused == facts.tree
        is_again = node in self.drained
        self.drained[node] = None
        if is_again or node not in self.direct:
            return
        self.count("drains")
        policy = self.policies[head.id]
        known = order is not None and order.head == head
        began = self.given.get((node, order), now) if order is not None else now
        within = order.finish_within_ms if order is not None and known else policy.finish_within_ms
        self.out[node] = _Out(began, within, is_back)
        if is_back or policy.strategy is Strategy.TOGETHER:
            return
        others = [
            name
            for name, out in self.out.items()
            if name != node and not out.is_back and now - out.permitted_ms < out.finish_within_ms + GRACE_MS
        ]
        batch = self.facts.policy.batch if self.facts.target == head else policy.batch
        if len(others) >= batch:
            raise BrokenPromise("R2", f"{node} drains for {head.number} while {', '.join(others)} is out")

    def returns(self, node: str, *, has_probe: bool) -> None:
        self.out.pop(node, None)
        self.drained.pop(node, None)
        if has_probe and node in self.unproven:
            raise BrokenPromise("R3", f"{node} is offered again before a probe of its present tree passed")
        self.unproven.pop(node, None)
        self.count("returns")

    def node_saved(self, node: str, before: FollowFacts, after: FollowFacts) -> None:
        """R7 at a node: one that went back because no operator confirmed stays so until an operator asks for another
        try."""
        self.saved[node] = after
        if after.order is not None:
            is_refused = after.refused == after.order.head and before.refused != after.refused
            key, permit = (node, after.order.head.id), after.order.permit if is_refused else 0
            self.spent[key] = max(self.spent.get(key, 0), after.spent, permit)
        if after.begun is not None and after.begun != before.begun:
            self._begins(node, after)
        for key in [k for k in self.expired if k[0] == node]:
            order = after.order
            is_another_try = (
                order is not None and order.head.id == key[1] and order.attempt > self.expired[key]
            )
            if (after.head is not None and after.head.id != key[1]) or is_another_try:
                del self.expired[key]
            elif after.refused is None or after.refused.id != key[1]:
                raise BrokenPromise(
                    "R7", f"{node} takes a generation that was not confirmed in time: {after.order}"
                )
        is_new = (after.refused, after.refused_code) != (before.refused, before.refused_code)
        if is_new and after.refused is not None and after.refused_code == "not_confirmed":
            if (node, after.refused.id) not in self.expired:
                self.count("expired")
            order = after.order
            is_same = order is not None and order.head == after.refused
            self.expired[node, after.refused.id] = order.attempt if order is not None and is_same else 0

    def forgiven(self, node: str) -> None:
        for key in [k for k in self.expired if k[0] == node]:
            del self.expired[key]

    # --- in the end -----------------------------------------------------------------------------------------

    def check_end(self, partners: dict[str, FollowFacts]) -> None:
        if not v.ended(self.facts.state):
            raise BrokenPromise("R6", f"the rollout rests as {self.facts.state.value}: {self.view}")
        if self.open_requests:
            raise BrokenPromise("P9", f"rollout requests without an answer: {list(self.open_requests)[:5]}")
        for name, facts in partners.items():
            if facts.is_drained or name in self.drained:
                raise BrokenPromise("R5", f"{name} is left drained")


def _number(head: HeadRef | None) -> str:
    return "nothing" if head is None else f"generation {head.number}"
