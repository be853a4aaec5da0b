"""The newest generation that a tree is known to have held, when the saved state is older: none below it is applied
(P4).

The evidence is the tree's own: a small record beside it, or the journal of its last switch. A node whose state came
back from a backup, or was lost while only a late hub can be reached, must not take its tree back to the generation of
that state.
"""

from __future__ import annotations

from instep.model.ids import HeadRef, LineId, NodeName

STATE_OLDER = "state_older_than_tree"


def is_above(floor: HeadRef, tree: HeadRef | None) -> bool:
    """Whether the tree's own record is newer than the saved one."""
    return tree is None or floor.position > tree.position


def is_below(head: HeadRef, floor: HeadRef | None) -> bool:
    """Whether ``head`` would take the tree back, or to a twin of its generation."""
    if floor is None or head.position > floor.position:
        return False
    return head.id != floor.id


def why_held(
    line: LineId, writer: NodeName, floor: HeadRef, head: HeadRef | None, *, is_source_up: bool
) -> tuple[str, tuple[str, ...]]:
    """Reason and next steps of a line that waits for its own past."""
    known = "nothing" if head is None else f"generation {head.number}"
    reason = (
        f"the tree holds generation {floor.number}, and the state of this node is older: it knows {known}; "
        f"nothing is changed before {writer} offers generation {floor.number} or a newer one"
    )
    if not is_source_up:
        return reason, (f"start {writer}, or mend the link to it: instep check", "instep partner list")
    step = (
        f"if generation {floor.number} is lost for good, publish at {writer} until its number is above "
        f"{floor.number}: instep publish {line.fileset}"
    )
    return reason, (f"at {writer}: instep status {line.fileset}", step)
