"""Which archive batches may go, and which old generations a writer keeps. Pure plans.

The archive is never pruned below its retention (P5): a batch goes when it is neither among the ``keep_last`` newest
nor younger than ``keep_within``. When the batches that the retention holds are larger than ``max_share`` of the file
system, or leave too little of it free, older versions of the same paths are thinned until they fit. Nothing else goes:
``over_share_bytes`` says how much is left over, and status shows it to the operator. Only an operator may shorten the
retention further.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from instep.model.ids import Digest, HeadRef

FREE_MIN_SHARE = 0.05
"""So much of a disk stays free of archives, and of copies of hot files."""
RESTART_MAX_MS = 3_600_000
"""Across a restart the clock of the retention goes on by this much at most, however long the node was off."""
HOUR_MS, DAY_MS, WEEK_MS = 3_600_000, 86_400_000, 7 * 86_400_000
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
    """``max_bytes`` is what ``at_most_bytes`` says, None for no bound. In a thinned archive every version of the
    last hour stays, one an hour for ``keep_hourly`` hours, one a day for ``keep_daily`` days, then one a week."""

    keep_last: int = 10
    keep_within_ms: int = 30 * 86_400_000
    max_bytes: int | None = None
    keep_hourly: int = 24
    keep_daily: int = 7


@dataclass(frozen=True, slots=True)
class Version:
    """One archived object of a batch. One that ``stays`` was set aside, or no other version can stand for it."""

    batch: str
    path: bytes
    stays: bool = False


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


def at_most_bytes(total: int, free: int, held: int, share_percent: float) -> int:
    """What an archive that takes ``held`` bytes now may take of a disk: its share, and no more than leaves
    ``FREE_MIN_SHARE`` of the disk free."""
    return max(0, min(int(total * share_percent / 100), held + free - int(total * FREE_MIN_SHARE)))


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


def secrets_to_forget(batches: Sequence[Batch]) -> tuple[str, ...]:
    """All batches but the newest: of a secret, one old version is kept at most."""
    return tuple(batch.name for batch in sorted(batches, key=lambda b: (b.at_ms, b.name))[:-1])


def plan_thinning(
    batches: Sequence[Batch], versions: Iterable[Version], policy: RetentionPolicy, now_ms: int
) -> tuple[str, ...]:
    """The batches to remove, oldest first, until the rest is within the share. A batch goes only when each of its
    versions has a newer one of the same path in the same hour, day or week. The newest of these never goes, so the last
    version of a path stays. A batch without versions stays: its index may be damaged."""
    oldest_first = sorted(batches, key=lambda b: (b.at_ms, b.name))
    over = 0 if policy.max_bytes is None else sum(b.size_bytes for b in batches) - policy.max_bytes
    if over <= 0:
        return ()
    now_ms = min(now_ms, oldest_first[-1].at_ms)
    order = {batch.name: number for number, batch in enumerate(oldest_first)}
    slots = [_slot(now_ms, batch.at_ms, policy) for batch in oldest_first]
    may_go = dict.fromkeys(range(max(0, len(oldest_first) - policy.keep_last)), False)
    newest: dict[tuple[bytes, str, int], int] = {}
    held: list[tuple[int, tuple[bytes, str, int]]] = []
    staying: set[int] = set()
    for version in versions:
        number = order.get(version.batch)
        if number is None:
            continue
        slot = slots[number]
        if version.stays or slot is None:
            staying.add(number)
        if slot is not None:
            key = (version.path, *slot)
            newest[key] = max(newest.get(key, number), number)
            held.append((number, key))
            if number in may_go:
                may_go[number] = True
    staying |= {number for number, key in held if newest[key] == number}
    names: list[str] = []
    for number, is_known in may_go.items():
        if over > 0 and is_known and number not in staying:
            names.append(oldest_first[number].name)
            over -= oldest_first[number].size_bytes
    return tuple(names)


def _slot(now_ms: int, at_ms: int, policy: RetentionPolicy) -> tuple[str, int] | None:
    """The hour, day or week of which one version of each path stays; None within the last hour."""
    age_ms = now_ms - at_ms
    if age_ms <= HOUR_MS:
        return None
    if age_ms <= policy.keep_hourly * HOUR_MS:
        return "hour", at_ms // HOUR_MS
    if age_ms <= policy.keep_daily * DAY_MS:
        return "day", at_ms // DAY_MS
    return "week", at_ms // WEEK_MS


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
