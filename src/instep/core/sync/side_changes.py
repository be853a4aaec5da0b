"""What one side gets by a plan: its changes, in change sets, and where the other side has their contents."""

from __future__ import annotations

from collections.abc import Iterator

from instep.core.sync.plan import SyncPlan
from instep.core.sync.table import Side
from instep.errors import RefusedError
from instep.model.change import CHANGE_SET_MAX_BYTES, CHANGES_MAX, PathChange
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, shown

_BYTES_OF_CHANGE = 400
"""A change set with so many bytes for each change is sure to fit."""


def changes_of(plan: SyncPlan, side: Side) -> Iterator[PathChange]:
    for step in plan.steps:
        if side is Side.RIGHT and step.changes_right:
            yield PathChange(step.path, step.right, step.to_right)
        elif side is Side.LEFT and step.changes_left:
            yield PathChange(step.path, step.left, step.to_left)


def sets_of(changes: Iterator[PathChange]) -> Iterator[tuple[PathChange, ...]]:
    """As few sets as hold them; a removed directory and what lay in it stay in one."""
    most = min(CHANGES_MAX, CHANGE_SET_MAX_BYTES // _BYTES_OF_CHANGE)
    group: list[PathChange] = []
    batch: list[PathChange] = []
    top: PathChange | None = None
    for change in changes:
        if top is not None and not is_below(change.path, top.path):
            top = None
        if top is None:
            if batch and len(batch) + len(group) > most:
                yield tuple(batch)
                batch = []
            batch += group
            group = []
            is_kept = change.new is not None and change.new.kind is Kind.DIR
            top = change if change.base is not None and change.base.kind is Kind.DIR and not is_kept else None
        group.append(change)
        if len(group) > CHANGES_MAX:
            raise RefusedError(
                f"{shown(group[0].path)} alone has more than {CHANGES_MAX} changes",
                hint="remove the directory on both sides, or in parts",
                code="too_many_changes",
                path=shown(group[0].path),
            )
    if batch and len(batch) + len(group) > most:
        yield tuple(batch)
        batch = []
    if batch or group:
        yield (*batch, *group)


def sources_of(plan: SyncPlan, side: Side) -> dict[Digest, Entry]:
    """Where the other side has each content."""
    entries = (step.left if side is Side.RIGHT else step.right for step in plan.steps)
    return {entry.digest: entry for entry in entries if entry is not None and entry.kind is not Kind.DIR}
