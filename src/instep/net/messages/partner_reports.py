"""A partner's report: as its machine says it, as it is sent, and as the ``RolloutMachine`` and a hub decide by it."""

from __future__ import annotations

from instep.core.vocabulary import PartnerReport
from instep.model.ids import LineId, NodeName
from instep.model.standing import StandingRecord
from instep.net.messages import messages as m


def report_message(line: LineId, node: NodeName, seen: PartnerReport, standing: StandingRecord) -> m.Report:
    """The message of what a node's machine reports. ``standing`` has the node's own wall clock; the caller adds what
    no machine knows."""
    return m.Report(
        line=line,
        node=node,
        live=seen.live,
        head=seen.head,
        standing=standing,
        staged=seen.staged,
        replaced=seen.replaced,
        refused=seen.refused,
        waits_for_permit=seen.waits_for_permit,
        is_drained=seen.is_drained,
        order_serial=seen.order_serial,
        tree=seen.tree,
        spent_permit=seen.spent_permit,
    )


def view_of_report(report: m.Report) -> PartnerReport:
    """The part of a report that machines decide by."""
    return PartnerReport(
        standing=report.standing.standing,
        code=report.standing.code,
        reason=report.standing.reason,
        head=report.head,
        live=report.live,
        tree=report.tree,
        staged=report.staged,
        replaced=report.replaced,
        refused=report.refused,
        waits_for_permit=report.waits_for_permit,
        is_drained=report.is_drained,
        order_serial=report.order_serial,
        spent_permit=report.spent_permit,
    )
