"""Sync profiles: runs, their records, and the paths that people should look at."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from instep.api.command import Command, Document, Message, Role, command
from instep.api.parts import ExternalDocument, GenerationDocument
from instep.errors import (
    ContentionError,
    DamagedError,
    NotAllowedError,
    PeerError,
    RefusedError,
    ResourceError,
    UnavailableError,
)

CHANGES_SHOWN = 1_000
RUNNING = (
    NotAllowedError, RefusedError, ContentionError, UnavailableError, PeerError, DamagedError, ResourceError,
)  # fmt: skip
SideName = Annotated[str, msgspec.Meta(pattern="^(left|right)$")]
"""``left`` or ``right``."""


class SyncChangeDocument(Document, frozen=True, kw_only=True):
    """A path that the run changes on a side: ``added``, ``changed`` or ``removed`` there, or ``merged`` from both."""

    side: str
    path: str
    path_b64: str | UnsetType = UNSET
    change: str


class SyncListedDocument(Document, frozen=True, kw_only=True):
    """A path to look at: a collision and the copy that was made, a deletion that was taken back, an edit on a locked
    side. ``reason`` says why files that were to be merged were not."""

    id: str
    path: str
    path_b64: str | UnsetType = UNSET
    why: str
    loser: str | None
    copy: str | None
    renamed_to: str | None
    reviewed: bool = False
    reason: str = ""


class SyncUndoneDocument(Document, frozen=True, kw_only=True):
    """A path that a home did not change, and why."""

    side: str
    path: str
    path_b64: str | UnsetType = UNSET
    why: str
    code: str
    reason: str
    owner: str


class SyncLeftOutDocument(Document, frozen=True, kw_only=True):
    """A path that the home of this side ignores and that the other side has: both keep what they have of it."""

    side: str
    path: str
    path_b64: str | UnsetType = UNSET


class SyncSideDocument(Document, frozen=True, kw_only=True):
    """One side: its home, the generation after the run, and what the run plans and made there."""

    fileset: str
    node: str
    generation: GenerationDocument | None
    added: int
    changed: int
    removed: int
    bytes: int
    made: int
    merged: int = 0
    external: tuple[ExternalDocument, ...] = ()
    """What the home names as not carried: databases do not travel."""
    ignore: tuple[str, ...] = ()
    """The patterns that the home ignores."""


class SyncGateDocument(Document, frozen=True, kw_only=True):
    """A gate that does not hold on a server of the side that gets changes, with both values; or, ``is_away``, one that
    could not be asked there."""

    gate: str
    side: str
    node: str
    value: str | None
    wanted: str | None
    reason: str
    is_away: bool


class SyncErrorDocument(Document, frozen=True, kw_only=True):
    """Why a run failed. ``told_by``: the other node that said so; the commands of the hint are typed there."""

    code: str
    exit_code: int
    reason: str
    hint: str | None
    told_by: str | None = None


class SyncRunDocument(Document, frozen=True, kw_only=True):
    """A run: under way, or as it ended. ``phase`` is where it is or ended, ``changes`` are the first of
    ``changes_total``, as with ``left_out``; so are ``listed`` and ``undone`` where another node carries it out."""

    profile: str
    run: int
    initiator: str
    node: str
    phase: str
    percent: int
    dry_run: bool
    started_at: str | None
    ended_at: str | None
    rounds: int
    left: SyncSideDocument
    right: SyncSideDocument
    changes: tuple[SyncChangeDocument, ...]
    changes_total: int
    listed: tuple[SyncListedDocument, ...]
    undone: tuple[SyncUndoneDocument, ...]
    listed_total: int = 0
    undone_total: int = 0
    gates: tuple[SyncGateDocument, ...] = ()
    left_out: tuple[SyncLeftOutDocument, ...] = ()
    left_out_total: int = 0
    error: SyncErrorDocument | None = None


class SyncKindDocument(Document, frozen=True, kw_only=True):
    """The paths of one kind, and which way they go."""

    name: str
    paths: tuple[str, ...]
    direction: str
    locked: str | None
    lock_enforce: str = "next_run"
    merge: str | None
    validate: bool = False
    gates: tuple[str, ...] = ()


class SyncLockedEditDocument(Document, frozen=True, kw_only=True):
    """A path that was changed on a side where its kind is locked: the next run puts back what the other side has."""

    side: str
    path: str
    path_b64: str | UnsetType = UNSET
    kind: str
    since: str | None


class SyncScheduleDocument(Document, frozen=True, kw_only=True):
    """When runs start by themselves: the cron line and its zone, the next time, and the last one that was missed since
    a run started, with the reason."""

    cron: str
    zone: str
    next_at: str | None
    missed_at: str | None
    missed_because: str


class SyncProfileDocument(Document, frozen=True, kw_only=True):
    """A profile, whether its last run left both sides in sync, and that run."""

    name: str
    left: str
    right: str
    direction: str
    initiators: tuple[str, ...]
    carried_out_by: str
    kinds: tuple[SyncKindDocument, ...]
    in_sync: bool
    why_not: str | None
    last: SyncRunDocument | None
    schedule: SyncScheduleDocument | None = None
    locked_edits: tuple[SyncLockedEditDocument, ...] = ()
    """The first of ``locked_edits_total``; ``locked_unknown`` says why a side could not be asked."""
    locked_edits_total: int = 0
    locked_unknown: str | None = None
    gates: tuple[str, ...] = ()


class SyncProfilesDocument(Document, frozen=True):
    """The profiles that this node knows."""

    profiles: tuple[SyncProfileDocument, ...]


class SyncCollisionsDocument(Document, frozen=True):
    """The listed paths of a profile that are not reviewed yet, or all. ``is_last`` False: more follow after them."""

    profile: str
    listed: tuple[SyncListedDocument, ...]
    is_last: bool = True


class SyncCancelDocument(Document, frozen=True):
    """Whether a run was under way."""

    profile: str
    changed: bool


@command("sync_run", Role.OPERATOR, *RUNNING)
class SyncRunCommand(Command[SyncRunDocument], frozen=True, kw_only=True):
    """Bring both sides of a profile together; answers when the run has ended, which goes on without the caller."""

    profile: str
    dry_run: bool = False
    initial: SideName | None = None
    accept_rollback: bool = False
    accept_deletions: bool = False
    retry_refused: bool = False
    message: Message = ""
    author: str = ""


@command("sync_list", Role.VIEWER, UnavailableError, PeerError)
class SyncListCommand(Command[SyncProfilesDocument], frozen=True):
    """All profiles of this node."""


@command("sync_show", Role.VIEWER, RefusedError, UnavailableError, NotAllowedError, PeerError)
class SyncShowCommand(Command[SyncProfileDocument], frozen=True):
    """One profile with its run under way, else its last one."""

    profile: str


@command("sync_cancel", Role.OPERATOR, *RUNNING)
class SyncCancelCommand(Command[SyncCancelDocument], frozen=True):
    """End the run under way. Its changes stay, and the next run goes on from there."""

    profile: str


@command("sync_collisions", Role.OPERATOR, *RUNNING)
class SyncCollisionsCommand(Command[SyncCollisionsDocument], frozen=True, kw_only=True):
    """The paths to look at; with ``reviewed`` one of them is marked as looked at. ``after``: only those behind the one
    with this id."""

    profile: str
    reviewed: str | None = None
    all: bool = False
    after: str | None = None
