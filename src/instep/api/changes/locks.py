"""Locks of single paths, for people and for programs that edit on their behalf."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from instep.api.command import Command, Document, FilesetCommand, Message, Role, command
from instep.api.parts import GenerationDocument
from instep.errors import ContentionError, NotAllowedError, PeerError, RefusedError, UnavailableError
from instep.model.lock import LOCK_TTL_MAX_MS, OWNER_PART_MAX

Owner = Annotated[str, msgspec.Meta(min_length=1, max_length=OWNER_PART_MAX)]
"""A person. Left out: the user that calls; only root and the node's own user may name another one."""
Client = Annotated[str, msgspec.Meta(max_length=OWNER_PART_MAX)]
"""A program or session of that person: two of them do not share a lock."""
Ttl = Annotated[int, msgspec.Meta(ge=0, le=LOCK_TTL_MAX_MS)]
LOCKING = (NotAllowedError, RefusedError, ContentionError, UnavailableError, PeerError)
"""The errors of a command about one lock: *locked* and *outdated* are contention."""


class LockDocument(Document, frozen=True, kw_only=True):
    """A lock in force. ``until`` is a lower bound by this node's clock; ``token`` goes with a submit. A granted one has
    ``base``, the digest of the home's file (null: there is none), and the moment from which to refresh it."""

    fileset: str
    path: str
    path_b64: str | UnsetType = UNSET
    owner: str
    client: str = ""
    until: str | None
    token: str
    since: str | UnsetType | None = UNSET
    reason: str = ""
    base: str | UnsetType | None = UNSET
    renew_after: str | UnsetType | None = UNSET
    server_time: str | UnsetType | None = UNSET
    changed: bool | UnsetType = UNSET


@command("lock", Role.OPERATOR, *LOCKING, secrets=("token",))
class LockCommand(Command[LockDocument], frozen=True, kw_only=True):
    """Lock a path at its home, or give the lock that this owner has its whole time again (``changed`` is then false).

    Refused as ``locked`` with the owner and the time, as ``outdated`` where the home has another file than this node.
    ``steals`` takes it from its owner in the same act, for a ``reason``. With ``token`` only the lock of that token is
    refreshed, and none is granted: ``lock_gone`` says how it ended.
    """

    path: str
    path_b64: bytes | None = None
    fileset: str | None = None
    owner: Owner | None = None
    client: Client = ""
    ttl_ms: Ttl = 0
    reason: Message = ""
    steals: bool = False
    token: str | None = None


class UnlockDocument(Document, frozen=True, kw_only=True):
    """The end of a lock, and the outcome of the edit that was submitted with it: ``applied``, ``same``, or null where
    nothing was changed since the last save was submitted. ``reason``: why no generation has the edit yet."""

    fileset: str
    path: str
    path_b64: str | UnsetType = UNSET
    changed: bool
    outcome: str | None = None
    generation: GenerationDocument | None = None
    reason: str | UnsetType = UNSET


@command("unlock", Role.OPERATOR, *LOCKING, secrets=("token",))
class UnlockCommand(Command[UnlockDocument], frozen=True, kw_only=True):
    """Submit what the owner changed at the path, and end the lock in the same act.

    An edit that lost ends the command with ``outdated``, ``locked``, ``expired`` or ``refused``; its bytes are in the
    archive of this node. With ``token`` only the lock of that token is ended.
    """

    path: str
    path_b64: bytes | None = None
    fileset: str | None = None
    owner: Owner | None = None
    client: Client = ""
    token: str | None = None
    message: Message = ""


class LocksDocument(Document, frozen=True, kw_only=True):
    """All locks in force, by fileset and path; ``unreachable`` are filesets whose home could not be asked."""

    locks: tuple[LockDocument, ...]
    unreachable: tuple[str, ...] = ()


@command("locks", Role.VIEWER, NotAllowedError, RefusedError, UnavailableError, PeerError)
class LocksCommand(FilesetCommand[LocksDocument], frozen=True):
    """The locks of one fileset, or of all that this node has, asked at their homes."""


class BreakLockDocument(Document, frozen=True, kw_only=True):
    """The broken lock; where it was taken over, the caller's own."""

    fileset: str
    path: str
    path_b64: str | UnsetType = UNSET
    changed: bool
    lock: LockDocument | None = None


@command("break_lock", Role.OPERATOR, *LOCKING)
class BreakLockCommand(Command[BreakLockDocument], frozen=True, kw_only=True):
    """End another owner's lock for a reason, which its owner gets; ``steals`` locks the path for the caller too."""

    path: str
    reason: Message
    path_b64: bytes | None = None
    fileset: str | None = None
    owner: Owner | None = None
    client: Client = ""
    ttl_ms: Ttl = 0
    steals: bool = False
