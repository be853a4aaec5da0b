"""What ``instep test`` does on one node: its probes and golden requests, now, without changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from instep.fleet.golden import named
from instep.fleet.golden_spec import Answer, GoldenSpec, Verdict
from instep.fleet.hooks import HookCall
from instep.fleet.hooks import run_hook as run_one
from instep.model.ids import FilesetName
from instep.node.golden import Recording, Slot
from instep.node.hooks import spec_of

if TYPE_CHECKING:
    from instep.node.follower import FollowService
    from instep.node.writer import WriterService

__all__ = ["row", "try_balancer", "try_node"]


def row(name: str, kind: str, node: str, reason: str, **more: Any) -> dict[str, Any]:
    """One test of ``test --json``; all rows have the same keys. ``reason`` is None when it went well."""
    return {
        "name": name,
        "kind": kind,
        "node": node,
        "ok": not reason,
        "reason": reason or None,
        "compared": False,
        "before": None,
        "now": None,
        "largest_difference": None,
        "share_percent": None,
        **more,
    }


async def try_node(service: WriterService | FollowService) -> list[dict[str, Any]]:
    """Every probe hook, and every golden request at this node's own application. An answer is compared with that of
    when what is live went live, or from before it was put back."""
    fileset, me, live = service.fileset, str(service.runtime.name), service.live
    rows = []
    for number, hook in enumerate(fileset.hooks.probe, 1):
        call = HookCall(
            "probe", FilesetName(fileset.name), live, live, extra={"INSTEP_PATH": str(fileset.path)}
        )
        outcome = await run_one(spec_of(hook), call)
        name = "probe" if len(fileset.hooks.probe) == 1 else f"probe {number}"
        rows.append(row(name, "probe", me, outcome.reason))
    golden = service.golden
    before = golden.recording(Slot.LIVE, live) or golden.recording(Slot.BEFORE, live)
    return rows + await _asked(service, golden.specs, before, "golden", me)


async def try_balancer(service: WriterService | FollowService) -> list[dict[str, Any]]:
    """Every golden request at what users call, compared with what this node's own application was last seen to answer
    there."""
    golden = service.golden
    before = golden.recording(Slot.BALANCER, service.live)
    return await _asked(service, golden.balancer_specs, before, "balancer", str(service.runtime.name))


async def _asked(
    service: WriterService | FollowService,
    specs: Sequence[GoldenSpec],
    before: Recording | None,
    kind: str,
    me: str,
) -> list[dict[str, Any]]:
    # Here nothing is about to change: what was declared different before is to stay as it is now.
    settled = [replace(spec, is_change_expected=False) for spec in specs]
    retries = service.fileset.golden.retries
    return [_shown(one, kind, me) for one in await service.golden.verdicts(settled, before, retries=retries)]


def _shown(verdict: Verdict, kind: str, me: str) -> dict[str, Any]:
    return row(
        verdict.spec.name,
        kind,
        me,
        "" if verdict.ok else f"{named(verdict.spec)}: {verdict.reason}",
        compared=verdict.is_compared,
        before=_json(verdict.before),
        now=_json(verdict.now),
        largest_difference=verdict.largest,
        share_percent=verdict.share_percent,
    )


def _json(answer: Answer | None) -> dict[str, object] | None:
    return None if answer is None else answer.as_json()
