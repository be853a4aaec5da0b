"""The table of a sync run: which side's state both sides get, from what changed and which way the kind goes.

Implements the sections "Kinds" and "The table" of ``docs/spec/sync.md``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, assert_never

from instep.model.ids import NodeName


class Direction(enum.StrEnum):
    """Which way changes of a kind go: ``up`` is left to right."""

    UP = "up"
    DOWN = "down"
    BOTH = "both"


class Side(enum.StrEnum):
    LEFT = "left"
    RIGHT = "right"


class Listing(enum.StrEnum):
    """Why a path is listed for people."""

    COLLISION = "collision"
    """Both sides changed it: the younger one was renamed."""
    CHANGE_OVER_DELETION = "change_over_deletion"
    """One side removed it, the other changed it: it comes back."""
    OVERRULED = "overruled"
    """Both sides changed it, and the direction chose: the other side's goes to the archive."""
    LOCKED_EDIT = "locked_edit"
    """It was changed on the side where its kind is locked: that change goes to the archive."""
    MIXED_KINDS = "mixed_kinds"
    """A directory became a file, or the reverse, and the paths below it go different ways: nothing is done."""


class KindRules(NamedTuple):
    """How the paths of one kind go. ``locked``: the side on which no change of them counts."""

    direction: Direction
    locked: Side | None = None

    @property
    def makes_alike(self) -> bool:
        """Whether both sides have the same of such paths after a run, whatever they had before."""
        return self.direction is Direction.BOTH or self.locked is not None


class GateRow(NamedTuple):
    """A gate that does not hold on a server, with both values; or one that could not be asked."""

    gate: str
    side: Side
    node: NodeName
    value: str | None
    wanted: str | None
    reason: str
    is_away: bool = False


RulesOf = Callable[[bytes], KindRules]


class SideChoice(NamedTuple):
    """Which side's state both get (None: each keeps its own), and why people should hear of it."""

    winner: Side | None
    why: Listing | None = None
    loser: Side | None = None


def choose(
    rules: KindRules,
    *,
    are_equal: bool,
    is_left_changed: bool,
    is_right_changed: bool,
    is_on_left: bool,
    is_on_right: bool,
) -> SideChoice | None:
    if are_equal:
        return SideChoice(Side.LEFT)
    if rules.locked is not None:
        free, locked = (Side.LEFT, Side.RIGHT) if rules.locked is Side.RIGHT else (Side.RIGHT, Side.LEFT)
        is_locked_changed = is_right_changed if locked is Side.RIGHT else is_left_changed
        return SideChoice(free, Listing.LOCKED_EDIT if is_locked_changed else None, locked)
    if not (is_left_changed and is_right_changed):
        giver = Side.LEFT if is_left_changed else Side.RIGHT
        against = Direction.DOWN if giver is Side.LEFT else Direction.UP
        return SideChoice(giver if rules.direction is not against else None)
    match rules.direction:
        case Direction.UP:
            return SideChoice(Side.LEFT, Listing.OVERRULED, Side.RIGHT)
        case Direction.DOWN:
            return SideChoice(Side.RIGHT, Listing.OVERRULED, Side.LEFT)
        case Direction.BOTH:
            if is_on_left and is_on_right:
                return None
            changed, removed = (Side.LEFT, Side.RIGHT) if is_on_left else (Side.RIGHT, Side.LEFT)
            return SideChoice(changed, Listing.CHANGE_OVER_DELETION, removed)
        case _:
            assert_never(rules.direction)
