"""The page of the state machines, from their tables of phases and their invariants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from instep.core.changes import home_contract as home
from instep.core.changes import offer_contract as offer
from instep.core.contract import REST, Invariant, PhaseRow, sentence_of
from instep.core.follow import contract as follow
from instep.core.keep import contract as keep
from instep.core.publish import contract as publish
from instep.core.rollout import contract as rollout

_INTRO = """
Each machine takes one event after another and returns effects; it is level triggered, so after each event it begins
what is missing most. The tables are the ones that the machines themselves check: an answer that does not belong to the
phase, or an invariant that does not hold after a step, stops the line (`broken_invariant`). The last events are then in
`records/` of the node directory, for `instep debug replay FILE`; `instep debug record FILESET` writes them at any time.
The simulator's runs may take no way that is not drawn here.

A record is text, a line a value, in JSON: `format` (`instep-record-1`), name and version; the machine before the first
event; then for each event its two clocks, the event and the effects. It holds at most 500 events, and replays with the
version of instep that wrote it. It has paths, names and reasons of the fileset in it, and no keys.
"""


def machines_page(note: str) -> str:
    parts = [
        "# State machines\n",
        note,
        _INTRO,
        *_machine("Follow: one line at a partner", follow.PHASES.values(), follow.INVARIANTS),
        *_machine("Keep: one line of another home, without a tree", keep.PHASES.values(), keep.INVARIANTS),
        *_machine("Publish: one line at its writer", publish.PHASES.values(), publish.INVARIANTS),
        *_machine("Rollout: a generation through the partners", rollout.PHASES.values(), rollout.INVARIANTS),
        *_machine("Home: a change set from elsewhere", home.PHASES.values(), home.INVARIANTS),
        *_machine("Offer: an edit made at a node that follows", offer.PHASES.values(), offer.INVARIANTS),
    ]
    return "\n".join(parts) + "\n"


def _machine(title: str, rows: Iterable[PhaseRow], invariants: Iterable[Invariant[Any]]) -> list[str]:
    rows = tuple(rows)
    return [
        f"\n## {title}\n",
        "```mermaid",
        "stateDiagram-v2",
        *(f"    {row.phase} --> {after}" for row in rows for after in row.next if after != REST),
        "```\n",
        "| phase | effects | events that end it | may be followed by |",
        "|---|---|---|---|",
        *(
            f"| {row.phase} | {_names(row.effects)} | {_names(row.events)} | {', '.join(row.next)} |"
            for row in rows
        ),
        "\nAfter every step:\n",
        *(f"- `{invariant.__name__}`: {sentence_of(invariant)}" for invariant in invariants),
    ]


def _names(types: tuple[type, ...]) -> str:
    return ", ".join(f"`{one.__name__}`" for one in types) or "-"
