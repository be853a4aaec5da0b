"""The findings of a finished switch about the tree: directories that stay, paths to look at again."""

from __future__ import annotations

from collections.abc import Callable

from instep.core.follow import vocabulary as f
from instep.errors import InstepError
from instep.model.ids import LineId
from instep.model.paths import shown
from instep.node.runtime.runtime import Runtime
from instep.tree.switch.step_work import Switched

NAMED_MAX = 20


def note_kept(runtime: Runtime, line: LineId, switched: Switched) -> None:
    """Removed directories that stay are an event."""
    if switched.kept:
        named = [shown(path) for path in switched.kept[:NAMED_MAX]]
        text = f"{len(switched.kept)} removed directories stay: something ignored or mounted lies in them"
        runtime.note("directories_kept", text, line, paths=named)


def look_again(switched: Switched, post: Callable[[f.TreeTouched], None]) -> None:
    """Look at the steps that a switch could not do as at local changes."""
    touched = (*switched.missed, *switched.held)
    if touched:
        post(f.TreeTouched(touched))


def note_undone(runtime: Runtime, line: LineId, cause: InstepError) -> None:
    """An interrupted switch was undone."""
    text = f"an interrupted switch was undone: {cause.reason}"
    runtime.note("undone", text, line, code=cause.error_code)
