"""Events and effects of restoring and of recovery at a writer: the vocabulary of the ``PublishMachine`` besides
publishing."""

from __future__ import annotations

from instep.core.guards.held import NOTHING_HELD, HeldPaths
from instep.core.publish.vocabulary import PublishAnswer, PublishEffect, PublishEvent, ScanSummary
from instep.core.vocabulary import MachineWord, RequestDone, RequestFailed, Trouble
from instep.core.vocabulary import Recover as Recover
from instep.core.vocabulary import RecoverFailed as RecoverFailed
from instep.model.ids import HeadRef, NodeName


class TreeCounts(MachineWord):
    """The changes of a restore to the present tree: paths, and bytes that are laid anew."""

    added: int = 0
    changed: int = 0
    removed: int = 0
    changed_bytes: int = 0

    @property
    def is_nothing(self) -> bool:
        return not (self.added or self.changed or self.removed)


class RestorePlan(MachineWord):
    """``difference`` compares the next generation with the head, ``tree`` the next tree with the present one.
    ``missing`` names contents that no node has; nothing has moved."""

    difference: ScanSummary
    tree: TreeCounts
    missing: Trouble | None = None


# --- events -------------------------------------------------------------------------------------------------


class RestoreAsked(MachineWord):
    """``instep rollback`` and ``instep restore``: bring the tree, or ``paths`` of it, to what ``target`` says,
    whatever lies there now. The result is published when ``publishes`` says so, else only where publishing is
    automatic. ``source`` limits the partners that are asked for contents. Exactly one ``Answer`` repeats
    ``request``."""

    request: int
    target: HeadRef
    paths: tuple[bytes, ...] = ()
    author: str = ""
    message: str = ""
    accept_deletions: bool = False
    is_dry_run: bool = False
    publishes: bool = True
    source: NodeName | None = None


class RestorePlanned(MachineWord):
    req: int
    plan: RestorePlan


class PlanFailed(RequestFailed): ...


class Restored(MachineWord):
    """Answer to ``Restore``: the writer's tree holds the target, but for the paths ``left``."""

    req: int
    left: HeldPaths = NOTHING_HELD


class RestoreFailed(RequestFailed):
    """Nothing has moved, or, with ``is_open``, the journal of an unfinished switch lies in the control folder."""

    is_open: bool = False


class TreeRecovered(RequestDone):
    """Answer to ``Recover``: no journal is open; the tree is all old or all new."""


WriterAnswer = (
    PublishAnswer | RestorePlanned | PlanFailed | Restored | RestoreFailed | TreeRecovered | RecoverFailed
)
WriterEvent = PublishEvent | RestoreAsked | WriterAnswer


# --- effects ------------------------------------------------------------------------------------------------


class RestoreRequest(MachineWord):
    """The request to bring the tree, or ``paths`` of it, to ``target``; ``head`` is the head that the result is
    compared with, ``source`` the only partner to ask for contents where it is set. A base of effects."""

    req: int
    target: HeadRef
    head: HeadRef | None
    paths: tuple[bytes, ...] = ()
    source: NodeName | None = None


class PlanRestore(RestoreRequest):
    """Look at the tree and at everything that may hold contents, and change nothing. Answer: ``RestorePlanned`` or
    ``PlanFailed``."""


class Restore(RestoreRequest):
    """Do what the last plan says: contents by digest from tree, history, archive and partners, what lies there to the
    archive. Answer: ``Restored`` or ``RestoreFailed``."""


WriterEffect = PublishEffect | PlanRestore | Restore
