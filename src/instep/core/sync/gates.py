"""Gates of a sync run: facts that must agree between the side that gives and every server of the side that receives.

A run whose gates do not hold changes nothing. Only the servers that could be asked count: one that is away takes no
part, and gets what its home has when it comes back, by the gates of its fileset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from instep.core.follow.gates import parse_gate, refusal_of
from instep.core.sync.plan import SyncPlan
from instep.core.sync.table import GateRow, Side
from instep.model.ids import NodeName

GatesOf = Callable[[bytes], Sequence[str]]
"""The gates that a change of a path needs, as texts that were checked."""


class SideFacts(NamedTuple):
    """The facts of a side's servers; ``away`` says of the others why they are not known."""

    home: NodeName
    facts: Mapping[NodeName, Mapping[str, str]]
    away: Mapping[NodeName, str]


class GateDue(NamedTuple):
    """A gate that must hold on the servers of ``side``."""

    gate: str
    side: Side


def gates_due(plan: SyncPlan, gates_of: GatesOf) -> tuple[GateDue, ...]:
    """The gates of all paths that a plan changes, by the side where it changes them."""
    found: dict[GateDue, None] = {}
    for step in plan.steps:
        for side, is_changed in ((Side.LEFT, step.changes_left), (Side.RIGHT, step.changes_right)):
            if is_changed:
                found |= dict.fromkeys(GateDue(gate, side) for gate in gates_of(step.path))
    return tuple(found)


def gate_rows(due: Sequence[GateDue], sides: Mapping[Side, SideFacts]) -> tuple[GateRow, ...]:
    """What does not hold, or is not known."""
    rows = []
    for text, side in due:
        gate, receiver = parse_gate(text), sides[side]
        giver = sides[Side.RIGHT if side is Side.LEFT else Side.LEFT]
        for node, ours in sorted(receiver.facts.items()):
            refused = refusal_of(gate, ours, giver.facts[giver.home], node, giver.home)
            if refused is not None:
                _, reason, value, wanted = refused
                rows.append(GateRow(text, side, node, value, wanted, reason))
        rows += [
            GateRow(text, side, node, None, None, why, is_away=True)
            for node, why in sorted(receiver.away.items())
        ]
    return tuple(rows)
