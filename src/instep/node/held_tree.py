"""The followed tree's own word about what it holds: evidence against a state that is older than the tree (P4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.model.check import missing
from instep.model.ids import HeadRef
from instep.node.placing import Taken
from instep.node.runtime import Runtime
from instep.tree.holding import held_by_tree, note_held

if TYPE_CHECKING:
    from instep.node.follower import FollowService

__all__ = ["held_now", "hold", "is_known_whole"]


def held_now(service: FollowService) -> HeadRef | None:
    """What the tree says. Where it says nothing, or less than the state, what the state says is written beside it."""
    taken = service.applying.taken()
    if taken.marker is None or service.fileset.observe:
        return None
    found = held_by_tree(taken.place, service.line, taken.marker.random)
    tree = service.facts.tree
    if tree is not None and (found is None or found.position < tree.position):
        hold(service, taken, tree, is_synced=True)
    return found


def hold(service: FollowService, taken: Taken, tree: HeadRef, *, is_synced: bool) -> None:
    """Write beside the tree that it holds ``tree``; without ``is_synced`` the caller syncs the control folder."""
    if taken.marker is not None:
        note_held(taken.place, service.line, taken.marker.random, tree, is_synced=is_synced)


def is_known_whole(runtime: Runtime, target: HeadRef) -> bool:
    """Whether the state has the record and all pages of a generation."""
    store = runtime.store
    return store.generation(target.id) is not None and not missing(target.root, store.get_page)
