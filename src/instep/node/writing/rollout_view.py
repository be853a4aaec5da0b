"""What ``rollout show`` and ``status`` say of a rollout: from its facts, its view and the store."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from instep.api.looking import RunningRolloutDocument
from instep.api.parts import FailureDocument, generation
from instep.api.rollouts import RolloutDocument, RolloutNodeDocument, RolloutsDocument
from instep.core.rollout.nodes import LEFT_OUT, NodePlace
from instep.core.rollout.vocabulary import RolloutFacts, RolloutState, RolloutView, ended
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.standing import Standing
from instep.net.messages.messages import Report
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory
from instep.node.lines.line_standing import RolloutNow
from instep.node.lines.snapshot import moment, pick_fileset
from instep.node.writing.rollout import FAILED, finished_rollouts, saved_rollout
from instep.store.port import NodeStore
from instep.store.sqlite import SqliteStore

PAST_SHOWN = 20
_STILL = ("unreachable", NodePlace.SWITCHED.value, NodePlace.PUT_BACK.value)
"""States of nodes in a rollout that take no step by themselves."""
_QUIET = (RolloutState.NONE, RolloutState.DONE, RolloutState.SUPERSEDED)


def rollout_document(
    store: NodeStore, line: LineId, facts: RolloutFacts, view: RolloutView | None
) -> RolloutDocument:
    """Author, generation, times, duration and reason; with ``view`` also where each partner is now."""
    assert facts.target is not None, "a rollout is of a generation"
    signed = store.generation(facts.target.id)
    took_ms = None if facts.ended_wall_ms is None else max(0, facts.ended_wall_ms - facts.started_wall_ms)
    document = RolloutDocument(
        generation=generation(facts.target),
        replaced=generation(facts.replaced),
        author=facts.author,
        message=signed.body().message if signed is not None else "",
        state=facts.state.value,
        paused=facts.is_paused,
        strategy=facts.policy.strategy.value,
        approved_by=facts.approved_by or UNSET,
        started_at=moment(facts.started_wall_ms),
        ended_at=moment(facts.ended_wall_ms),
        took_ms=took_ms,
        permitted=facts.granted,
        failed=failure_document(facts),
    )
    if view is None:
        return document
    nodes = (
        RolloutNodeDocument(node.node, node.state, node.wave, node.is_drained, node.reason)
        for node in view.nodes
    )
    return replace(
        document,
        reason=view.reason or None,
        nodes=tuple(nodes),
        switched=sum(node.state == "switched" for node in view.nodes),
        total=len(view.nodes),
        next=_next_steps(line, facts),
    )


def rollouts_document(
    store: NodeStore, line: LineId, facts: RolloutFacts | None, view: RolloutView | None
) -> RolloutsDocument:
    """``rollout show --json``: the present rollout, None before the first, and the past ones, newest first."""
    shown = None
    if facts is not None and facts.target is not None:
        shown = rollout_document(store, line, facts, view)
    past = (
        rollout_document(store, line, each, None)
        for each in finished_rollouts(store, line, PAST_SHOWN)
        if each.target is not None
    )
    return RolloutsDocument(line.fileset, shown, tuple(past))


def offline_rollouts(directory: Path, fileset: str | None) -> RolloutsDocument:
    """The same from the last state, with the daemon down."""
    chosen = pick_fileset(load(directory), fileset)
    with closing(SqliteStore(NodeDirectory(directory).database)) as store:
        return rollouts_document(store, chosen.line, saved_rollout(store, chosen.line), None)


def failure_document(facts: RolloutFacts) -> FailureDocument | None:
    """Why it did not go through; None while nothing failed."""
    if not facts.failed_code:
        return None
    return FailureDocument(facts.failed_node, facts.failed_code, facts.failed_reason)


def why_never(
    facts: RolloutFacts, target: HeadRef, reports: Mapping[NodeName, Report]
) -> FailureDocument | None:
    """Why the nodes of ``reports`` will not serve ``target`` by themselves: its rollout failed, or one of them
    refused it. None while it may still come."""
    state = facts.state.value
    if facts.target == target and facts.state in (*FAILED, RolloutState.PUTTING_BACK):
        if not facts.failed_code:
            return FailureDocument(None, state, f"the rollout is {state}", state)
        return FailureDocument(facts.failed_node, facts.failed_code, facts.failed_reason, state)
    for name, report in reports.items():
        is_handled = facts.target == target and name in facts.granted and not ended(facts.state)
        if report.refused == target and not is_handled:
            return FailureDocument(name, report.standing.code, report.standing.reason, None)
    return None


def is_behind(report: Report, target: HeadRef) -> bool:
    """Whether a partner does not serve ``target`` well, or a newer generation."""
    live = report.live
    if live is None or live.position < target.position:
        return True
    return live.id == target.id and report.standing.standing is not Standing.IN_STEP


def rollout_now(
    facts: RolloutFacts, view: RolloutView | None, head: HeadRef | None, reports: Mapping[NodeName, Report]
) -> RolloutNow:
    """How the partners take ``head``, the newest generation."""
    failure = why_never(facts, head, reports) if head is not None else None
    if head is None or failure is None:
        return RolloutNow(head is not None and _is_going(facts, view, head, reports))
    reason = failure.reason or failure.code or "the rollout ended"
    return RolloutNow(refused=f"{failure.node}: {reason}" if failure.node else reason)


def _is_going(
    facts: RolloutFacts, view: RolloutView | None, head: HeadRef, reports: Mapping[NodeName, Report]
) -> bool:
    """Whether a partner that can be reached still takes ``head``, or goes back from it. One that is paused, observing
    or blocked takes nothing by itself; a rollout that an operator paused or has to confirm waits for that."""
    if facts.target is None or facts.target.position < head.position:
        return bool(view is not None and view.nodes)
    if ended(facts.state) or facts.is_paused or facts.state is RolloutState.CONFIRMING or view is None:
        return False
    taking = (node.node for node in view.nodes if node.state not in _STILL)
    standings = (reports[name].standing.standing for name in taking if name in reports)
    return any(standing not in LEFT_OUT for standing in standings)


def status_document(
    line: LineId, facts: RolloutFacts, view: RolloutView | None
) -> RunningRolloutDocument | UnsetType:
    """The rollout in ``status``: while it runs for a node that needs a permit, and after it failed."""
    if view is None or facts.target is None or facts.state in _QUIET:
        return UNSET
    if not ended(facts.state) and not facts.granted and not any(n.state == "staged" for n in view.nodes):
        return UNSET
    return RunningRolloutDocument(
        state=facts.state.value,
        paused=facts.is_paused,
        reason=view.reason or None,
        switched=sum(node.state == "switched" for node in view.nodes),
        total=len(view.nodes),
        failed=failure_document(facts),
        next=_next_steps(line, facts),
    )


def _next_steps(line: LineId, facts: RolloutFacts) -> tuple[str, ...]:
    name = line.fileset
    if facts.is_to_approve and facts.target is not None:
        approve = f"instep rollout approve {name} --generation {facts.target.number}"
        return (approve, f"instep rollout abort {name}")
    if facts.state is RolloutState.CONFIRMING:
        return (f"instep rollout confirm {name}", f"instep rollout abort {name}")
    if facts.is_paused:
        return (f"instep rollout resume {name}", f"instep rollout abort {name}")
    if facts.state not in FAILED:
        return ()
    repair = f"repair the cause, then: instep retry {name}"
    return (repair, f"instep rollback {name} {facts.replaced.number}") if facts.replaced else (repair,)
