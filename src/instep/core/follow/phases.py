"""The phases of the ``FollowMachine`` as data: which effect begins each, which events end it, what may follow.

A newer head, other settings or a retry may end a phase that only fetches, stages or looks, at any moment."""

from __future__ import annotations

from instep.core.contract import PhaseRow
from instep.core.follow import vocabulary as f
from instep.core.follow.state import FollowPhase
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
        PhaseRow("reload", (RunHook,), (HookEnded,), f"rest fetch check {_DUE}"),
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
