"""Whether a node may publish in a line by the records it knows, and its duty after a promotion. Pure functions."""

from __future__ import annotations

from instep.core.lines.accept import EpochClaim
from instep.core.publish.vocabulary import PublishFacts
from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.model.ids import LineId, NodeName


def why_not_writer(line: LineId, facts: PublishFacts, node: NodeName) -> Trouble | None:
    """Why ``node`` may not publish: the epoch was given to two, or to another; None when it may."""
    epochs = facts.epochs
    if epochs.disputed is not None:
        names = " and ".join(f"{c.writer} (record {c.id.hex()[:16]})" for c in epochs.rivals)
        return Trouble(
            "epoch_conflict",
            f"epoch {epochs.disputed} was given to {names}",
            Retry.NEVER,
            4,
            f"find out which of them shall write, and there: instep promote {line.fileset} --home-is-dead",
        )
    current = epochs.current
    if current is None:
        return None
    if current.writer == node:
        return _why_not_here(line, facts, current)
    apart = _apart_from(facts, current)
    hint = (
        f"follow it: instep fileset accept {line.fileset} PATH --from {current.writer} --replace "
        "(what is here and not there goes to the archive)"
    )
    return Trouble(
        "not_the_writer",
        f"{current.writer} writes epoch {current.epoch} of this line{apart}",
        Retry.NEVER,
        4,
        hint,
    )


def _why_not_here(line: LineId, facts: PublishFacts, current: EpochClaim) -> Trouble | None:
    """A writer stands on the generation that its epoch builds on, or on one of its own of that epoch. One whose state
    was put back to an older copy would publish over what others wrote in between."""
    head = facts.head
    is_above = head is not None and (head.epoch >= current.epoch or head.id == current.base)
    if is_above or not current.base:
        return None
    here = f"generation {head.number} of epoch {head.epoch}" if head is not None else "nothing"
    return Trouble(
        "base_missing",
        f"epoch {current.epoch} builds on generation {current.base.hex()[:16]}, and the state here knows {here}: it "
        "is older than that",
        Retry.LATER,
        4,
        "a partner that has it sends it when it connects; if none is left that has it: "
        f"instep promote {line.fileset} --home-is-dead",
    )


def _apart_from(facts: PublishFacts, current: EpochClaim) -> str:
    """In words, that the new epoch does not build on this node's newest generation."""
    head = facts.head
    if head is None or head.epoch >= current.epoch or head.id == current.base:
        return ""
    base = f"generation {current.base.hex()[:16]}" if current.base else "no generation"
    return (
        f"; it builds on {base}, the newest of this node is generation {head.number} of epoch {head.epoch} "
        f"({head.id.hex()[:16]}), which is not that one"
    )


def owes_a_generation(facts: PublishFacts, node: NodeName) -> bool:
    """Whether a promoted writer has still to publish in its epoch, changed or not: a partner that is behind may not
    be able to verify the base, once the home that signed it is revoked."""
    current, head = facts.epochs.current, facts.head
    return (
        current is not None
        and current.is_promoted
        and current.writer == node
        and facts.epochs.disputed is None
        and head is not None
        and head.epoch < current.epoch
    )
