"""A followed line's report to its senders: its standing, and all inputs of a rollout's decisions."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.follow.permits import serial_told, spent_told
from instep.model.ids import LineId
from instep.model.standing import StandingRecord
from instep.net.messages import messages as m
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime

__all__ = ["report_of"]

DRAIN_REASON_MAX = 1_000


def report_of(
    runtime: Runtime,
    line: LineId,
    facts: f.FollowFacts,
    told: f.FollowReport | None,
    standing: StandingRecord,
) -> m.Report:
    """``told`` is the machine's last report: one moment's truth, so that a live generation that is not recorded yet
    is not reported. Drained counts the drain of this line's rollout; the reasons are all."""
    seen = told or f.FollowReport(
        standing.standing, standing.code, standing.reason, standing.next_steps,
        facts.head, facts.live, facts.tree, replaced=facts.replaced, refused=facts.refused,
        is_drained=facts.is_drained, order_serial=serial_told(facts), spent_permit=spent_told(facts),
    )  # fmt: skip
    drained = runtime.draining.reasons()
    return m.Report(
        line=line,
        node=runtime.name,
        live=seen.live,
        head=seen.head,
        standing=standing,
        attested_root=seen.live.root if seen.live is not None else b"",
        at_ms=wall_ms(),
        staged=seen.staged,
        replaced=seen.replaced,
        refused=seen.refused,
        waits_for_permit=seen.waits_for_permit,
        is_drained=seen.is_drained,
        drain_reason="; ".join(each.reason for each in drained)[:DRAIN_REASON_MAX],
        order_serial=seen.order_serial,
        tree=seen.tree,
        spent_permit=seen.spent_permit,
    )
