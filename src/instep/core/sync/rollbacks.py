"""Whether a side went back since the last run. Implements "Sides that went back" of ``docs/spec/sync.md``."""

from __future__ import annotations

from collections.abc import Iterable

from instep.model.ids import HeadRef
from instep.model.sync import Rollback


def went_back(rollbacks: Iterable[Rollback], last: HeadRef) -> Rollback | None:
    """The rollback by which a side has less than ``last``, the head that the last run left behind. ``rollbacks`` are
    those of its line, the newest last. One to a generation since ``last`` has what that generation had."""
    states: list[tuple[tuple[int, int], Rollback | None]] = [(last.position, None)]
    for each in rollbacks:
        if each.position <= last.position:
            continue
        before = [state for position, state in states if position <= each.target]
        states.append((each.position, before[-1] if before else each))
    return states[-1][1]
