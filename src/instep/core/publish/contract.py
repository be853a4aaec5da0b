"""The contract of the ``PublishMachine`` as data: its phases, and the invariants of every step, in production too.

A row names the effect that begins a phase, the events that end it, and the phases that may follow. An invariant is
cheap; a broken one stops the line."""

from __future__ import annotations

from typing import Any

from instep.core.contract import Invariant, PhaseRow
from instep.core.line_machine import begins_one_job
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.state import PublishPhase, PublishState
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

_EFFECTS = tuple[Any, ...]
_WITHOUT_RUN = (PublishPhase.RECOVER, PublishPhase.FETCH)


def works_for_a_run(machine: PublishState, effects: _EFFECTS) -> bool:
    """A job on the tree belongs to a run, which has the requests that wait for it."""
    job = machine._job
    return job is None or job.phase in _WITHOUT_RUN or machine._run is not None


def saves_facts(machine: PublishState, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, by at most one effect of it."""
    return (
        sum(isinstance(e, p.SavePublish | p.Commit) for e in effects) <= 1
        and machine._saved == machine._facts
    )


def saves_the_number(machine: PublishState, effects: _EFFECTS) -> bool:
    """A commit takes a number that it saves as the highest one, so that no later commit takes it again."""
    return not any(isinstance(e, p.Commit) and e.number != e.facts.highest for e in effects)


def never_commits_while_paused(machine: PublishState, effects: _EFFECTS) -> bool:
    """A paused line, one of a read-only node, and one that another node writes by now, commits nothing."""
    is_kept = machine._facts.is_paused or machine._config.read_only is not None
    is_held = is_kept or machine._not_the_writer() is not None
    return not is_held or not any(isinstance(e, p.Commit) for e in effects)


INVARIANTS: tuple[Invariant[PublishState], ...] = (
    begins_one_job,
    works_for_a_run,
    saves_facts,
    saves_the_number,
    never_commits_while_paused,
)
