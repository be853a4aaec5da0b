"""Paths that cannot become what a generation says: because ignored paths lie in them, which are never touched, or
because a program changed them in the middle of the switch."""

from __future__ import annotations

from instep.core.guards.held import (
    HELD_LISTED_MAX,
    IGNORED_INSIDE,
    MOVED_ON,
    NOTHING_HELD,
    HeldPaths,
    ScanProblem,
)
from instep.errors import RefusedError
from instep.model.paths import shown
from instep.tree.root.place import Place
from instep.tree.switch.step_work import Switched

NAMED_MAX = 20


def left_by(switched: Switched | None) -> HeldPaths:
    """The paths that a writer's restore left different from its generation. None: the switch had ended before."""
    if switched is None:
        return NOTHING_HELD
    held = [ScanProblem(path, IGNORED_INSIDE) for path in switched.held]
    missed = [ScanProblem(path, MOVED_ON) for path in switched.missed if path not in switched.held]
    return HeldPaths((*held, *missed)[:HELD_LISTED_MAX], len(held) + len(missed))


def refuse_held(place: Place, switched: Switched) -> None:
    """``RefusedError`` ``ignored_in_the_way`` when a switch left a directory as it was because of ignored paths in
    it."""
    if not switched.held:
        return
    path = shown(switched.held[0])
    more = f" and {len(switched.held) - 1} more" if len(switched.held) > 1 else ""
    raise RefusedError(
        f"{path}{more} cannot become what generation {switched.journal.header.target.number} says: "
        "ignored paths lie in it, which stay",
        hint=f"move the ignored paths out of {place.root}/{path}, then: instep retry {place.fileset}",
        code="ignored_in_the_way",
        path=path,
        paths=[shown(each) for each in switched.held[:NAMED_MAX]],
    )
