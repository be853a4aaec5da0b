"""The shared state of the ``RolloutMachine``'s floors: the intent, the partners, the awaited nodes and since when.

The floors, each calling only what lies below: book, waves, orders, and on top the machine (``machine.py``).
"""

from __future__ import annotations

import msgspec

from instep.core.rollout import vocabulary as v
from instep.core.rollout.nodes import (
    NodePlace,
    Partner,
    has_reloaded,
    in_order,
    is_behind_retry,
    is_counted,
    place_of,
)
from instep.core.rollout.vocabulary import RolloutEffect, RolloutFacts, RolloutState
from instep.core.vocabulary import Note, SetTimer
from instep.model.ids import LineId, NodeName
from instep.model.rollout import Absent, Order, Strategy, Verdict
from instep.model.standing import Standing

GRACE_MS = 15_000
"""The time beyond ``finish_within`` that a node's report gets to arrive."""
GOING = (RolloutState.BARRIER, RolloutState.WAVES, RolloutState.WATCHING)
UNCONFIRMED = (*GOING, RolloutState.PUTTING_BACK)
"""While nodes may have the target and no operator can confirm it."""


class RolloutBook:
    """One written line. ``absent_after_ms`` is how long a partner may be out of contact before it counts as
    absent (a poll interval)."""

    def __init__(
        self, line: LineId, facts: RolloutFacts | None = None, absent_after_ms: int = 30_000
    ) -> None:
        self.line = line
        self._facts = facts or RolloutFacts()
        self._saved = self._facts
        self._absent_after_ms = absent_after_ms
        self._policy = self._facts.policy
        self._partners: dict[NodeName, Partner] = {}
        self._orders: dict[NodeName, Order] = {}
        self._reload_begun: dict[NodeName, int] = {}
        """The serial of the order to reload that each was given last; a broken stream does not take it back."""
        self._since_ms: dict[NodeName, int] = {}
        """Since when a node is waited for: its permit, its order to go back, its drain."""
        self._timers: dict[str, int] = {}
        self._is_started = False
        self._is_listed = False
        """Whether the list of partners was heard since the start."""
        self._now = 0
        self._wall_ms = 0
        self._out: list[RolloutEffect] = []
        self._shown: v.RolloutView | None = None

    @property
    def facts(self) -> RolloutFacts:
        return self._facts

    @property
    def view(self) -> v.RolloutView | None:
        return self._shown

    def _set(self, **changes: object) -> None:
        self._facts = msgspec.structs.replace(self._facts, **changes)

    def _permit_of(self, name: NodeName) -> int:
        """The serial with which this node got its permit; 0 when it has none, or has it from an older version."""
        return dict(zip(self._facts.granted, self._facts.permits, strict=False)).get(name, 0)

    def _grant_to(self, names: list[NodeName]) -> None:
        facts, serial = self._facts, self._facts.serial + 1
        known = tuple(self._permit_of(name) for name in facts.granted)
        self._set(granted=(*facts.granted, *names), permits=(*known, *(serial for _ in names)), serial=serial)

    def _take_permits(self, names: tuple[NodeName, ...]) -> None:
        """These lose their permits; the others keep theirs, in the same order."""
        stay = tuple(name for name in self._facts.granted if name not in names)
        self._set(granted=stay, permits=tuple(self._permit_of(name) for name in stay))
        for name in names:
            self._since_ms.pop(name, None)

    def _timer(self, name: str, at_ms: int | None) -> None:
        if self._timers.get(name) == at_ms:
            return
        if at_ms is None:
            self._timers.pop(name, None)
        else:
            self._timers[name] = at_ms
        self._out.append(SetTimer(name, at_ms))

    def _strategy(self) -> Strategy:
        strategy = self._facts.policy.strategy
        return Strategy.ROLLING if strategy is Strategy.AUTO else strategy

    def _place(self, name: NodeName) -> NodePlace:
        assert self._facts.target is not None
        partner = self._partners.get(name)
        report = None if partner is None else partner.report
        if is_behind_retry(report, self._facts.retry_serial):
            return NodePlace.STAGING
        return place_of(report, self._facts.target)

    @property
    def _within_ms(self) -> int:
        return self._facts.policy.finish_within_ms + GRACE_MS

    def _is_overdue(self, name: NodeName) -> bool:
        since = self._since_ms.get(name)
        return since is not None and self._now - since >= self._within_ms

    def _expected(self) -> list[NodeName]:
        """The partners that this rollout is for, in the order of their turn."""
        policy = self._facts.policy
        return [
            name
            for name in in_order(policy, tuple(self._partners))
            if is_counted(
                self._partners[name], self._now, policy.absent is Absent.WAIT, self._absent_after_ms
            )
        ]

    def _is_nobody_in_it(self) -> bool:
        """Whether every partner only observes. A partner that is merely out of reach, paused or blocked is waited for
        when there is no other."""
        reports = [partner.report for partner in self._partners.values()]
        return bool(reports) and all(r is not None and r.standing is Standing.OBSERVING for r in reports)

    @property
    def _is_to_go_back(self) -> bool:
        facts = self._facts
        if facts.state is RolloutState.ABORTED:
            return facts.failed_code == "aborted"
        return facts.state in (RolloutState.PUTTING_BACK, RolloutState.PUT_BACK)

    def _reloading(self) -> list[NodeName]:
        """The nodes that got the present order to reload, in reach or not, and are not through with it."""
        serial = self._facts.reload_serial
        return [
            name
            for name, partner in self._partners.items()
            if serial
            and self._serves(name)
            and not has_reloaded(partner.report, serial)
            and (
                self._reload_begun.get(name) == serial
                or (partner.report is not None and partner.report.order_serial >= serial)
            )
        ]

    def _is_going_back(self, name: NodeName) -> bool:
        """Reachable, and out or ordered to go: it counts against the batch."""
        if not self._is_to_go_back or self._partners[name].lost_at_ms is not None:
            return False
        order, place = self._orders.get(name), self._place(name)
        is_ordered = order is not None and order.verdict is Verdict.PUT_BACK and place is NodePlace.SWITCHED
        report = self._partners[name].report
        is_out = report is not None and report.is_drained
        return is_ordered or is_out or place in (NodePlace.SWITCHING, NodePlace.PUTTING_BACK)

    def _end(self, state: RolloutState) -> None:
        self._set(state=state, is_paused=False, ended_wall_ms=self._wall_ms)
        self._out.append(v.KeepRollout(self._facts))
        facts = self._facts
        # Where no node waited for a permit there is nothing to report.
        if facts.granted or facts.failed_reason:
            number = facts.target.number if facts.target is not None else 0
            why = f": {self._failure()}" if facts.failed_reason else ""
            self._out.append(Note("rollout", f"the rollout of generation {number} is {state.value}{why}"))

    def _failure(self) -> str:
        who = f"{self._facts.failed_node}: " if self._facts.failed_node else ""
        return f"{who}{self._facts.failed_reason}"

    def _serves(self, name: NodeName) -> bool:
        """Whether the target is live there, drained or not."""
        report, target = self._partners[name].report, self._facts.target
        return report is not None and report.live == report.tree == target and report.refused != target
