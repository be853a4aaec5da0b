"""How each partner stands in a rollout: pure functions of its last report and of the intent."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import msgspec

from instep.core.rollout.vocabulary import PartnerReport
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import Order, RolloutPolicy, Verdict
from instep.model.standing import Standing

_HOOK_FAILED = ("reload_failed", "probe_failed")
LEFT_OUT = (Standing.PAUSED, Standing.OBSERVING, Standing.BLOCKED)


class NodePlace(enum.Enum):
    """Where a partner is; the values are those of ``NodeView.state``."""

    STAGING = "staging"
    STAGED = "staged"
    SWITCHING = "switching"
    SWITCHED = "switched"
    PUTTING_BACK = "putting_back"
    PUT_BACK = "put_back"


@dataclass(slots=True)
class Partner:
    """The newest report of one partner since start. ``lost_at_ms`` is None while it is reachable."""

    report: PartnerReport | None = None
    lost_at_ms: int | None = 0


def place_of(report: PartnerReport | None, target: HeadRef) -> NodePlace:
    if report is None:
        return NodePlace.STAGING
    if report.refused == target:
        holds = target in (report.live, report.tree) or report.is_drained
        return NodePlace.PUTTING_BACK if holds else NodePlace.PUT_BACK
    if report.live == target and report.tree == target:
        return NodePlace.SWITCHING if report.is_drained else NodePlace.SWITCHED
    if report.staged == target and report.waits_for_permit:
        return NodePlace.STAGED  # Also while it is drained: the older generation is not served either.
    if report.tree == target or (report.is_drained and report.staged == target):
        # A node that is drained for the head before this one has not staged this one yet.
        return NodePlace.SWITCHING
    return NodePlace.STAGED if report.staged == target else NodePlace.STAGING


def is_behind_retry(report: PartnerReport | None, retry_serial: int) -> bool:
    """Whether a refusal in this report is older than the retry: the node had not heard of it when it reported."""
    return report is not None and report.refused is not None and report.order_serial < retry_serial


def has_reloaded(report: PartnerReport | None, reload_serial: int) -> bool:
    """Whether the node took the order to reload and nothing of it is left to do or failing."""
    return (
        report is not None
        and report.order_serial >= reload_serial
        and not report.is_drained
        and report.standing is not Standing.APPLYING
        and report.code not in _HOOK_FAILED
    )


def is_counted(partner: Partner, now_ms: int, policy_waits: bool, absent_after_ms: int) -> bool:
    """Whether the barrier waits for this partner."""
    if partner.lost_at_ms is not None and now_ms - partner.lost_at_ms >= absent_after_ms:
        return policy_waits
    return partner.report is None or partner.report.standing not in LEFT_OUT


def failure_of(report: PartnerReport | None, target: HeadRef) -> tuple[str, str] | None:
    """Code and reason of a node that refused the target; None when it did not."""
    if report is None or report.refused != target:
        return None
    return report.code or "refused", report.reason or "it refused the generation"


def in_order(policy: RolloutPolicy, partners: tuple[NodeName, ...]) -> tuple[NodeName, ...]:
    """The named ones first, in that order, the others by name."""
    named = [name for name in policy.order if name in partners]
    return (*named, *sorted(name for name in partners if name not in named))


def tries_again(partner: Partner, target: HeadRef | None, serial: int) -> bool:
    """Whether a node that failed was made to retry there: it heard that all went back and waits anew."""
    report = partner.report
    if report is None or partner.lost_at_ms is not None or report.refused is not None:
        return False
    return report.waits_for_permit and report.staged == target and report.order_serial >= serial


def says_the_same(old: Order, new: Order) -> bool:
    """Whether ``new`` says nothing that ``old`` did not; to reload is said once a serial."""
    if new.verdict is Verdict.RELOAD:
        return old == new
    return bool(msgspec.structs.replace(old, serial=new.serial) == new)
