"""How the line of another home stands in the union here, when its manifest is here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from instep.core.vocabulary import Trouble
from instep.model.counts import counted, which
from instep.model.ids import FilesetName, NodeName
from instep.model.paths import shown
from instep.model.replication.union import Withheld
from instep.model.standing import Standing, StandingRecord
from instep.node.runtime.driver import wall_ms

NAMED_MAX = 5


def stand_in_union(
    name: FilesetName,
    origin: NodeName,
    union: StandingRecord,
    *,
    is_live: bool,
    is_changed: bool,
    withheld: Sequence[Withheld],
    in_the_way: Collection[tuple[NodeName, bytes]],
    differs: bool,
    is_refused: bool,
    trouble: Trouble | None,
) -> StandingRecord | None:
    """Why the tree is not as the line's newest head says; None where it is. ``is_live``: that head is in the tree;
    ``is_changed``: files of the line were changed here; ``in_the_way``: withheld entries, by origin and path, because
    unpublished files here have their names. ``trouble`` is why the head was left out of the last union."""
    now = wall_ms()
    taken = [each for each in withheld if (each.origin, each.wanted.path) in in_the_way]
    if is_live and taken:
        return _of_taken(name, taken)
    if is_live and withheld:
        return _of_withheld(name, withheld)
    if is_live:
        is_settled = not is_changed or union.standing is Standing.IN_STEP
        return None if is_settled else replace(union, since_ms=now)
    if differs:
        reason = f"the rules of {name} at {origin} are other than here: its newest generation waits"
        step = f"make them equal on both nodes: instep fileset show {name}"
        return StandingRecord(Standing.HELD, now, reason, "definition_differs", (step,))
    if is_refused:
        reason = "its newest generation was refused here; see instep events"
        code, reason = (trouble.code, trouble.reason) if trouble is not None else ("refused", reason)
        return StandingRecord(Standing.BLOCKED, now, reason, code, (f"instep retry {name}",))
    if trouble is not None:
        return StandingRecord(Standing.BEHIND, now, trouble.reason, trouble.code, ("instep check",))
    if union.standing is not Standing.IN_STEP:
        return replace(union, since_ms=now)
    return StandingRecord(Standing.BEHIND, now, "it is about to be brought into the tree", None)


def paths_named(held: Sequence[Withheld]) -> str:
    names = ", ".join(shown(each.wanted.path) for each in held[:NAMED_MAX])
    return names + (f" and {len(held) - NAMED_MAX} more" if len(held) > NAMED_MAX else "")


def _of_withheld(name: str, held: Sequence[Withheld]) -> StandingRecord:
    reason = (
        f"{counted(len(held), 'file')} cannot be had from any node: {paths_named(held)}; all else is live"
    )
    return StandingRecord(Standing.BEHIND, wall_ms(), reason, "withheld", (f"instep retry {name}",))


def _of_taken(name: str, held: Sequence[Withheld]) -> StandingRecord:
    reason = (
        f"{counted(len(held), 'path')} {which(len(held), 'waits', 'wait')} for a name that a file here has, which is not "
        f"published: {paths_named(held)}; all else is live"
    )
    steps = (f"publish it, then both are shown: instep publish {name}",)
    return StandingRecord(Standing.BEHIND, wall_ms(), reason, "name_taken_here", steps)
