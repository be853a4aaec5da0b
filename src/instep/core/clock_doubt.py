"""Whether the wall clock of a node is good enough to renew its certificates by. Pure decisions.

A certificate that was made by a wrong clock is refused by every partner. So a node renews while most of the
partners that it hears show about the same time; without partners, once its clock was watched for a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instep.model.ids import NodeName

AGREE_MS = 300_000
"""Clocks that are no further apart than this agree, as for gates."""
STEADY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ClockLook:
    """The wall clock at the last look, and for how long it has gone on with passing time."""

    wall_ms: int
    steady_ms: int = 0


def looked_at(last: ClockLook | None, wall_ms: int, elapsed_ms: int) -> ClockLook:
    """The next look, ``elapsed_ms`` of the monotonic clock after the last one."""
    if last is None or abs(wall_ms - last.wall_ms - elapsed_ms) > AGREE_MS:
        return ClockLook(wall_ms)
    return ClockLook(wall_ms, last.steady_ms + elapsed_ms)


@dataclass(frozen=True, slots=True)
class ClockDoubt:
    """Why the clock is not trusted. ``is_against``: partners show another time; else there was none to ask."""

    reason: str
    is_against: bool


def clock_doubt(look: ClockLook, skews_ms: Mapping[NodeName, int]) -> ClockDoubt | None:
    """``skews_ms``: the clocks of the connected partners, less this node's."""
    apart = {name: skew for name, skew in sorted(skews_ms.items()) if abs(skew) > AGREE_MS}
    if apart and 2 * len(apart) >= len(skews_ms):
        said = ", ".join(f"{name} {_span(skew)}" for name, skew in apart.items())
        return ClockDoubt(f"its clock differs from those of partners ({said})", True)
    if not skews_ms and look.steady_ms < STEADY_MS:
        return ClockDoubt(
            "no partner is connected to compare the clock with, and it was watched for less than a day", False
        )
    return None


def _span(skew_ms: int) -> str:
    days, seconds = abs(skew_ms) // 86_400_000, abs(skew_ms) // 1000
    size = f"{days} days" if days >= 2 else f"{seconds} s"
    return f"is {size} {'ahead' if skew_ms > 0 else 'behind'}"
