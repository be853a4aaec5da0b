"""A partner's report, as the ``RolloutMachine`` and a hub decide by it."""

from __future__ import annotations

from instep.core.rollout import vocabulary as r
from instep.net.messages import messages as m


def view_of_report(report: m.Report) -> r.PartnerReport:
    """The part of a report that the machine decides by."""
    return r.PartnerReport(
        standing=report.standing.standing,
        head=report.head,
        live=report.live,
        tree=report.tree,
        staged=report.staged,
        replaced=report.replaced,
        refused=report.refused,
        code=report.standing.code,
        reason=report.standing.reason,
        waits_for_permit=report.waits_for_permit,
        is_drained=report.is_drained,
        drain_reason=report.drain_reason or None,
        order_serial=report.order_serial,
        spent_permit=report.spent_permit,
    )
