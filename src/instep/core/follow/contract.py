"""The contract of the ``FollowMachine`` as data: its phases, and the invariants of every step, in production too.

A row names the effect that begins a phase, the events that end it, and the phases that may follow. A newer head, other
settings or a retry may end a phase that only fetches, stages or looks, at any moment. An invariant is cheap; a broken
one stops the line."""

from __future__ import annotations

from typing import Any

from instep.core.contract import Invariant, PhaseRow
from instep.core.follow import vocabulary as f
from instep.core.follow.state import FollowPhase, FollowState
from instep.core.line_machine import begins_one_job
from instep.core.vocabulary import HookEnded, RunHook

_DUE = "drain return reload probe record put_back"
"""What a tree that holds a generation may have pending."""

PHASES = {
    FollowPhase(row.phase): row
    for row in (
        PhaseRow(
            "recover", (f.Recover,), (f.RecoveryEnded, f.RecoverFailed), f"rest fetch check compare {_DUE}"
        ),
        PhaseRow(
            "fetch",
            (f.FetchPages,),
            (f.PagesFetched, f.FetchFailed, f.HeadSuperseded),
            f"rest recover stage compare check revert {_DUE}",
        ),
        PhaseRow(
            "stage",
            (f.StageContents,),
            (f.Staged, f.StageFailed, f.HeadSuperseded),
            f"rest recover fetch gates validate switch check revert {_DUE}",
        ),
        PhaseRow(
            "gates",
            (f.CheckGates,),
            (f.GatesChecked,),
            f"rest recover fetch stage validate switch check revert {_DUE}",
        ),
        PhaseRow(
            "validate",
            (RunHook,),
            (HookEnded,),
            f"rest recover fetch stage gates switch check revert {_DUE}",
        ),
        PhaseRow(
            "drain",
            (f.DrainNode,),
            (f.NodeDrained,),
            f"rest recover fetch stage gates validate switch check {_DUE}",
        ),
        PhaseRow("switch", (f.Switch,), (f.TreeSwitched, f.SwitchFailed), f"rest recover {_DUE}"),
        PhaseRow("reload", (RunHook,), (HookEnded,), f"rest fetch stage gates validate switch check {_DUE}"),
        PhaseRow("probe", (RunHook,), (HookEnded,), f"rest fetch check {_DUE}"),
        PhaseRow(
            "return",
            (f.Return,),
            (f.Returned,),
            f"rest recover fetch stage gates validate switch check revert compare {_DUE}",
        ),
        PhaseRow(
            "record",
            (f.RecordLive,),
            (f.LiveRecorded, f.RecordFailed),
            f"rest recover fetch check compare {_DUE}",
        ),
        PhaseRow(
            "put_back", (f.PutBack,), (f.PutBackDone, f.PutBackFailed), f"rest recover fetch check {_DUE}"
        ),
        PhaseRow(
            "check",
            (f.CheckDrift,),
            (f.DriftChecked, f.DriftCheckFailed),
            f"rest recover fetch stage gates validate switch revert compare {_DUE}",
        ),
        PhaseRow(
            "revert",
            (f.Revert,),
            (f.Reverted, f.RevertFailed),
            f"rest recover fetch stage gates validate switch check {_DUE}",
        ),
        PhaseRow("compare", (f.CompareTree,), (f.Compared,), f"rest recover fetch check {_DUE}"),
    )
}

_EFFECTS = tuple[Any, ...]
_ACTS = (f.Switch, f.PutBack, f.Revert)


def saves_facts(machine: FollowState, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, by at most one effect of it, or are being recorded as live."""
    saves = sum(isinstance(e, f.SaveFollow | f.RecordLive) for e in effects)
    is_recording = machine._job is not None and machine._job.phase is FollowPhase.RECORD
    return saves <= 1 and (is_recording or machine._saved == machine._facts)


def acts_after_saving(machine: FollowState, effects: _EFFECTS) -> bool:
    """No effect that changes the tree comes before the save of the same step."""
    saved = next((i for i, e in enumerate(effects) if isinstance(e, f.SaveFollow)), 0)
    return not any(isinstance(e, _ACTS) for e in effects[:saved])


def recovers_first(machine: FollowState, effects: _EFFECTS) -> bool:
    """The tree is not changed before the journal of an interrupted switch was brought to an end."""
    return machine._is_recovered or not any(isinstance(e, _ACTS) for e in effects)


def never_switches_while_paused(machine: FollowState, effects: _EFFECTS) -> bool:
    """A paused line does not switch."""
    return not machine._facts.is_paused or not any(isinstance(e, f.Switch) for e in effects)


def never_switches_downwards(machine: FollowState, effects: _EFFECTS) -> bool:
    """A switch goes to a newer generation than the one that the tree holds; only a put-back goes to an older one."""
    return not any(
        isinstance(e, f.Switch) and e.base is not None and e.head.position <= e.base.position for e in effects
    )


def never_switches_to_what_it_refused(machine: FollowState, effects: _EFFECTS) -> bool:
    """A generation that is refused is not switched to (P4): a put-back brought the tree back from it, or will."""
    refused = machine._facts.refused
    return refused is None or not any(isinstance(e, f.Switch) and e.head == refused for e in effects)


INVARIANTS: tuple[Invariant[FollowState], ...] = (
    begins_one_job,
    saves_facts,
    acts_after_saving,
    recovers_first,
    never_switches_while_paused,
    never_switches_downwards,
    never_switches_to_what_it_refused,
)
