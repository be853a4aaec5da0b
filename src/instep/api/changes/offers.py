"""Edits that were made here, in a fileset that another node writes: how far each is, and removals that wait."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from instep.api.command import Document, FilesetCommand, Role, command
from instep.errors import RefusedError, UnavailableError


class OfferedEditDocument(Document, frozen=True, kw_only=True):
    """One path. ``state``: ``editing`` under a lock, ``waiting``, ``offered``, ``accepted`` and not yet back,
    ``losing`` for the reason in ``outcome``, or ``blocked``, a removal among too many."""

    path: str
    path_b64: str | UnsetType = UNSET
    state: str
    change: str
    outcome: str | None = None
    reason: str = ""


class OfferedEditsDocument(Document, frozen=True, kw_only=True):
    """The edits that are on their way, in path order, and why they do not go on."""

    fileset: str
    edits: tuple[OfferedEditDocument, ...]
    total: int
    reason: str | None = None
    next: tuple[str, ...] = ()


@command("offers", Role.VIEWER, UnavailableError)
class OffersCommand(FilesetCommand[OfferedEditsDocument], frozen=True):
    """List the edits of this node that are offered to the writer, or are edited under a lock."""


class JudgedDocument(Document, frozen=True, kw_only=True):
    """How many removals were waiting."""

    fileset: str
    changed: bool
    removals: int


@command("judge_removals", Role.OPERATOR, RefusedError, UnavailableError)
class JudgeRemovalsCommand(FilesetCommand[JudgedDocument], frozen=True, kw_only=True):
    """Offer the removals that were too many to be offered unasked, or, without ``accept``, take them back."""

    accept: bool
