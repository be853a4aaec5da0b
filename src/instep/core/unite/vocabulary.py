"""Events, effects and facts of the ``UniteMachine`` beyond those of the ``FollowMachine`` that it stands on."""

from __future__ import annotations

from instep.core.follow.vocabulary import FollowEffect, FollowEvent, FollowFacts
from instep.core.union.attempts import UnionAttempts
from instep.core.vocabulary import MachineWord, RequestDone, RequestFailed, Trouble
from instep.model.ids import HeadRef, NodeName
from instep.model.replication.union import UnionPart, Withheld


class UniteFacts(FollowFacts, frozen=True, array_like=True):
    """Facts of a tree whose generations are unions. ``attempts.live`` are the parts of ``live``; ``aim`` are those of
    ``head``, the newest union that was made."""

    attempts: UnionAttempts = UnionAttempts()
    aim: tuple[UnionPart, ...] = ()
    withheld: tuple[Withheld, ...] = ()
    """Of ``live``: entries that could not be had, and what the union says instead."""
    allowed: tuple[UnionPart, ...] = ()
    """Heads that may take names of other lines: they were refused for that, and an operator asked again."""


# --- events -------------------------------------------------------------------------------------------------


class TreeKnown(MachineWord):
    """The union that the tree holds was found out: by the journal, by the tree's own record, or by the state, whichever
    is newest. ``union`` is None where it never held one. Where it is not certain yet, because manifests have to be
    fetched first, another of these events follows. ``is_whole`` False: the tree has names that its parts would not
    give, and a switch has to follow. ``withheld`` are the entries that the tree does not have."""

    union: HeadRef | None
    parts: tuple[UnionPart, ...] = ()
    is_certain: bool = True
    is_whole: bool = True
    withheld: tuple[Withheld, ...] = ()


class PartsKnown(MachineWord):
    """The newest head of each line of another home whose pages are here and whose definition agrees. The lines of
    ``forgotten`` homes leave the tree."""

    parts: tuple[UnionPart, ...]
    forgotten: tuple[NodeName, ...] = ()


class OwnCommitted(MachineWord):
    """The own line has a new head, and the tree held it before: it holds ``union`` now, and nothing was switched.
    ``is_whole`` as in ``TreeKnown``."""

    union: HeadRef
    part: UnionPart
    is_whole: bool = True


class PartRefused(MachineWord):
    """Answer to ``Unite``: a precaution stands against this head, and no union was made."""

    req: int
    part: UnionPart
    trouble: Trouble


class ContentsMissing(MachineWord):
    """Answer to ``StageContents``: of these lines nothing can be had now, and single entries of others cannot be had
    though their sources answer, or have no place while an own file there is not published. All else is staged."""

    req: int
    absent: tuple[NodeName, ...]
    withheld: tuple[Withheld, ...]
    trouble: Trouble


class WithheldDue(MachineWord):
    """Withheld entries may be had by now: an own file that had the name of one is published."""


class LineReachable(MachineWord):
    """A source of the line is connected."""

    origin: NodeName


class UnionMade(MachineWord):
    """Answer to ``Unite``: the union of the parts is recorded, and its pages are stored."""

    req: int
    union: HeadRef


class UniteFailed(RequestFailed):
    """Answer to ``Unite``."""


class StageStale(RequestDone):
    """Answer to ``Switch``: the own line moved since the stage was made, and nothing was changed."""


UniteEvent = (
    FollowEvent
    | TreeKnown
    | PartsKnown
    | OwnCommitted
    | UnionMade
    | UniteFailed
    | PartRefused
    | ContentsMissing
    | LineReachable
    | WithheldDue
    | StageStale
)


# --- effects ------------------------------------------------------------------------------------------------


class Unite(MachineWord):
    """Make the union of ``parts`` and record it. Answer: ``UnionMade``, ``PartRefused`` or ``UniteFailed``.
    No job: other work may go on meanwhile."""

    req: int
    parts: tuple[UnionPart, ...]
    withheld: tuple[Withheld, ...] = ()
    allowed: tuple[UnionPart, ...] = ()


UniteEffect = FollowEffect | Unite
