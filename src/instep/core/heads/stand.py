"""How a line stands, as far as it takes no tree to say so."""

from __future__ import annotations

from dataclasses import dataclass

from instep.core.lines.accept import EpochBook
from instep.core.vocabulary import Trouble
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.standing import Standing

NAMED_MAX = 3
_BLOCKING_EXITS = (3, 4, 5)
_DAMAGED_EXIT = 10


@dataclass(frozen=True, slots=True)
class Stand:
    standing: Standing
    code: str | None = None
    reason: str | None = None
    next_steps: tuple[str, ...] = ()


def named(head: HeadRef | None) -> str:
    """A generation in words."""
    return "nothing" if head is None else f"generation {head.number}"


def out_of_reach(reason: str, steps: tuple[str, ...] = ()) -> Stand:
    return Stand(Standing.UNREACHABLE, "no_source", reason, (*steps, "instep check"))


def without_writer(line: LineId, writer: NodeName) -> tuple[str, ...]:
    """The way out where the writer is dead, beginning with what would be lost."""
    return (
        f"if {writer} is dead for good, look what would be lost: "
        f"instep promote {line.fileset} --home-is-dead --dry-run",
    )


def disputed(epochs: EpochBook, way_out: tuple[str, ...] = ()) -> Stand:
    """``way_out``: how an operator decides between the two."""
    names = " and ".join(f"{c.writer} (record {c.id.hex()[:16]})" for c in epochs.rivals)
    return Stand(
        Standing.BLOCKED,
        "epoch_conflict",
        f"epoch {epochs.disputed} was given to {names}",
        (*way_out, "take one that was stolen out with: instep pki revoke NAME"),
    )


def between_claimants(line: LineId) -> tuple[str, ...]:
    """The way out where two nodes write a line."""
    return (f"find out which of them shall write, and there: instep promote {line.fileset} --home-is-dead",)


def of_trouble(line: LineId, trouble: Trouble) -> Stand:
    if trouble.exit_code == _DAMAGED_EXIT:
        standing = Standing.DAMAGED
    elif trouble.exit_code in _BLOCKING_EXITS or trouble.code in (
        "no_space",
        "reused_number",
        "not_the_writer",
        "old_epoch",
    ):
        standing = Standing.BLOCKED
    else:
        standing = Standing.FAILING
    step = (
        trouble.hint
        or f"repair the cause; it is retried by itself, at once with: instep retry {line.fileset}"
    )
    return Stand(standing, trouble.code, trouble.reason, (step,))


def heard_of(
    line: LineId,
    head: HeadRef,
    is_contact_lost: bool,
    ahead: tuple[NodeName, HeadRef] | None,
    cut_off: tuple[NodeName, ...],
    way_out: tuple[str, ...] = (),
) -> Stand | None:
    """Why ``head``, which is served here, may not be the newest one; None when nothing says so. ``ahead`` is the hub
    that knows a newer head, and that head; ``cut_off`` are all hubs, where none of them has a source; ``way_out``
    the steps where the writer is dead."""
    if is_contact_lost:
        reason = f"serves generation {head.number}; since the contact was lost it may be behind"
        return out_of_reach(reason, way_out)
    if ahead is not None:
        hub, known = ahead
        return Stand(
            Standing.BEHIND,
            "source_behind",
            f"live is generation {head.number}; {hub}, from which it comes, knows generation {known.number} and does "
            "not serve it",
            (f"on {hub}: instep status {line.fileset}",),
        )
    if cut_off:
        hubs = " and ".join(cut_off[:NAMED_MAX])
        return out_of_reach(
            f"serves generation {head.number}; {hubs}, from which it comes, lost its own contact: it may be behind",
            (f"on {cut_off[0]}: instep status {line.fileset}", *way_out),
        )
    return None
