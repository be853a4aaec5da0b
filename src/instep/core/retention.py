"""Which archive batches may go, and which old generations a writer keeps. Pure plans.

The archive is never pruned below its retention (P5): a batch goes when it is neither among the ``keep_last`` newest
nor younger than ``keep_within``. ``max_share`` of the file system removes nothing by itself: when the batches that
the retention holds are larger, ``over_share_bytes`` says by how much, and status shows it to the operator: only an
operator may shorten the retention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from instep.model.ids import Digest, HeadRef

RESTART_MAX_MS = 3_600_000
"""Across a restart the clock of the retention goes on by this much at most, however long the node was off."""
STEADY_WITHIN_MS = 300_000
"""A wall clock that is this far from the time passed since the last look was set."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The objects that one switch or revert moved to the archive; ``at_ms`` is wall clock."""

    name: str
    at_ms: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """``max_bytes`` is ``max_share`` of this file system, None for no bound."""

    keep_last: int = 10
    keep_within_ms: int = 30 * 86_400_000
    max_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """``names`` to remove, oldest first; ``over_share_bytes`` counts the bytes that the retention
    holds beyond the share."""

    names: tuple[str, ...]
    over_share_bytes: int


class RetentionClock(msgspec.Struct, frozen=True, array_like=True):
    """The clock of the retention: it goes on with passing time, never with a jump of the wall clock. ``now_ms`` is
    never after the wall clock, ``wall_ms`` is the wall clock at the last look, ``steady_ms`` for how long it was not
    set."""

    now_ms: int
    wall_ms: int
    steady_ms: int = 0


def looked_at(
    clock: RetentionClock | None, wall_ms: int, elapsed_ms: int | None, newest_ms: int, keep_within_ms: int
) -> RetentionClock:
    """The clock at a look. ``elapsed_ms`` is the time since the last look by the monotonic clock, None when the node
    was off in between; ``newest_ms`` when the newest batch was made, where there is no clock yet.

    After a jump the clock lags behind the wall clock, and everything is kept for longer. Once the wall clock was steady
    for a whole retention, nothing from before the jump is younger than that, and the clock follows it again."""
    if clock is None:
        return RetentionClock(min(wall_ms, newest_ms), wall_ms)
    step = wall_ms - clock.wall_ms
    elapsed = min(max(0, step), RESTART_MAX_MS) if elapsed_ms is None else elapsed_ms
    is_steady = abs(step - elapsed) <= STEADY_WITHIN_MS
    steady = clock.steady_ms + elapsed if is_steady else 0
    now = clock.now_ms + elapsed
    if steady > keep_within_ms:
        now = max(now, wall_ms)
    return RetentionClock(min(now, wall_ms), wall_ms, steady)


def plan_prune(
    batches: Sequence[Batch], policy: RetentionPolicy, now_ms: int, *, from_newest: bool = True
) -> PrunePlan:
    """What to remove. A batch from the future (the clock was set back) counts as new. ``from_newest``: age is counted
    from the newest batch as well, so that a clock alone never makes anything old."""
    newest_first = sorted(batches, key=lambda b: (b.at_ms, b.name), reverse=True)
    if from_newest and newest_first and policy.keep_within_ms:
        now_ms = min(now_ms, newest_first[0].at_ms)
    may_go = [b for b in newest_first[max(0, policy.keep_last) :] if now_ms - b.at_ms > policy.keep_within_ms]
    kept_bytes = sum(b.size_bytes for b in batches) - sum(b.size_bytes for b in may_go)
    over = 0 if policy.max_bytes is None else max(0, kept_bytes - policy.max_bytes)
    return PrunePlan(tuple(b.name for b in reversed(may_go)), over)


def kept_generations(
    known: Sequence[HeadRef], head: HeadRef | None, in_use: Sequence[Digest], keep_last: int
) -> tuple[HeadRef, ...]:
    """The generations whose manifests (and history) a writer keeps for fetchers: the head, the ``keep_last`` newest,
    and generations in use: those that partners last reported and roots pinned by a request, by generation id."""
    newest_first = sorted(known, key=lambda g: (g.position, g.id), reverse=True)
    used = frozenset(in_use)
    newest = frozenset(g.id for g in newest_first[: max(1, keep_last)])
    return tuple(
        g for g in newest_first if g.id in newest or g.id in used or (head is not None and g.id == head.id)
    )
