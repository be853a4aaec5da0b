"""The view of ``instep rollout show``: each node, and the reason why the rollout waits or ended."""

from __future__ import annotations

from instep.core.authors import joined
from instep.core.rollout import vocabulary as v
from instep.core.rollout.nodes import NodePlace, in_order
from instep.core.rollout.orders import RolloutOrders
from instep.core.rollout.vocabulary import RolloutState
from instep.model.counts import lasting

NAMED_MAX = 5


class RolloutShow(RolloutOrders):
    """Makes the view anew after every event, and emits it when it changed."""

    def _show(self) -> None:
        facts = self._facts
        if facts.target is None:
            return
        nodes = []
        for name in in_order(facts.policy, tuple(self._partners)):
            partner = self._partners[name]
            report = partner.report
            state = "unreachable" if partner.lost_at_ms is not None else self._place(name).value
            if state == "staged" and name in facts.granted:
                state = "permitted"
            turn = facts.granted.index(name) if name in facts.granted else None
            wave = None if turn is None else turn // facts.policy.batch + 1
            is_drained = report is not None and report.is_drained
            nodes.append(v.NodeView(name, state, wave, None if report is None else report.reason, is_drained))
        view = v.RolloutView(facts, self._reason(), tuple(nodes))
        if view != self._shown:
            self._shown = view
            self._out.append(v.ShowRollout(view))

    def _reason(self) -> str:
        facts = self._facts
        if facts.failed_reason:
            return self._failure()
        if facts.is_paused:
            return "paused"
        if facts.is_to_approve:
            number = facts.target.number if facts.target is not None else 0
            which = (
                f"a second approval, beside that of {joined(facts.approvals)}"
                if facts.approvals
                else "an approval"
            )
            return f"waits for {which}: instep rollout approve {self.line.fileset} --generation {number}"
        if facts.state is RolloutState.BARRIER:
            late = [n for n in self._expected() if self._place(n) is NodePlace.STAGING]
            if late:
                return f"waits until these have staged it: {', '.join(late[:NAMED_MAX])}"
            return self._left_out() or "no partner is known"
        if facts.state is RolloutState.WAVES:
            busy = self._in_flight() or [
                n for n in self._expected() if self._place(n) is not NodePlace.SWITCHED
            ]
            return f"waits for {', '.join(busy[:NAMED_MAX])}" if busy else self._left_out()
        if facts.state is RolloutState.WATCHING:
            return f"watches {', '.join(facts.granted[:NAMED_MAX])} for {lasting(facts.policy.canary_for_ms)}"
        if facts.state is RolloutState.CONFIRMING:
            within_ms = facts.policy.confirm_within_ms
            return f"goes back within {lasting(within_ms or 0)} without: instep rollout confirm {self.line.fileset}"
        words: str = facts.state.value
        return words

    def _left_out(self) -> str:
        """The nodes that could take part and cannot now, and why."""
        found = []
        for name in in_order(self._facts.policy, tuple(self._partners)):
            partner = self._partners[name]
            standing = None if partner.report is None else partner.report.standing.value
            if self._place(name) is NodePlace.PUT_BACK and partner.report is not None:
                standing = f"refused it: {partner.report.reason}"
            found.append(f"{name} {'is out of reach' if partner.lost_at_ms is not None else standing}")
        return f"no node can take it now: {'; '.join(found[:NAMED_MAX])}" if found else ""
