"""The guards of a publish (P10): the result of a scan is judged, held paths and losses are recorded."""

from __future__ import annotations

from msgspec.structs import replace

from instep.core.guards.guards import judge_problems
from instep.core.guards.held import HELD_LOOK_MS, HeldPaths, merge_held
from instep.core.guards.losses import (
    Checkpoint,
    Lost,
    is_mass,
    judge_held_mass,
    judge_removals,
    next_checkpoints,
)
from instep.core.hook_writes import hook_words
from instep.core.publish.state import PublishState, Run
from instep.core.publish.vocabulary import Missing, ScanSummary
from instep.core.vocabulary import HookKind, SetTimer, Trouble


class PublishGuards(PublishState):
    """Says what stops a publish, and keeps what the next one is judged by."""

    def _judged(self, run: Run, summary: ScanSummary) -> Trouble | None:
        """Why this scan is not published, or None."""
        facts, policy, accepted = self._facts, self._config.deletions, run.accepts_deletions
        strict = summary.held.listed if self._config.is_strict else ()
        held = self._held_after(summary)
        lost = judge_removals(
            summary.losses, policy, facts.missing, added=summary.added, entries_before=summary.entries_before,
            accepted=accepted, by_hand=any(not request.is_flush for request in run.requests),
        )  # fmt: skip
        mass = judge_held_mass(facts.held, held, summary.entries_before, policy, accepted=accepted)
        return (
            judge_problems((*summary.problems, *strict))
            or self._with_commands(lost)
            or self._with_commands(mass)
        )

    def _count_missing(self, run: Run, summary: ScanSummary, refusal: Trouble | None) -> None:
        """Record that a mass deletion was stopped, until nothing of it is missing any more."""
        if run.is_dry:
            return
        if refusal is not None and is_mass(refusal):
            self._set(missing=Missing.STOPPED)
        elif not summary.losses:
            self._set(missing=Missing.NOTHING)

    def _with_commands(self, refusal: Trouble | None) -> Trouble | None:
        """With the fileset in the command, so that it can be typed as it is where a node has several."""
        if refusal is None:
            return None
        return replace(refusal, hint=(refusal.hint or "").replace("FILESET", self.line.fileset))

    def _held_after(self, summary: ScanSummary) -> HeldPaths:
        return merge_held(self._facts.held, summary.held, is_full=summary.is_full)

    def _spare_hooks(self, run: Run, summary: ScanSummary) -> None:
        """Changes that hooks of this node made are published; the hooks that made them do not run for them for ever."""
        wrote = () if run.is_by_hand else summary.hook_writes
        if not self._hook_loop.is_over(wrote):
            return
        hooks = {each.hook for each in wrote}
        run.is_validated = HookKind.VALIDATE.value in hooks
        run.is_reloaded = HookKind.RELOAD.value in hooks
        self._note("hook_writes", f"{hook_words(wrote)}: that is published without running the hook again")

    def _hold(self, summary: ScanSummary) -> None:
        """Record which paths are held at their last entries, and look at them again soon."""
        facts, held = self._facts, self._held_after(summary)
        reported = merge_held(facts.reported, summary.reported, is_full=summary.is_full)
        if held.total or reported.total or facts.held.total or facts.reported.total:
            self._set(held=held, reported=reported)
            self._arm_held()

    def _arm_held(self) -> None:
        is_waiting = self._facts.held.total or any(
            each.what == "mount" for each in self._facts.reported.listed
        )
        self._out.append(SetTimer("held", self._now + HELD_LOOK_MS if is_waiting else None))

    def _let_off(self, summary: ScanSummary) -> None:
        """A look publishes nothing and holds nothing: it only ends what is said of paths that could be carried by now.
        They are changes like others then."""
        before = self._facts.held
        if not before.total:
            return
        held = self._held_after(summary)
        if before.total == len(before.listed):
            listed = tuple(each for each in held.listed if each.path in before.paths)
            entries, size = sum(each.entries for each in listed), sum(each.size_bytes for each in listed)
            held = HeldPaths(listed, len(listed), entries, size)
        self._set(held=held)
        self._arm_held()

    def _count_losses(self, run: Run, summary: ScanSummary) -> None:
        """For the generation that is committed now. After a restore of some paths the others may be missing still."""
        is_part = run.restore is not None and bool(run.restore.paths) and not run.accepts_deletions
        missing = max(self._facts.missing, Missing.RESTORED) if is_part else Missing.NOTHING
        self._set(checkpoints=self._checkpoints(run, summary), missing=Missing(missing))

    def _checkpoints(self, run: Run, summary: ScanSummary) -> tuple[Checkpoint, ...]:
        """From where the next losses are counted; accepted losses are counted no more."""
        known = self._facts.checkpoints
        if run.accepts_deletions or run.accepted or not (known or summary.losses):
            return ()
        lost = summary.losses[0] if summary.losses else Lost()
        before = summary.entries_before
        return next_checkpoints(known, run.base, lost, summary.added, before, summary.at_ms)
