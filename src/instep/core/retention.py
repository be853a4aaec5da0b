"""Which archive batches may go, and which old generations a writer keeps. Pure plans.

The archive is never pruned below its retention (P5): a batch goes when it is neither among the ``keep_last``
newest nor younger than ``keep_within``. ``max_share`` of the file system removes nothing by itself: when
what the retention holds is larger, ``over_share_bytes`` says by how much, and status tells the operator who
alone may shorten the retention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instep.model.ids import Digest, HeadRef

__all__ = ["Batch", "PrunePlan", "RetentionPolicy", "kept_generations", "plan_prune"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one switch or revert moved to the archive; ``at_ms`` is wall clock."""

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
    """``names`` to remove, oldest first; ``over_share_bytes`` is what the retention holds beyond the
    share."""

    names: tuple[str, ...]
    freed_bytes: int
    over_share_bytes: int


def plan_prune(batches: Sequence[Batch], policy: RetentionPolicy, now_ms: int) -> PrunePlan:
    """What to remove. A batch from the future (the clock was set back) counts as new."""
    newest_first = sorted(batches, key=lambda b: (b.at_ms, b.name), reverse=True)
    may_go = [b for b in newest_first[max(0, policy.keep_last) :] if now_ms - b.at_ms > policy.keep_within_ms]
    total = sum(b.size_bytes for b in batches)
    names: list[str] = []
    freed = 0
    for batch in reversed(may_go):
        names.append(batch.name)
        freed += batch.size_bytes
    over = 0 if policy.max_bytes is None else max(0, total - freed - policy.max_bytes)
    return PrunePlan(tuple(names), freed, over)


def kept_generations(
    known: Sequence[HeadRef], head: HeadRef | None, in_use: Sequence[Digest], keep_last: int
) -> tuple[HeadRef, ...]:
    """The generations whose manifests (and history) a writer keeps for fetchers: the head, the ``keep_last``
    newest, and those in use: what partners last reported and roots pinned by a request, by generation id."""
    newest_first = sorted(known, key=lambda g: (g.position, g.id), reverse=True)
    used = frozenset(in_use)
    newest = frozenset(g.id for g in newest_first[: max(1, keep_last)])
    return tuple(
        g for g in newest_first if g.id in newest or g.id in used or (head is not None and g.id == head.id)
    )
