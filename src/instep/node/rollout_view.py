"""What ``rollout show`` and ``status`` say of a rollout: from its facts, its view and the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instep.core.rollout_vocabulary import RolloutFacts, RolloutState, RolloutView, ended
from instep.model.ids import HeadRef, LineId, NodeName
from instep.net.messages import Report
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory
from instep.node.rollout import finished_rollouts, saved_rollout
from instep.node.snapshot import moment, pick_fileset
from instep.store.port import NodeStore
from instep.store.sqlite import SqliteStore

__all__ = [
    "FAILED",
    "failure_document",
    "offline_rollouts",
    "rollouts_document",
    "status_document",
    "why_never",
]

FAILED = (RolloutState.PUT_BACK, RolloutState.STOPPED, RolloutState.ABORTED)
"""How a rollout ends that did not bring its generation to everybody."""
PAST_SHOWN = 20
_QUIET = (RolloutState.NONE, RolloutState.DONE, RolloutState.SUPERSEDED)


def rollout_document(
    store: NodeStore, line: LineId, facts: RolloutFacts, view: RolloutView | None
) -> dict[str, Any]:
    """Who, what, when, how long, why; with ``view`` also where each partner is now."""
    assert facts.target is not None, "a rollout is of a generation"
    signed = store.generation(facts.target.id)
    took_ms = None if facts.ended_wall_ms is None else max(0, facts.ended_wall_ms - facts.started_wall_ms)
    document: dict[str, Any] = {
        "generation": facts.target.as_json(),
        "replaced": facts.replaced.as_json() if facts.replaced is not None else None,
        "author": facts.author,
        "message": signed.body().message if signed is not None else "",
        "state": facts.state.value,
        "paused": facts.is_paused,
        "strategy": facts.policy.strategy.value,
        "started_at": moment(facts.started_wall_ms),
        "ended_at": moment(facts.ended_wall_ms),
        "took_ms": took_ms,
        "permitted": list(facts.granted),
        "failed": failure_document(facts),
    }
    if view is not None:
        document["reason"] = view.reason or None
        document["nodes"] = [
            {
                "name": node.node,
                "state": node.state,
                "wave": node.wave,
                "drained": node.is_drained,
                "reason": node.reason,
            }
            for node in view.nodes
        ]
        document["switched"] = sum(node.state == "switched" for node in view.nodes)
        document["total"] = len(view.nodes)
        document["next"] = _next_steps(line, facts)
    return document


def rollouts_document(
    store: NodeStore, line: LineId, facts: RolloutFacts | None, view: RolloutView | None
) -> dict[str, Any]:
    """``rollout show --json``: the present rollout, None before the first, and the past ones, newest first."""
    shown = None
    if facts is not None and facts.target is not None:
        shown = rollout_document(store, line, facts, view)
    past = [
        rollout_document(store, line, each, None)
        for each in finished_rollouts(store, line, PAST_SHOWN)
        if each.target is not None
    ]
    return {"fileset": line.fileset, "rollout": shown, "past": past}


def offline_rollouts(directory: Path, fileset: str | None) -> dict[str, Any]:
    """The same from the last state, with the daemon down."""
    chosen = pick_fileset(load(directory), fileset)
    store = SqliteStore.open(NodeDirectory(directory).database)
    try:
        return rollouts_document(store, chosen.line, saved_rollout(store, chosen.line), None)
    finally:
        store.close()


def failure_document(facts: RolloutFacts) -> dict[str, Any] | None:
    """Why it did not go through; None while nothing failed."""
    if not facts.failed_code:
        return None
    return {"node": facts.failed_node, "code": facts.failed_code, "reason": facts.failed_reason}


def why_never(
    facts: RolloutFacts, target: HeadRef, reports: Mapping[NodeName, Report]
) -> dict[str, Any] | None:
    """Why those who ``reports`` are of will not serve ``target`` by themselves: its rollout failed, or one of them
    refused it. None while it may still come."""
    if facts.target == target and facts.state in (*FAILED, RolloutState.PUTTING_BACK):
        return {**(failure_document(facts) or _nothing_said(facts)), "state": facts.state.value}
    for name, report in reports.items():
        is_handled = facts.target == target and name in facts.granted and not ended(facts.state)
        if report.refused == target and not is_handled:
            return {
                "node": name,
                "code": report.standing.code,
                "reason": report.standing.reason,
                "state": None,
            }
    return None


def _nothing_said(facts: RolloutFacts) -> dict[str, Any]:
    return {"node": None, "code": facts.state.value, "reason": f"the rollout is {facts.state.value}"}


def status_document(
    store: NodeStore, line: LineId, facts: RolloutFacts, view: RolloutView | None
) -> dict[str, Any] | None:
    """The rollout in ``status``: while it runs for somebody who needs a permit, and after it failed."""
    if view is None or facts.target is None or facts.state in _QUIET:
        return None
    if not ended(facts.state) and not facts.granted and not any(n.state == "staged" for n in view.nodes):
        return None
    found = rollout_document(store, line, facts, view)
    return {key: found[key] for key in ("state", "paused", "reason", "switched", "total", "failed", "next")}


def _next_steps(line: LineId, facts: RolloutFacts) -> list[str]:
    name = line.fileset
    if facts.state is RolloutState.CONFIRMING:
        return [f"instep rollout confirm {name}", f"instep rollout abort {name}"]
    if facts.is_paused:
        return [f"instep rollout resume {name}", f"instep rollout abort {name}"]
    if facts.state in FAILED:
        return [f"repair the cause, then: instep retry {name}", *_way_back(name, facts.replaced)]
    return []


def _way_back(name: str, replaced: HeadRef | None) -> list[str]:
    return [] if replaced is None else [f"instep rollback {name} {replaced.number}"]
