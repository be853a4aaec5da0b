"""Events, effects and facts of the ``UniteMachine`` beyond those of the ``FollowMachine`` that it stands on."""

from __future__ import annotations

from instep.core.follow.vocabulary import FollowEffect, FollowEvent, FollowFacts
from instep.core.union.attempts import UnionAttempts
from instep.core.vocabulary import MachineWord, RequestDone, RequestFailed
from instep.model.ids import HeadRef
from instep.model.replication.union import UnionPart


class UniteFacts(FollowFacts, frozen=True, array_like=True):
    """Facts of a tree whose generations are unions. ``attempts.live`` are the parts of ``live``; ``aim`` are those of
    ``head``, the newest union that was made."""

    attempts: UnionAttempts = UnionAttempts()
    aim: tuple[UnionPart, ...] = ()


# --- events -------------------------------------------------------------------------------------------------


class TreeKnown(MachineWord):
    """The union that the tree holds was found out: by the journal, by the tree's own record, or by the state, whichever
    is newest. ``union`` is None where it never held one. Where it is not certain yet, because manifests have to be
    fetched first, another of these events follows."""

    union: HeadRef | None
    parts: tuple[UnionPart, ...] = ()
    is_certain: bool = True


class PartsKnown(MachineWord):
    """The newest head of each line of another home whose pages are here and whose definition agrees."""

    parts: tuple[UnionPart, ...]


class OwnCommitted(MachineWord):
    """The own line has a new head, and the tree held it before: it holds ``union`` now, and nothing was switched."""

    union: HeadRef
    part: UnionPart


class UnionMade(MachineWord):
    """Answer to ``Unite``: the union of the parts is recorded, and its pages are stored."""

    req: int
    union: HeadRef


class UniteFailed(RequestFailed):
    """Answer to ``Unite``."""


class StageStale(RequestDone):
    """Answer to ``Switch``: the own line moved since the stage was made, and nothing was changed."""


UniteEvent = FollowEvent | TreeKnown | PartsKnown | OwnCommitted | UnionMade | UniteFailed | StageStale


# --- effects ------------------------------------------------------------------------------------------------


class Unite(MachineWord):
    """Make the union of ``parts`` and record it. Answer: ``UnionMade`` or ``UniteFailed``. No job: other work may go on
    meanwhile."""

    req: int
    parts: tuple[UnionPart, ...]


UniteEffect = FollowEffect | Unite
