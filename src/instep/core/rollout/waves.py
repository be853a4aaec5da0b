"""Turns: the barrier, the waves, the canary's watch, the time to confirm, and nodes that come late."""

from __future__ import annotations

from instep.core.rollout.book import UNCONFIRMED, RolloutBook
from instep.core.rollout.nodes import NodePlace, in_order
from instep.core.rollout.vocabulary import RolloutState
from instep.model.ids import NodeName
from instep.model.rollout import Strategy

RENEW_MS_MIN = 1_000


class RolloutWaves(RolloutBook):
    """Grants permits, and waits for nodes that are under way no longer than a node gets to finish."""

    def _is_barrier_met(self) -> bool:
        """``auto`` has none: its nodes go when they are ready, one at a time."""
        if self._facts.policy.strategy is Strategy.AUTO or not self._partners:
            return True
        expected = self._expected()
        if not expected:
            return self._is_nobody_in_it()
        ready = [n for n in expected if self._place(n) not in (NodePlace.STAGING, NodePlace.PUT_BACK)]
        return len(ready) * 100 >= len(expected) * self._facts.policy.quorum_percent

    def _waiting(self) -> list[NodeName]:
        """The nodes that have staged it, are reachable and have no permit. A node that is drained already goes first,
        since that takes no other node's place; then those that the policy names, in that order; of the others the
        one with the oldest live generation, so that steady changes keep none of them waiting for ever."""
        granted, named = self._facts.granted, self._facts.policy.order
        found = []
        for place, name in enumerate(in_order(self._facts.policy, tuple(self._partners))):
            partner = self._partners[name]
            if name in granted or partner.lost_at_ms is not None or partner.report is None:
                continue
            if partner.report.waits_for_permit and self._place(name) is NodePlace.STAGED:
                live = partner.report.live
                age = live.position if live is not None and name not in named else (0, 0)
                rank = place if name in named else len(self._partners)
                found.append((not partner.report.is_drained, rank, age, place, name))
        return [each[-1] for each in sorted(found)]

    def _busy(self) -> list[NodeName]:
        """The nodes that are drained, or may drain at any moment, for this head or the one before it."""
        facts, found = self._facts, []
        reloading = () if facts.reloads_together else self._reloading()
        for name, partner in self._partners.items():
            report = partner.report
            is_granted = name in facts.granted and self._place(name) not in (
                NodePlace.SWITCHED,
                NodePlace.PUT_BACK,
            )
            is_out = report is not None and report.is_drained and not report.waits_for_permit
            if is_granted or is_out or name in facts.finishing or name in reloading:
                found.append(name)
        return found

    def _in_flight(self) -> list[NodeName]:
        """The busy ones that others wait for: none longer than it gets to finish."""
        return [name for name in self._busy() if not self._is_overdue(name)]

    def _is_one_unheard(self) -> bool:
        """Whether a partner that was not heard since the start may still turn out to be drained: until it is absent."""
        return any(
            partner.report is None
            and partner.lost_at_ms is not None
            and self._now - partner.lost_at_ms < self._absent_after_ms
            for partner in self._partners.values()
        )

    def _next(self, waiting: list[NodeName]) -> list[NodeName]:
        """The nodes whose turn it is: all that are drained already, else a batch once no node is under way."""
        out = [n for n in waiting if (report := self._partners[n].report) is not None and report.is_drained]
        if out:
            return out
        is_nobody_out = not (self._in_flight() or self._is_one_unheard())
        return waiting[: self._facts.policy.batch] if is_nobody_out else []

    def _grant(self) -> None:
        waiting = self._waiting()
        if self._strategy() is Strategy.TOGETHER:
            self._permit(waiting)
        else:
            turn = self._next(waiting)
            if self._is_canary_to_watch() and not self._in_flight():
                self._set(state=RolloutState.WATCHING)
                self._timer("watch", self._now + self._facts.policy.canary_for_ms)
                return
            self._permit(turn)
        if self._is_walked():
            if self._facts.policy.confirm_within_ms is None or not self._facts.granted:
                self._end(RolloutState.DONE)
            else:
                self._confirming()

    def _is_canary_to_watch(self) -> bool:
        facts = self._facts
        return self._strategy() is Strategy.CANARY and bool(facts.granted) and not facts.is_watched

    def _confirming(self) -> None:
        """The nodes' own time begins anew with this order, so that none gives up before this one does."""
        self._set(state=RolloutState.CONFIRMING, serial=self._facts.serial + 1)
        within_ms = self._facts.policy.confirm_within_ms
        assert within_ms is not None
        self._timer("confirm", self._now + within_ms)

    def _grant_late(self) -> None:
        """A node that was absent gets its permit when it comes back, one batch at a time."""
        self._permit(self._next(self._waiting()))

    def _permit(self, names: list[NodeName]) -> None:
        if not names:
            return
        for name in names:
            self._since_ms[name] = self._now
            self._timer(f"node-{name}", self._now + self._within_ms)
        self._grant_to(names)

    def _is_walked(self) -> bool:
        """Every expected node holds the target; one that refused it without a permit is past helping. A line
        without partners waits for none; one whose partners are all away waits for the first."""
        if not self._partners:
            return True
        expected = self._expected()
        places = [self._place(name) for name in expected]
        is_for_somebody = bool(expected) or self._is_nobody_in_it()
        return (
            is_for_somebody
            and not self._in_flight()
            and set(places) <= {NodePlace.SWITCHED, NodePlace.PUT_BACK}
        )

    def _mind_who_is_out(self) -> None:
        """Record the awaited nodes and since when; none is awaited for longer than a node gets to finish."""
        facts = self._facts
        if facts.target is None:
            return
        left = tuple(name for name in facts.finishing if not self._has_left(name))
        if left != facts.finishing:
            self._set(finishing=left)
        waited = (
            *self._busy(),
            *(n for n in self._partners if self._is_going_back(n)),
            *self._reloading(),
        )
        for name in [n for n in self._since_ms if n not in waited]:
            del self._since_ms[name]
        for name in waited:
            at_ms = self._since_ms.setdefault(name, self._now) + self._within_ms
            if self._now < at_ms:
                self._timer(f"node-{name}", at_ms)

    def _has_left(self, name: NodeName) -> bool:
        """Whether a node that had a permit for the head before this one is through with it."""
        partner = self._partners.get(name)
        if partner is None or self._is_overdue(name):
            return True
        report = partner.report
        if report is None or partner.lost_at_ms is not None or report.head != self._facts.target:
            return False
        return not report.is_drained and report.tree == report.live

    def _renew(self) -> None:
        """Keep nodes from giving up that have the target and wait for the others."""
        within_ms = self._facts.policy.confirm_within_ms
        is_waiting = within_ms is not None and bool(self._facts.granted) and self._facts.state in UNCONFIRMED
        if not is_waiting:
            self._timer("renew", None)
        elif "renew" not in self._timers:
            assert within_ms is not None
            self._timer("renew", self._now + max(within_ms, RENEW_MS_MIN))
