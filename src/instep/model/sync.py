"""What both sides of a sync profile had after a run, and the record of a run."""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta

from instep.model.ids import DIGEST_BYTES, Count, Digest, HeadRef

PAST_MAX = 100
BASES_KEPT = 8
"""So many of the newest bases a home keeps."""


_Id = Annotated[Digest, Meta(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]


class SyncMark(msgspec.Struct, frozen=True, array_like=True):
    """A base as the home names it that does not carry runs out: its run, its root, and the ids of both heads."""

    run: Count
    root: _Id
    left: _Id
    right: _Id


class SyncBase(msgspec.Struct, frozen=True, array_like=True):
    """The base of a profile after run number ``run``: a manifest with the root ``root``. ``left`` and ``right`` are the
    heads that the run left behind. ``is_whole``: they are just what it made, so equal heads mean nothing to do.
    ``past_left`` and ``past_right`` are the roots of earlier runs, the newest first: a head with one of them went back.
    """

    run: Count
    root: Digest
    left: HeadRef
    right: HeadRef
    is_whole: bool = True
    past_left: Annotated[tuple[Digest, ...], Meta(max_length=PAST_MAX)] = ()
    past_right: Annotated[tuple[Digest, ...], Meta(max_length=PAST_MAX)] = ()

    @property
    def mark(self) -> SyncMark:
        return SyncMark(self.run, self.root, self.left.id, self.right.id)


class SyncPhase(enum.StrEnum):
    """Where a run is."""

    FLUSHING = "flushing"
    """Both homes publish what was saved before."""
    PLANNING = "planning"
    RIGHT = "right"
    """The right home is sent its changes."""
    LEFT = "left"
    """The left home is sent its changes."""
    BASE = "base"
    """The base is recorded."""
    DONE = "done"
    FAILED = "failed"
    HELD = "held"
    """Something must agree, or be allowed, before it goes on; nothing was changed for it."""
    CANCELLED = "cancelled"

    @property
    def is_over(self) -> bool:
        return self in (SyncPhase.DONE, SyncPhase.FAILED, SyncPhase.HELD, SyncPhase.CANCELLED)
