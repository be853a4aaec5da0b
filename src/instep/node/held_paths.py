"""Paths that cannot become what a generation says, because ignored paths lie in them: those are never touched."""

from __future__ import annotations

from instep.errors import RefusedError
from instep.model.paths import shown
from instep.tree.place import Place
from instep.tree.switch import Switched

__all__ = ["refuse_held"]

NAMED_MAX = 20


def refuse_held(place: Place, switched: Switched) -> None:
    """``RefusedError`` ``ignored_in_the_way`` when a switch left a directory as it was for what is ignored in it."""
    if not switched.held:
        return
    path = shown(switched.held[0])
    more = f" and {len(switched.held) - 1} more" if len(switched.held) > 1 else ""
    raise RefusedError(
        f"{path}{more} cannot become what generation {switched.journal.header.target.number} says: "
        "ignored paths lie in it, which stay",
        hint=f"move what is ignored out of {place.root}/{path}, then: instep retry {place.fileset}",
        code="ignored_in_the_way",
        path=path,
        paths=[shown(each) for each in switched.held[:NAMED_MAX]],
    )
