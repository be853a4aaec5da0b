"""What both sides of a sync profile had after a run, and the record of a run."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from instep.model.ids import DIGEST_BYTES, Count, Digest, HeadRef, NodeName
from instep.model.manifest.entry import Entry

BASES_KEPT = 8
"""So many of the newest bases a home keeps."""
ROLLBACKS_KEPT = 64
"""So many of the newest rollbacks a home keeps."""


RUN_MAX = 1 << 53
"""No run has a higher number: one that a peer makes up must leave room for those that follow."""

_Id = Annotated[Digest, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class SyncMark(msgspec.Struct, frozen=True, array_like=True):
    """A base as the home names it that does not carry runs out: its run, its root, and the ids of both heads."""

    run: Count
    root: _Id
    left: _Id
    right: _Id


class RefusedTree(msgspec.Struct, frozen=True, array_like=True):
    """What a run brought to a side (``left`` or ``right``), and its partners refused: the root, and why."""

    side: str
    root: _Id
    reason: str


class WaitingTree(msgspec.Struct, frozen=True, array_like=True):
    """What the base would be with changes that the home of a side made and had not published, or that its partners
    refused. ``seen`` is the root that the side had before these changes."""

    side: str
    root: _Id
    seen: _Id


class SentChanges(msgspec.Struct, frozen=True, array_like=True):
    """The change sets of a run's round, recorded before they are sent: a run that ends right then leaves homes with
    changes that no base has. ``base`` is the one that the run went from, ``settled`` its root with the changes of the
    rounds before, ``wanted`` the root with those of this round, too. ``left`` and ``right`` are the heads that the
    round saw, ``sets`` the ids of the sets by side."""

    base: SyncMark
    settled: _Id
    wanted: _Id
    left: HeadRef
    right: HeadRef
    sets: tuple[tuple[str, _Id], ...] = ()

    @property
    def roots(self) -> tuple[Digest, ...]:
        return (self.settled, self.wanted, self.left.root, self.right.root)


class SyncBase(msgspec.Struct, frozen=True, array_like=True):
    """The base of a profile after run number ``run``: a manifest with the root ``root``. ``left`` and ``right`` are the
    heads that the run left behind. ``is_whole``: they are just what it made, so equal heads mean nothing to do.

    ``refused``: of that side the head is still the one before.
    """

    run: Count
    root: _Id
    left: HeadRef
    right: HeadRef
    is_whole: bool = True
    waiting: tuple[WaitingTree, ...] = ()
    refused: RefusedTree | None = None

    @property
    def roots(self) -> tuple[Digest, ...]:
        """The manifests that it names."""
        refused = (self.refused.root,) if self.refused is not None else ()
        waiting = (root for each in self.waiting for root in (each.root, each.seen))
        return (self.root, *waiting, *refused)

    @property
    def mark(self) -> SyncMark:
        return SyncMark(self.run, self.root, self.left.id, self.right.id)


class Rollback(msgspec.Struct, frozen=True, array_like=True):
    """A generation that brought the whole tree back to an older one, which is ``target``."""

    epoch: Count
    number: Count
    target_epoch: Count
    target_number: Count

    @property
    def position(self) -> tuple[int, int]:
        return (self.epoch, self.number)

    @property
    def target(self) -> tuple[int, int]:
        return (self.target_epoch, self.target_number)


_NodeName = Annotated[NodeName, Meta(min_length=1, max_length=63)]
_Pattern = Annotated[str, Meta(max_length=4096)]
_Text = Annotated[str, Meta(max_length=160)]


class KindNews(msgspec.Struct, frozen=True, array_like=True):
    """A kind of a profile, as the home that carries its runs out names it to the other one."""

    name: Annotated[str, Meta(max_length=63)]
    paths: Annotated[tuple[_Pattern, ...], Meta(max_length=1_000)]
    is_locked: bool
    """No change that is made at that other home counts."""
    is_reverted: bool = False
    """Such a change is put back at once."""


class ProfileNews(msgspec.Struct, frozen=True, array_like=True):
    """A profile, as the home that carries its runs out names it to the other one. ``run`` is the number of the last run
    that began."""

    name: Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?\Z")]
    carrier: _NodeName
    left: _Text
    right: _Text
    direction: Annotated[str, Meta(max_length=8)]
    initiators: Annotated[tuple[_NodeName, ...], Meta(max_length=64)]
    run: Count
    kinds: Annotated[tuple[KindNews, ...], Meta(max_length=64)] = ()


class LockedEdit(msgspec.Struct, frozen=True, array_like=True):
    """A path that was changed on a side where its kind is locked. ``reference`` is what it was before."""

    path: bytes
    profile: Annotated[str, Meta(max_length=63)]
    kind: Annotated[str, Meta(max_length=63)]
    at_ms: Count
    reference: Entry | None = None


class SyncPhase(enum.StrEnum):
    """Where a run is."""

    FLUSHING = "flushing"
    """Both homes publish what was saved before."""
    PLANNING = "planning"
    SENDING = "sending"
    """Both homes are sent their changes, and make them."""
    FOLLOWING = "following"
    """The partners of the homes that made changes take them."""
    BASE = "base"
    """The base is recorded."""
    DONE = "done"
    INCOMPLETE = "incomplete"
    """It came to its end, and a home did not make some of the changes: the base does not follow those."""
    FAILED = "failed"
    HELD = "held"
    """Something must agree, or be allowed, before it goes on; nothing was changed for it."""
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in (
            SyncPhase.DONE, SyncPhase.INCOMPLETE, SyncPhase.FAILED, SyncPhase.HELD, SyncPhase.CANCELLED
        )  # fmt: skip
