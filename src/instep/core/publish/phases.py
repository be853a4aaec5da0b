"""The phases of the ``PublishMachine`` as data: which effect begins each, which events end it, what may follow."""

from __future__ import annotations

from instep.core.contract import PhaseRow
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.state import PublishPhase
from instep.core.vocabulary import HookEnded, RunHook

PHASES = {
    PublishPhase(row.phase): row
    for row in (
        PhaseRow("recover", (s.Recover,), (s.TreeRecovered, s.RecoverFailed), "rest fetch scan plan"),
        PhaseRow("fetch", (p.FetchPages,), (p.ManifestFetched, p.FetchFailed), "rest scan plan"),
        PhaseRow(
            "scan",
            (p.Scan,),
            (p.TreeScanned, p.ScanFailed),
            "rest recover fetch scan validate reload commit plan",
        ),
        PhaseRow("validate", (RunHook,), (HookEnded,), "rest fetch scan reload commit plan"),
        PhaseRow("reload", (RunHook,), (HookEnded,), "rest fetch scan commit plan"),
        PhaseRow("commit", (p.Commit,), (p.Committed, p.CommitFailed), "rest fetch scan plan"),
        PhaseRow("plan", (s.PlanRestore,), (s.RestorePlanned, s.PlanFailed), "rest fetch scan plan restore"),
        PhaseRow(
            "restore",
            (s.Restore,),
            (s.Restored, s.RestoreFailed),
            "rest recover fetch scan validate reload commit plan",
        ),
    )
}
