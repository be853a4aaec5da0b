"""The outcome of each path of a change set: of its step in the journal, of a rule, of an obstacle, of a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from instep.core.changes.fitting import NOT_EMPTY, takes_directory
from instep.core.changes.home_facts import Submission
from instep.core.guards.losses import LossGuard, judge_change
from instep.core.vocabulary import Trouble
from instep.errors import ResourceError
from instep.model.change import OutcomeKind, PathChange, PathOutcome
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import parent_of, shown, sort_key
from instep.node.runtime.driver import wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.scanning.writer_scan import no_losses
from instep.store.port import NodeStore
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


class _MadeSince(msgspec.Struct, frozen=True, array_like=True):
    """The paths that sets made while the line had this head."""

    head: Digest
    paths: tuple[bytes, ...]


class SetLosses:
    """Judges the losses of a set as its publish will. ``guard`` is the present measure of the writer. Paths that
    sets made are recorded in the state until a newer generation has them: the next set is judged together with them."""

    def __init__(self, tree: FilesetTree, guard: Callable[[], LossGuard]) -> None:
        self._tree = tree
        self._guard = guard
        self._key = f"made/{tree.name}"

    def judged(self, head: HeadRef, root: Digest, changes: Sequence[PathChange]) -> Trouble | None:
        """Why no generation above ``head`` may have this ``root``, which the changes lead to; None when it may."""
        if all(change.new is not None for change in changes):
            return None
        ignored = no_losses(Rules(self._tree.definition(head)))
        return judge_change(head.root, root, self._tree.get_page, self._guard(), wall_ms(), ignored)

    def unpublished(self, head: HeadRef) -> tuple[bytes, ...]:
        """The paths that sets made since ``head``, the newest generation."""
        raw = self._tree.store.get(self._key)
        known = msgspec.msgpack.decode(raw, type=_MadeSince) if raw is not None else None
        return known.paths if known is not None and known.head == head.id else ()

    def waiting(self, head: HeadRef) -> int:
        """How many of them lie in the tree as no generation has them."""
        paths = self.unpublished(head)
        if not paths:
            return 0
        found = self._tree.comparison(head).some(head.root, (), wall_ms(), alone=sorted(paths))
        differing = len({each.path for each in found} & set(paths))
        if not differing:
            self.published()  # a person at the home took them back
        return differing

    def made(self, head: HeadRef | None, outcomes: Sequence[PathOutcome]) -> None:
        """A set changed the tree while the line had this head."""
        made = [each.path for each in outcomes if each.kind is OutcomeKind.APPLIED]
        if made and head is not None:
            known = _MadeSince(head.id, tuple(dict.fromkeys((*self.unpublished(head), *made))))
            self._tree.store.put(self._key, msgspec.msgpack.encode(known))

    def published(self) -> None:
        """A generation has all that sets made until now."""
        if self._tree.store.get(self._key) is not None:
            self._tree.store.delete(self._key)


def lost_too_much(
    refusal: Trouble, changes: Sequence[PathChange], home: NodeName
) -> dict[bytes, PathOutcome]:
    """All changes of a set whose removals the guard of losses stops."""
    reason = f"{refusal.reason}; nothing was changed: when that is meant, remove them on {home}"
    return {
        c.path: PathOutcome(c.path, OutcomeKind.REFUSED, code=refusal.code, reason=reason) for c in changes
    }


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What the state keeps of a change set that is being applied."""

    submission: Submission
    decided: tuple[PathOutcome, ...] = ()


def kept_raw(submission: Submission, decided: tuple[PathOutcome, ...]) -> bytes:
    return msgspec.msgpack.encode(Kept(submission, decided))


def kept_of(raw: bytes) -> Kept:
    return msgspec.msgpack.decode(raw, type=Kept)


def submission_of(store: NodeStore, change_id: Digest) -> Submission | None:
    """The change set that is being applied."""
    row = store.change(change_id)
    return kept_of(row.kept).submission if row is not None and row.kept is not None else None
