"""How the line of another home stands in the union here, when its manifest is here."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from instep.core.union.divide import Waiting
from instep.core.vocabulary import Trouble
from instep.errors import ContentionError
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
    edits: tuple[Sequence[bytes], Sequence[bytes]],
    offered: Trouble | None,
    unseen: Trouble | None,
    withheld: Sequence[Withheld],
    in_the_way: Collection[tuple[NodeName, bytes]],
    packages: Collection[tuple[NodeName, bytes]],
    asked: Sequence[NodeName],
    silent: Sequence[NodeName],
    differs: bool,
    is_refused: bool,
    trouble: Trouble | None,
) -> StandingRecord | None:
    """Why the tree is not as the line's newest head says; None where it is. ``is_live``: that head is in the tree;
    ``edits``: paths of the line that were changed here, and new paths that wait for the answer to that; ``offered``:
    why its home does not take it; ``unseen``: why the tree could not be looked at; ``in_the_way``: withheld entries, by
    origin and path, because unpublished files here have their names; ``packages`` likewise, because they name other
    withheld ones; ``asked`` are the nodes that send the line, ``silent`` other homes that are connected and do not.
    ``trouble`` is why the head was left out of the last union."""
    now, (changed, waiting) = wall_ms(), edits
    if unseen is not None:
        return _of_unseen(unseen)
    taken = [each for each in withheld if (each.origin, each.wanted.path) in in_the_way]
    if is_live and taken:
        return _of_taken(name, taken)
    if is_live and withheld:
        hidden = [each for each in withheld if (each.origin, each.wanted.path) in packages]
        missing = [each for each in withheld if each not in hidden]
        return _of_withheld(name, origin, missing, hidden, asked, silent)
    if is_live:
        if not changed:
            return None
        return _of_changed(name, origin, changed, waiting, offered, union)
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


def _of_unseen(unseen: Trouble) -> StandingRecord:
    """No line is in step in a tree that cannot be seen."""
    steps = (unseen.hint,) if unseen.hint else ()
    return StandingRecord(Standing.BLOCKED, wall_ms(), unseen.reason, unseen.code, steps)


def _of_changed(
    name: str,
    origin: NodeName,
    changed: Sequence[bytes],
    waiting: Sequence[bytes],
    offered: Trouble | None,
    union: StandingRecord,
) -> StandingRecord:
    """Whatever else the union stands for, these are not as the line says."""
    were = which(len(changed), "was", "were")
    what = f"{counted(len(changed), 'path')} of {origin} {were} changed or removed here: {names_of(changed)}"
    if waiting:
        waits = which(len(waiting), "waits", "wait")
        what += f"; {counted(len(waiting), 'new path')} {waits} for the answer: {names_of(waiting)}"
    if offered is not None:
        steps = (offered.hint,) if offered.hint else ()
        return StandingRecord(Standing.DRIFTED, wall_ms(), f"{what}; {offered.reason}", offered.code, steps)
    if union.standing not in (Standing.IN_STEP, Standing.DRIFTED):
        return replace(union, since_ms=wall_ms())
    reason = f"{what}; that is offered to {origin}, or put back"
    return StandingRecord(Standing.DRIFTED, wall_ms(), reason, "changed_here", (f"instep diff {name}",))


def copy_words(kept: Waiting) -> str:
    """A renamed file of another home that became this node's own."""
    return (
        f"{shown(kept.path)} was renamed here from {shown(kept.behind)}, which its home keeps: it is a file of this "
        "node's own now"
    )


def names_of(paths: Sequence[bytes]) -> str:
    more = f" and {len(paths) - NAMED_MAX} more" if len(paths) > NAMED_MAX else ""
    return ", ".join(map(shown, paths[:NAMED_MAX])) + more


def paths_named(held: Sequence[Withheld]) -> str:
    return names_of([each.wanted.path for each in held])


def _of_withheld(
    name: str,
    origin: NodeName,
    held: Sequence[Withheld],
    waiting: Sequence[Withheld],
    asked: Sequence[NodeName],
    silent: Sequence[NodeName],
) -> StandingRecord:
    who = f"of {' and '.join(asked)}, which {which(len(asked), 'was', 'were')} asked" if asked else "now"
    said = [f"{counted(len(held), 'file')} cannot be had {who}: {paths_named(held)}"] if held else []
    if waiting:
        waits = which(len(waiting), "waits", "wait")
        said.append(
            f"{counted(len(waiting), 'package')} {waits} for a file that it names: {paths_named(waiting)}"
        )
    reason = f"{'; '.join(said)}; all else is live"
    steps: tuple[str, ...] = (f"instep retry {name}",)
    if silent:
        may = which(len(silent), "has", "have")
        reason += (
            f". {' and '.join(silent)} {may} the line of {origin} as well and may not pass it on to this node"
        )
        steps += (f"on {silent[0]}, where it may: instep partner set NAME --hub (NAME: this node)",)
    return StandingRecord(Standing.BEHIND, wall_ms(), reason, "withheld", steps)


def _of_taken(name: str, held: Sequence[Withheld]) -> StandingRecord:
    reason = (
        f"{counted(len(held), 'path')} {which(len(held), 'waits', 'wait')} for a name that a file here has, which is "
        f"not published: {paths_named(held)}; all else is live"
    )
    steps = (f"publish it, then both are shown: instep publish {name}",)
    return StandingRecord(Standing.BEHIND, wall_ms(), reason, "name_taken_here", steps)


def taken_here(name: FilesetName, held: Sequence[Withheld]) -> ContentionError:
    return ContentionError(
        f"{counted(len(held), 'path')} of other homes wait for a name that a file here has, which is not published: "
        f"{paths_named(held)}",
        hint=f"instep publish {name}",
        code="nametaken_here",
    )
