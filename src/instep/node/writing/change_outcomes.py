"""The outcome of each path of a change set: of its step in the journal, of a rule, of an obstacle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from instep.core.changes.fitting import NOT_EMPTY, takes_directory
from instep.errors import ResourceError
from instep.model.change import OutcomeKind, PathChange, PathOutcome
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import parent_of, shown, sort_key
from instep.tree.journal.journal import Journal, Op
from instep.tree.journal.plan import object_key
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import is_reserved

_UNITS = frozenset({Op.NEW, Op.CHANGE, Op.REMOVE})


def in_order(outcomes: Mapping[bytes, PathOutcome]) -> tuple[PathOutcome, ...]:
    return tuple(outcomes[path] for path in sorted(outcomes, key=sort_key))


def ruled_out(change: PathChange, rules: Rules) -> PathOutcome | None:
    path = change.path
    entry = change.new or change.base
    is_dir = entry is not None and entry.kind is Kind.DIR
    parent = parent_of(path)
    if is_reserved(path) or rules.ignored(path, is_dir) or (parent and rules.ignored(parent, True)):
        return PathOutcome(
            path, OutcomeKind.REFUSED, code="ignored", reason="the fileset's rules leave it out"
        )
    return None


def steps_taken(journal: Journal) -> tuple[dict[bytes, bool], frozenset[bytes]]:
    """Whether the step of each path was taken; the paths whose step stands for all below them."""
    taken: dict[bytes, bool] = {}
    units: set[bytes] = set()
    for step in journal.steps():
        if step.op in _UNITS or step.op is Op.META:
            taken[step.path] = object_key(step.path) not in journal.outdated
        if step.op in _UNITS:
            units.add(step.path)
    return taken, frozenset(units)


def is_taken(path: bytes, taken: Mapping[bytes, bool], units: frozenset[bytes]) -> bool:
    if path in taken:
        return taken[path]
    while path := parent_of(path):
        if path in units:
            return taken[path]
    return False


def not_taken(change: PathChange, live: Entry | None) -> PathOutcome:
    if takes_directory(change, live):
        return PathOutcome(
            change.path, OutcomeKind.REFUSED, code=NOT_EMPTY, reason="it holds paths that must stay"
        )
    return PathOutcome(change.path, OutcomeKind.OUTDATED, live)


def stuck_at(error: ResourceError, changes: Sequence[PathChange]) -> dict[bytes, PathOutcome]:
    """The changes that the error names, or all."""
    paths = error.facts.get("paths")
    named = {error.facts.get("path"), *(paths if isinstance(paths, list) else ())}
    hit = [c for c in changes if shown(c.path) in named or shown(parent_of(c.path)) in named] or changes
    return {
        c.path: PathOutcome(c.path, OutcomeKind.REFUSED, code=error.error_code, reason=error.reason)
        for c in hit
    }
