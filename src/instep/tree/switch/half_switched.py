"""A switch that could be neither finished nor undone: which paths are of which generation, and the step that helps."""

from __future__ import annotations

import os

from instep.errors import InstepError, ResourceError
from instep.model.ids import HeadRef
from instep.model.paths import shown
from instep.tree.journal.journal import Journal, Op
from instep.tree.root.beneath import Root
from instep.tree.root.control_folder import on_opened
from instep.tree.root.marker import open_marked
from instep.tree.root.place import Place

NAMED_MAX = 20
SAID_MAX = 3


@on_opened
def half_switched(place: Place, journal: Journal, cause: InstepError, stuck: InstepError) -> ResourceError:
    """Neither finished (``cause``) nor undone (``stuck``)."""
    new, old = _sides(place, journal)
    target, previous = _named(journal.header.target), journal.header.previous
    before = _named(previous) if previous is not None else "the files from before"
    why = cause.reason if cause.reason == stuck.reason else f"{cause.reason}; and to undo it: {stuck.reason}"
    return ResourceError(
        f"the switch to {target} could be neither finished nor undone: {why}. {_said(new)} of {target}, "
        f"{_said(old)} of {before}",
        hint=stuck.hint or cause.hint,
        code="half_switched",
        new=new[:NAMED_MAX],
        new_count=len(new),
        old=old[:NAMED_MAX],
        old_count=len(old),
        cause=cause.error_code,
        path=stuck.facts.get("path") or cause.facts.get("path"),
    )


def _said(paths: list[str]) -> str:
    more = ", ..." if len(paths) > SAID_MAX else ""
    named = f" ({', '.join(paths[:SAID_MAX])}{more})" if paths else ""
    return f"{len(paths)} {'path is' if len(paths) == 1 else 'paths are'}{named}"


def _named(head: HeadRef) -> str:
    return f"generation {head.number}"


def _sides(place: Place, journal: Journal) -> tuple[list[str], list[str]]:
    """Paths whose step is done, and those whose step is not."""
    new: list[str] = []
    old: list[str] = []
    stage = os.fsencode(place.stage) + b"/" + journal.stage_name
    with open_marked(place.root, place.fileset) as root, Root(stage) as staged:
        for step in journal.steps():
            if step.op in (Op.NEW, Op.CHANGE):
                found = staged.stat_or_none(b"o/" + step.key)
                is_done = found is None or found.st_ino != step.ino
            elif step.op is Op.MOVE:
                there = root.stat_or_none(step.path)
                is_done = there is not None and there.st_ino == step.ino
            elif step.op is Op.REMOVE:
                is_done = staged.stat_or_none(b"o/" + step.key) is not None
            else:
                continue
            (new if is_done else old).append(shown(step.path))
    return new, old
