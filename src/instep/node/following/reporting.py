"""A followed line's report to its senders: its standing, and all inputs of a rollout's decisions."""

from __future__ import annotations

import msgspec

from instep.core.follow import vocabulary as f
from instep.core.follow.permits import serial_told, spent_told
from instep.core.vocabulary import PartnerReport
from instep.model.ids import LineId
from instep.model.standing import StandingRecord
from instep.net.messages import messages as m
from instep.net.messages.partner_reports import report_message
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime

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
    seen = told or PartnerReport(
        standing.standing, standing.code, standing.reason, facts.head, facts.live, facts.tree,
        replaced=facts.replaced, refused=facts.refused,
        is_drained=facts.is_drained, order_serial=serial_told(facts), spent_permit=spent_told(facts),
    )  # fmt: skip
    return msgspec.structs.replace(
        report_message(line, runtime.name, seen, standing),
        attested_root=seen.live.root if seen.live is not None else b"",
        at_ms=wall_ms(),
        drain_reason="; ".join(each.reason for each in runtime.draining.reasons())[:DRAIN_REASON_MAX],
    )
