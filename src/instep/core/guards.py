"""The guards of P10: what a writer never publishes. Pure decisions on a scan's summary.

Missing marker and missing mount come as failures of the scan and can never be overridden; unreadable, damaged
and unstable entries are named and refused; mass deletions pass only with ``--accept-deletions``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from instep.core.vocabulary import Trouble
from instep.errors import ConfigError, Retry
from instep.model.paths import shown

__all__ = [
    "DEFAULT_DELETIONS",
    "DELETIONS_FREE",
    "DeletionPolicy",
    "ScanProblem",
    "judge_deletions",
    "judge_problems",
    "parse_deletions",
]

DELETIONS_FREE = 20
"""So many deletions pass whatever share of the tree they are."""

NAMED_MAX = 20
_REFUSED_PROBLEMS = ("damaged", "unreadable", "unstable", "bad_name")


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


@dataclass(frozen=True, slots=True)
class ScanProblem:
    """A path that a scan could not carry; ``what`` as ``tree.scan.Problem`` says."""

    path: bytes
    what: str
    detail: str = ""


_PERCENT = re.compile(r"([0-9]{1,3})%")


def parse_deletions(text: str | int) -> DeletionPolicy:
    """``"50%"`` or a number of paths."""
    if isinstance(text, int):
        if text >= 0:
            return DeletionPolicy(count=text)
    elif (found := _PERCENT.fullmatch(text)) and int(found[1]) <= 100:
        return DeletionPolicy(share_percent=int(found[1]))
    elif text.isdecimal() and text.isascii():
        return DeletionPolicy(count=int(text))
    raise ConfigError(f"max_deletions = {text!r} is neither a share such as '50%' nor a number of paths")


def judge_problems(problems: Sequence[ScanProblem]) -> Trouble | None:
    """Why these problems stop a publish, or None: sockets, pipes, devices and mounts are only reported."""
    refused = [p for p in problems if p.what in _REFUSED_PROBLEMS]
    if not refused:
        return None
    worst = min(refused, key=lambda p: _REFUSED_PROBLEMS.index(p.what))
    named = ", ".join(f"{shown(p.path)} is {p.what}" for p in refused[:3])
    more = f" and {len(refused) - 3} more" if len(refused) > 3 else ""
    facts = (("paths", [shown(p.path) for p in refused[:NAMED_MAX]]), ("total", len(refused)))
    return Trouble(
        worst.what,
        f"{named}{more}",
        Retry.LATER if worst.what == "unstable" else Retry.NEVER,
        10 if worst.what == "damaged" else 4,
        _HINTS[worst.what],
        facts,
    )


_HINTS = {
    "damaged": "restore the file from a backup or from a partner (instep archive), or write it anew",
    "unreadable": "make it readable for the user that instep runs as, or ignore it",
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
        f"{removed} of {entries_before} paths would be removed, {allowed} are allowed without being asked",
        Retry.NEVER,
        4,
        "when that is meant: instep publish --accept-deletions",
        (("allowed", allowed), ("entries", entries_before), ("removed", removed)),
    )
