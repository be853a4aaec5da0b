"""Locks of single paths as they travel: their owners, the answers of a home, the reasons for which one ends.

Implements the section "Locks" of ``docs/spec/changes.md``.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from instep.model.change import Fence
from instep.model.ids import Count, HeadRef, NodeName
from instep.model.manifest.entry import Entry

LOCK_TTL_MIN_MS = 1_000
LOCK_TTL_MAX_MS = 24 * 3_600_000
LOCK_TTL_DEFAULT_MS = 600_000
OWNER_PART_MAX = 255
REASON_MAX = 1_000


class LockOwner(msgspec.Struct, frozen=True, array_like=True):
    """A person at a node, in one program or session there. Two programs of one person do not share a lock."""

    node: NodeName
    user: Annotated[str, Meta(min_length=1, max_length=OWNER_PART_MAX)]
    client: Annotated[str, Meta(max_length=OWNER_PART_MAX)] = ""

    def __str__(self) -> str:
        return f"{self.user}@{self.node}" + (f" ({self.client})" if self.client else "")


class LockEnd(enum.Enum):
    """Why a lock is no longer in force."""

    RELEASED = "released"
    LAPSED = "lapsed"
    """Its time ended and it was not refreshed."""
    BROKEN = "broken"
    STOLEN = "stolen"
    """Broken and given to another owner in one act."""
    HOME_EDIT = "home_edit"
    """The file was changed at the home itself."""
    WRITER_CHANGED = "writer_changed"
    UNKNOWN = "unknown"
    """The home has no memory of it: it was restored, or the lock ended long ago."""


class LockView(msgspec.Struct, frozen=True, array_like=True):
    """One lock in force, as a list shows it. ``left_ms`` counts from the moment of sending; ``since_ms`` is the
    home's wall clock."""

    path: bytes
    owner: LockOwner
    fence: Fence
    left_ms: Count
    ttl_ms: Count
    since_ms: Count
    reason: str = ""


class LockGranted(msgspec.Struct, frozen=True, array_like=True, tag="granted"):
    """The lock is this owner's, for ``left_ms`` at least; also the answer to a refresh. ``base`` is the live entry
    that it stands for; None: the path is absent."""

    fence: Fence
    left_ms: Count
    renew_after_ms: Count
    base: Entry | None
    is_refresh: bool = False


class LockDenied(msgspec.Struct, frozen=True, array_like=True, tag="locked"):
    """Another owner holds it, for ``left_ms`` at most unless it is refreshed."""

    owner: LockOwner
    left_ms: Count
    since_ms: Count
    reason: str = ""


class LockOutdated(msgspec.Struct, frozen=True, array_like=True, tag="outdated"):
    """The asker does not have the home's present file: ``entry`` is live there (None: absent), ``head`` the newest
    generation. Fetch first."""

    entry: Entry | None
    head: HeadRef | None


class LockGone(msgspec.Struct, frozen=True, array_like=True, tag="gone"):
    """The lock of this token is not in force: the reason, and the person that ended it."""

    why: LockEnd
    by: str = ""
    reason: str = ""


class LockEnded(msgspec.Struct, frozen=True, array_like=True, tag="ended"):
    """The lock was released or broken, as asked."""

    path: bytes
    why: LockEnd


class LockRefused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """No lock, by a rule of the home or because it is not the home: ``code``, words, and the exit code of the
    family."""

    code: str
    reason: str
    hint: str = ""
    exit_code: Annotated[int, Meta(ge=1, le=99)] = 4


LockAnswer = LockGranted | LockDenied | LockOutdated | LockGone | LockEnded | LockRefused
