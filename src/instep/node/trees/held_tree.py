"""The followed tree's own word about what it holds: evidence against a state that is older than the tree (P4)."""

from __future__ import annotations

from instep.model.ids import HeadRef, LineId
from instep.model.manifest.check import missing
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.placing import Taken
from instep.tree.root.tree_generation import held_by_tree, note_held

__all__ = ["held_now", "hold", "is_known_whole"]


def held_now(tree: FilesetTree, saved: HeadRef | None) -> HeadRef | None:
    """The generation that the tree says it holds. Where that is nothing, or less than ``saved``, what the state says is
    written beside the tree."""
    taken = tree.taken()
    if taken.marker is None or tree.fileset.observe:
        return None
    found = held_by_tree(taken.place, tree.line, taken.marker.random)
    if saved is not None and (found is None or found.position < saved.position):
        hold(tree.line, taken, saved, is_synced=True)
    return found


def hold(line: LineId, taken: Taken, tree: HeadRef, *, is_synced: bool) -> None:
    """Write beside the tree that it holds ``tree``; without ``is_synced`` the caller syncs the control folder."""
    if taken.marker is not None:
        note_held(taken.place, line, taken.marker.random, tree, is_synced=is_synced)


def is_known_whole(runtime: Runtime, target: HeadRef) -> bool:
    """Whether the state has the record and all pages of a generation."""
    store = runtime.store
    return store.generation(target.id) is not None and not missing(target.root, store.get_page)
