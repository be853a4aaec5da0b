"""Collisions: paths that two homes made, or both sides of a sync profile changed, which people should look at."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from instep.api.changes.sync import RUNNING
from instep.api.command import Command, Document, Role, command


class CollisionDocument(Document, frozen=True, kw_only=True):
    """One collision, of a ``fileset`` of many homes or of a sync ``profile``; the other is None. ``copy`` is the name
    that the ``loser`` has now. Of a fileset winner and loser are homes, and ``entries`` counts the paths that got
    another name. ``phase``: ``standing``, ``taken_over`` by the loser's home into its line, or ``over``, for one of the
    two is gone; None of a profile."""

    id: str
    fileset: str | None
    profile: str | None
    path: str
    path_b64: str | UnsetType = UNSET
    why: str
    winner: str | None
    loser: str | None
    copy: str | None
    copy_b64: str | UnsetType = UNSET
    renamed_to: str | None = None
    entries: int = 1
    phase: str | None = None
    since: str | None = None
    reviewed: bool = False
    reviewed_by: str | None = None
    reviewed_at: str | None = None
    reason: str = ""


class NotAskedDocument(Document, frozen=True):
    """A sync profile whose home cannot be asked, and why."""

    profile: str
    reason: str


class CollisionsDocument(Document, frozen=True, kw_only=True):
    """The collisions that no person reviewed, or all. ``left_out`` counts those for which the list had no room."""

    collisions: tuple[CollisionDocument, ...]
    left_out: int = 0
    not_asked: tuple[NotAskedDocument, ...] = ()


class CollisionSideDocument(Document, frozen=True, kw_only=True):
    """What this node's tree has at one of the two names: ``kind`` is ``file``, ``link`` or ``directory``, or None where
    nothing is there. ``file`` is where it lies on this machine."""

    path: str
    path_b64: str | UnsetType = UNSET
    file: str
    homes: tuple[str, ...]
    kind: str | None
    size: int | None
    modified_at: str | None
    digest: str | None


class CollisionShownDocument(CollisionDocument, frozen=True, kw_only=True):
    """One collision with both of its sides, and what to do about it."""

    sides: tuple[CollisionSideDocument, ...] = ()
    next: tuple[str, ...] = ()


class ReviewedDocument(Document, frozen=True):
    """Whether it was not reviewed before."""

    id: str
    changed: bool


@command("collisions_list", Role.VIEWER, *RUNNING)
class CollisionsListCommand(Command[CollisionsDocument], frozen=True, kw_only=True):
    """The collisions of one fileset, or of all filesets of many homes and of the sync profiles of this node."""

    fileset: str | None = None
    all: bool = False


@command("collisions_show", Role.VIEWER, *RUNNING)
class CollisionsShowCommand(Command[CollisionShownDocument], frozen=True, kw_only=True):
    """Show one collision with the files at both names here. ``fileset`` says of which one, where two have this id."""

    id: str
    fileset: str | None = None


@command("collisions_reviewed", Role.OPERATOR, *RUNNING)
class CollisionsReviewedCommand(Command[ReviewedDocument], frozen=True, kw_only=True):
    """Mark one as looked at, in the list of this node; of a sync profile, in that of the home that carries it out."""

    id: str
    fileset: str | None = None
