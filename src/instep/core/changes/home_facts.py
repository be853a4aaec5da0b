"""Facts and configuration of the ``HomeMachine``: the locks of one line, and the change set under way.

Locks end by CLOCK_BOOTTIME; the wall clock only dates what is kept.
"""

from __future__ import annotations

import enum

import msgspec

from instep.core.guards.guards import DEFAULT_DELETIONS, DeletionPolicy
from instep.core.vocabulary import MachineWord
from instep.model.change import ChangeSet, Fence, is_same_file
from instep.model.ids import Digest, NodeName
from instep.model.lock import LockEnd, LockGone, LockOwner
from instep.model.manifest.entry import Entry

REMEMBERED_MS = 7 * 86_400_000
"""For so long the answer to a change set is kept at least, and given again for the same id."""
TOO_OLD_MS = 6 * 86_400_000
"""An older change set is refused unless its answer is known: its id may have been forgotten."""

SETS_KEPT_MAX = 1_000_000
BYTES_KEPT_MAX = 512 << 20
"""So much is kept of one node's change sets of a line: more than one a second, for as long as answers are kept."""


class BreakPolicy(enum.Enum):
    """The people that may break another owner's lock, besides an operator of the home."""

    ANYONE = "anyone"
    OWNER = "owner"
    """The same person, from another program of that node."""
    NOBODY = "nobody"
    """Not even an operator: only its end, or its owner's program."""


class HomeConfig(MachineWord):
    """This node's settings for changes from elsewhere. ``offers_from`` are the partners whose changes and locks it
    takes; the node itself always may."""

    node: NodeName
    offers_from: tuple[NodeName, ...] = ()
    deletions: DeletionPolicy = DEFAULT_DELETIONS
    break_by: BreakPolicy = BreakPolicy.OWNER
    locks_per_owner: int = 100
    locks_max: int = 2_000
    pending_per_source: int = 4
    pending_max: int = 32
    sets_kept: int = SETS_KEPT_MAX
    bytes_kept: int = BYTES_KEPT_MAX


class Lock(msgspec.Struct, frozen=True, array_like=True):
    """A lock in force. ``deadline_ms`` is on CLOCK_BOOTTIME of the boot that the facts name. ``base`` is the live
    entry that it stands for: that of the grant, then that of the last change made under it."""

    path: bytes
    owner: LockOwner
    fence: Fence
    ttl_ms: int
    deadline_ms: int
    base: Entry | None
    reason: str = ""
    since_ms: int = 0


class EndedLock(msgspec.Struct, frozen=True, array_like=True):
    """A lock that is no longer in force, so that its owner's program can be given the reason."""

    path: bytes
    owner: LockOwner
    fence: Fence
    why: LockEnd
    by: str = ""
    reason: str = ""


class RemovalCount(msgspec.Struct, frozen=True, array_like=True):
    """How many removals of a partner were made around a moment of the wall clock."""

    source: NodeName
    at_ms: int
    removed: int


class ApplyingSet(msgspec.Struct, frozen=True, array_like=True):
    """The change set whose ``ApplyChanges`` may have begun, and the lock that ends with its answer."""

    id: Digest
    releases: Fence | None = None


class HomeFacts(msgspec.Struct, frozen=True, array_like=True):
    """The state that must survive a crash. ``counter`` belongs to the newest grant and only rises. ``locks`` are in
    path order, ``ended`` the oldest first. ``applying`` is the change set whose ``ApplyChanges`` may have begun:
    after a start the journal of the tree says what became of it. ``removals`` are those of the last hour."""

    version: int = 1
    epoch: int = 0
    boot_id: str = ""
    counter: int = 0
    locks: tuple[Lock, ...] = ()
    ended: tuple[EndedLock, ...] = ()
    applying: ApplyingSet | None = None
    removals: tuple[RemovalCount, ...] = ()

    def how_ended(self, path: bytes, owner: LockOwner, fence: Fence | None) -> LockGone | None:
        """Why the owner's last lock of the path, or the one of the token, is not in force; None: it is not known."""
        for ended in reversed(self.ended):
            if ended.path == path and ended.owner == owner and fence in (None, ended.fence):
                return LockGone(ended.why, ended.by, ended.reason)
        return None

    def is_edited_under(self, fence: Fence, live: Entry | None) -> bool:
        """Whether the live file is another than the one that the lock of this token stands for."""
        lock = next((each for each in self.locks if each.fence == fence), None)
        return lock is not None and not is_same_file(lock.base, live)


class Submission(msgspec.Struct, frozen=True, array_like=True):
    """A change set and the node that submitted it. ``releases``: the lock of its token ends in the same act, when the
    path of the lock was changed as wanted. ``accepts_deletions``: a person said that its removals are meant."""

    source: NodeName
    change_set: ChangeSet
    releases: bool = False
    accepts_deletions: bool = False


class LivePath(msgspec.Struct, frozen=True, array_like=True):
    """What the home's tree has at a path, read again now; None: nothing."""

    path: bytes
    entry: Entry | None
