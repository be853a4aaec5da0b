"""Which changes of a set the live tree can take, before anything moves: a pure function of entries.

Implements the outcomes in ``docs/spec/changes.md`` as far as a look at the tree decides it. The switch compares
each displaced object once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from instep.model.change import OutcomeKind, PathChange, PathOutcome
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, parent_of

NOT_EMPTY = "not_empty"
NOT_A_DIRECTORY = "not_a_directory"
NOT_WHOLE = "not_whole"

Alike = Callable[[Entry | None, Entry | None], bool]
"""Whether two entries of a path, or its absence, say the same of the object there."""


@dataclass(frozen=True, slots=True)
class Fit:
    """``changes`` can be made; every other path has its outcome already."""

    changes: tuple[PathChange, ...]
    outcomes: Mapping[bytes, PathOutcome]


def takes_directory(change: PathChange, live: Entry | None) -> bool:
    """Whether the change takes a live directory away, with all that lies in it."""
    return (
        live is not None and live.kind is Kind.DIR and (change.new is None or change.new.kind is not Kind.DIR)
    )


def fit(
    changes: Sequence[PathChange],
    live: Mapping[bytes, Entry],
    below: Iterable[bytes],
    alike: Alike,
    refused: Mapping[bytes, PathOutcome],
    *,
    is_whole: bool,
) -> Fit:
    """Sort ``changes``, which are in path order. ``live`` has the entries at their paths and at the directories that
    hold them; ``below`` all live paths in directories that a change takes away; ``refused`` the outcomes of paths that
    a rule or the tree refuses. With ``is_whole`` one change that cannot be made leaves none."""
    outcomes: dict[bytes, PathOutcome] = {}
    open_: dict[bytes, PathChange] = {}
    for change in changes:
        path, entry = change.path, live.get(change.path)
        if path in refused:
            outcomes[path] = refused[path]
        elif alike(entry, change.new):
            outcomes[path] = PathOutcome(path, OutcomeKind.SAME)
        elif not alike(entry, change.base):
            outcomes[path] = PathOutcome(path, OutcomeKind.OUTDATED, entry)
        else:
            open_[path] = change
    _refuse_full_directories(open_, outcomes, live, below)
    _refuse_without_parent(open_, outcomes, live)
    if is_whole and any(not outcome.is_made for outcome in outcomes.values()):
        outcomes |= {path: PathOutcome(path, OutcomeKind.REFUSED, code=NOT_WHOLE) for path in open_}
        open_ = {}
    return Fit(tuple(open_.values()), outcomes)


def _refuse_full_directories(
    open_: dict[bytes, PathChange],
    outcomes: dict[bytes, PathOutcome],
    live: Mapping[bytes, Entry],
    below: Iterable[bytes],
) -> None:
    """A directory that keeps anything stays. Where a file should have taken its place, all in it stays with it."""
    holding: set[bytes] = set()
    for path in below:
        change = open_.get(path)
        if change is not None and change.new is None:
            continue
        while path := parent_of(path):
            if path in holding:
                break
            holding.add(path)
    kept = b""
    for path, change in tuple(open_.items()):
        if kept and is_below(path, kept):
            outcomes[path] = _refused(path, NOT_EMPTY, "the directory that holds it holds other paths, too")
            del open_[path]
        elif path in holding and takes_directory(change, live.get(path)):
            outcomes[path] = _refused(path, NOT_EMPTY, "it holds paths that the change does not know")
            del open_[path]
            kept = path if change.new is not None else kept


def _refuse_without_parent(
    open_: dict[bytes, PathChange], outcomes: dict[bytes, PathOutcome], live: Mapping[bytes, Entry]
) -> None:
    for path, change in tuple(open_.items()):
        parent = parent_of(path)
        if change.new is None or not parent:
            continue
        above = open_.get(parent)
        entry = above.new if above is not None else live.get(parent)
        if entry is None or entry.kind is not Kind.DIR:
            outcomes[path] = _refused(path, NOT_A_DIRECTORY, "its parent is no directory here")
            del open_[path]


def _refused(path: bytes, code: str, reason: str) -> PathOutcome:
    return PathOutcome(path, OutcomeKind.REFUSED, code=code, reason=reason)
