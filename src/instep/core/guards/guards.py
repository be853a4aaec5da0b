"""The guards of P10: the losses that a writer never publishes. Pure decisions on a scan's summary.

Missing marker and missing mount come as failures of the scan and can never be overridden; a damaged file and a root
that cannot be read are named and refused; mass deletions pass only with ``--accept-deletions``. A single path that
cannot be carried is held at its last entry and stops nothing, unless the fileset is ``strict``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instep.core.guards.held import DAMAGED, ScanProblem, is_held, words_of
from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.model.counts import counted, which
from instep.model.paths import shown

DELETIONS_FREE = 20
"""So many deletions pass whatever share of the tree they are."""

NAMED_MAX = 20


@dataclass(frozen=True, slots=True)
class DeletionPolicy:
    """``max_deletions``: up to the greater of ``DELETIONS_FREE`` and the share (or, where it is set, exactly
    the count). The default is half."""

    share_percent: int = 50
    count: int | None = None

    def allowed(self, entries_before: int) -> int:
        if self.count is not None:
            return self.count
        return max(DELETIONS_FREE, entries_before * self.share_percent // 100)


DEFAULT_DELETIONS = DeletionPolicy()


def judge_problems(problems: Sequence[ScanProblem]) -> Trouble | None:
    """Why these problems stop a publish, or None: damage and a root that cannot be read always do. The caller adds
    held paths where the fileset is ``strict``."""
    refused = [p for p in problems if p.what == DAMAGED or not p.path or is_held(p)]
    if not refused:
        return None
    worst = next((p for p in refused if p.what == DAMAGED), refused[0])
    is_damaged = worst.what == DAMAGED
    hint = _HINTS.get(worst.what, "put right what holds the path, or ignore it")
    return Trouble(
        worst.what,
        words_of(refused, len(refused)) if worst.path else f"the root cannot be read: {worst.detail}",
        Retry.NEVER if is_damaged else Retry.LATER,
        10 if is_damaged else 4,
        hint if is_damaged or not worst.path else f"{hint}; strict = true lets no path be held",
        (("paths", [shown(p.path) for p in refused[:NAMED_MAX]]), ("total", len(refused))),
    )


_HINTS = {
    "damaged": "if a program wrote these bytes in place, touch the file, and it is published as it is; else restore "
    "it: its contents may lie at partners",
    "unreadable": "make it readable for the user that instep runs as, or ignore it",
    "open": "close the program that has it open for writing; a database or an index is better ignored, with a dump "
    "of it published instead",
    "hot": "it changes all the time: ignore it, or publish when the program that writes it is quiet",
    "unstable": "it changes all the time: ignore it, or publish when the program that writes it is quiet",
    "bad_name": "rename it",
}


def judge_deletions(
    removed: int, entries_before: int, policy: DeletionPolicy, *, accepted: bool
) -> Trouble | None:
    """Why so many deletions stop a publish, or None."""
    allowed = policy.allowed(entries_before)
    if accepted or removed <= allowed:
        return None
    return Trouble(
        "max_deletions",
        f"{removed} of {counted(entries_before, 'path')} would be removed, {allowed} {which(allowed, 'is', 'are')} "
        "allowed without being asked",
        Retry.NEVER,
        4,
        "when that is meant: instep publish FILESET --accept-deletions",
        (("allowed", allowed), ("entries", entries_before), ("removed", removed)),
    )
