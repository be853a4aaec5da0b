"""What a finished, undone or unfinished switch leaves: paths that stay as they were, and an open journal."""

from __future__ import annotations

from collections.abc import Callable

from instep.core.follow import vocabulary as f
from instep.core.follow.state import named_paths
from instep.core.guards.held import (
    HELD_LISTED_MAX,
    IGNORED_INSIDE,
    MOVED_ON,
    NOTHING_HELD,
    HeldPaths,
    ScanProblem,
)
from instep.errors import ContentionError, InstepError
from instep.model.counts import counted, which
from instep.model.ids import LineId
from instep.model.paths import parent_of, shown
from instep.node.runtime.runtime import Runtime
from instep.tree.journal.journal import Journal, Op
from instep.tree.root.place import Place
from instep.tree.stage.ignored import ignored_in_the_way
from instep.tree.switch.step_work import Switched

NAMED_MAX = 20


def note_kept(runtime: Runtime, line: LineId, switched: Switched) -> None:
    """Removed directories that stay are an event."""
    if switched.kept:
        named = [shown(path) for path in switched.kept[:NAMED_MAX]]
        left = counted(len(switched.kept), "removed directory", "removed directories")
        text = f"{left} {which(len(switched.kept), 'stays', 'stay')}: something ignored or mounted lies in it"
        runtime.note("directories_kept", text, line, paths=named)


def look_again(switched: Switched, post: Callable[[f.TreeTouched], None]) -> None:
    """Look at the steps that a switch could not do as at local changes."""
    touched = (*switched.missed, *switched.held)
    if touched:
        post(f.TreeTouched(touched))


def reverted_by(effect: f.Revert, switched: Switched) -> f.Reverted:
    """What a revert did at each of its paths, by the steps of its journal; before that is removed."""
    asked, left = frozenset(effect.paths), frozenset((*switched.missed, *switched.held, *switched.kept))
    archived: set[bytes] = set()
    restored: set[bytes] = set()
    for step in switched.journal.steps():
        path: bytes = step.path
        while path and path not in asked:
            path = parent_of(path)
        if path not in asked or step.path in left:
            continue
        if step.op in (Op.CHANGE, Op.REMOVE):
            archived.add(path)
        if step.op is not Op.REMOVE:
            restored.add(path)
    became: dict[str, list[bytes]] = {
        "archived and restored": [],
        "restored": [],
        "archived": [],
        "left as they are": [],
    }
    for path in effect.paths:
        parts = [what for what, those in (("archived", archived), ("restored", restored)) if path in those]
        became[" and ".join(parts) or "left as they are"].append(path)
    words = (f"{what}: {named_paths(tuple(paths))[0]}" for what, paths in became.items() if paths)
    return f.Reverted(effect.req, effect.paths, "; ".join(words))


def note_undone(runtime: Runtime, line: LineId, cause: InstepError) -> None:
    """An interrupted switch was undone."""
    text = f"an interrupted switch was undone: {cause.reason}"
    runtime.note("undone", text, line, code=cause.error_code)


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
    if switched.held:
        raise ignored_in_the_way(place, switched.journal.header.target, switched.held)


def refuse_open_journal(journal: Journal | None, name: str) -> None:
    """``ContentionError`` ``journal_open`` while a switch of the writer's own tree is not finished."""
    if is_open(journal):
        raise ContentionError(
            f"a restore of {name} is not finished: its journal is open",
            hint=f"it is finished or undone by itself, at once with: instep retry {name}",
            code="journal_open",
        )


def is_open(journal: Journal | None) -> bool:
    return journal is not None and not journal.is_switched
