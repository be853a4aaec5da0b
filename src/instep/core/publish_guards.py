"""The guards of a publish (P10): what a scan found is judged, held paths and losses are remembered."""

from __future__ import annotations

from dataclasses import replace

from instep.core.guards import judge_problems
from instep.core.held import HELD_LOOK_MS, HeldPaths, merge_held
from instep.core.losses import Checkpoint, Lost, judge_held_mass, judge_losses, next_checkpoints
from instep.core.publish_state import PublishState, Run
from instep.core.publish_vocabulary import ScanSummary
from instep.core.vocabulary import SetTimer, Trouble

__all__ = ["PublishGuards"]


class PublishGuards(PublishState):
    """Says what stops a publish, and keeps what the next one is judged by."""

    def _judged(self, run: Run, summary: ScanSummary) -> Trouble | None:
        """Why this scan is not published, or None."""
        facts, policy, accepted = self._facts, self._config.deletions, run.accepts_deletions
        strict = summary.held.listed if self._config.is_strict else ()
        held = self._held_after(summary)
        lost = judge_losses(summary.losses, policy, accepted=accepted)
        mass = judge_held_mass(facts.held, held, summary.entries_before, policy, accepted=accepted)
        return (
            judge_problems((*summary.problems, *strict))
            or self._with_commands(lost)
            or self._with_commands(mass)
        )

    def _with_commands(self, refusal: Trouble | None) -> Trouble | None:
        """With the fileset in the command, so that it can be typed as it is where a node has several."""
        if refusal is None:
            return None
        name = self.line.fileset
        hint = (refusal.hint or "").replace("instep publish", f"instep publish {name}")
        return replace(refusal, hint=hint)

    def _held_after(self, summary: ScanSummary) -> HeldPaths:
        return merge_held(self._facts.held, summary.held, is_full=summary.is_full)

    def _hold(self, summary: ScanSummary) -> None:
        """Remember which paths are held at their last entries, and look at them again soon."""
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

    def _checkpoints(self, run: Run, summary: ScanSummary) -> tuple[Checkpoint, ...]:
        """From where the next losses are counted; what an operator accepted is counted no more."""
        known = self._facts.checkpoints
        if run.accepts_deletions or not (known or summary.losses):
            return ()
        lost = summary.losses[0] if summary.losses else Lost()
        before = summary.entries_before
        return next_checkpoints(known, run.base, lost, summary.added, before, summary.at_ms)
