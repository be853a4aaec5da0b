"""Locks and changes that a partner asks of a line's home, since version 3.

Implements the section "Changes from elsewhere" of ``docs/spec/wire.md``; what locks and change sets mean is in
``docs/spec/changes.md``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from instep.errors import PeerError
from instep.model.change import (
    CHANGE_SET_MAX_BYTES,
    CHANGES_MAX,
    LOCK_ID_BYTES,
    ChangeAnswer,
    Fence,
)
from instep.model.external import EXTERNALS_MAX, External
from instep.model.generation import SignedGeneration
from instep.model.ids import DIGEST_BYTES, Digest, HeadRef, LineId
from instep.model.limits import SIZE_MAX
from instep.model.lock import (
    LOCK_TTL_MAX_MS,
    OWNER_PART_MAX,
    REASON_MAX,
    LockAnswer,
    LockDenied,
    LockEnd,
    LockGranted,
    LockOutdated,
    LockView,
)
from instep.model.manifest.entry import Entry
from instep.model.paths import validated
from instep.model.sync import ROLLBACKS_KEPT, Rollback
from instep.net.messages.parts import Count, Message, RawDigest, StreamMessage, Text

SUBMIT_BYTES_MAX = CHANGE_SET_MAX_BYTES + (8 << 20)
"""Largest request ``submit`` without its contents, and largest answer to it."""
LOCKS_MAX = 1_000
"""Locks in one answer; the asker goes on after the last path."""
CONTENTS_MAX = 2 * CHANGES_MAX

_Path = Annotated[bytes, msgspec.Meta(max_length=4096)]
_Word = Annotated[str, msgspec.Meta(max_length=OWNER_PART_MAX)]
_User = Annotated[str, msgspec.Meta(min_length=1, max_length=OWNER_PART_MAX)]
_Reason = Annotated[str, msgspec.Meta(max_length=REASON_MAX)]
_Ttl = Annotated[int, msgspec.Meta(ge=0, le=LOCK_TTL_MAX_MS)]


_Base = Annotated[Digest, msgspec.Meta(max_length=DIGEST_BYTES)]


class _OfPath(Message, frozen=True, array_like=True):
    """A request about one path of a line."""

    line: LineId
    path: _Path

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            validated(self.path)
        except PeerError as error:
            raise ValueError(error.reason) from error


class LockRequest(_OfPath, tag="lock", frozen=True, array_like=True):
    """Lock the path for a person of the asking node, in one program there; ``base`` is the digest of the file that the
    asker has, empty where it has none. With ``fence`` the lock of that token gets its whole time again. ``ttl_ms`` 0:
    as the home likes, at a refresh as before."""

    user: _User
    client: _Word = ""
    base: _Base = Digest(b"")
    ttl_ms: _Ttl = 0
    reason: _Reason = ""
    fence: Fence | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_base(self.base)
        _check_fence(self.fence)


class UnlockRequest(_OfPath, tag="unlock", frozen=True, array_like=True):
    """End the lock of this token."""

    fence: Fence

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_fence(self.fence)


class BreakRequest(_OfPath, tag="break_lock", frozen=True, array_like=True):
    """End another owner's lock; ``steals``: and lock the path for this person in the same act, if ``base`` is the
    digest of the home's file, as in ``LockRequest``."""

    user: _User
    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=REASON_MAX)]
    client: _Word = ""
    steals: bool = False
    ttl_ms: _Ttl = 0
    base: _Base = Digest(b"")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_base(self.base)


class LockReply(Message, tag="lock_reply", frozen=True, array_like=True):
    answer: LockAnswer

    def __post_init__(self) -> None:
        if isinstance(self.answer, LockGranted):
            _check_fence(self.answer.fence)
            _check_found(self.answer.base)
        elif isinstance(self.answer, LockOutdated):
            _check_found(self.answer.entry)
        elif isinstance(self.answer, LockDenied):
            super().__post_init__()


class LocksRequest(Message, tag="locks", frozen=True, array_like=True):
    """The locks of the line in path order, after the path ``after``."""

    line: LineId
    after: _Path = b""


class LocksReply(Message, tag="locks_reply", frozen=True, array_like=True):
    """At most ``LOCKS_MAX``; ``is_last`` False: there are more."""

    locks: Annotated[tuple[LockView, ...], msgspec.Meta(max_length=LOCKS_MAX)]
    is_last: bool = True


class LockNotice(StreamMessage, tag="lock_notice", frozen=True, array_like=True):
    """The home's word to the node of an owner: this lock ended without its asking. It may be lost; the next refresh or
    submit says the same."""

    line: LineId
    path: _Path
    fence: Fence
    why: LockEnd
    by: Text = ""
    reason: _Reason = ""


class LookRequest(StreamMessage, tag="look", frozen=True, array_like=True):
    """The writer asks a partner whose changes it takes: look at what was changed in your tree before, and answer when
    it was offered and decided, or cannot be. For those that name ``looks`` in ``takes``."""

    number: Count
    line: LineId
    within_ms: Count


class LookReply(StreamMessage, tag="look_reply", frozen=True, array_like=True):
    """``refusal``: why the partner did not look."""

    number: Count
    refusal: Text = ""


_Content = tuple[RawDigest, Annotated[int, msgspec.Meta(ge=0, le=SIZE_MAX)]]


class SubmitHave(Message, tag="submit_have", frozen=True, array_like=True):
    """Contents of changes that will be submitted: which of them must be sent along?"""

    line: LineId
    contents: Annotated[tuple[_Content, ...], msgspec.Meta(max_length=CHANGES_MAX)]


class SubmitHaveReply(Message, tag="submit_have_reply", frozen=True, array_like=True):
    """The positions of the missing ones, rising."""

    missing: Annotated[tuple[Count, ...], msgspec.Meta(max_length=CHANGES_MAX)]


class SubmitRequest(Message, tag="submit", frozen=True, array_like=True):
    """An encoded change set. ``contents`` are the (digest, size) of the contents that follow as frames, in this order;
    the home has the others. ``releases``: the lock of its token ends in the same act. ``accepts_deletions``: a person
    started the sync run with ``--accept-deletions``."""

    line: LineId
    change_set: Annotated[bytes, msgspec.Meta(max_length=CHANGE_SET_MAX_BYTES)]
    contents: Annotated[tuple[_Content, ...], msgspec.Meta(max_length=CONTENTS_MAX)] = ()
    releases: bool = False
    accepts_deletions: bool = False


class SubmitReply(Message, tag="submit_reply", frozen=True, array_like=True):
    """``generation`` is the record of the head that the answer names, so that the sender can see the changes in it."""

    answer: ChangeAnswer
    generation: SignedGeneration | None = None

    def __post_init__(self) -> None:
        for outcome in self.answer.outcomes:
            _check_found(outcome.entry)


class FlushRequest(Message, tag="flush", frozen=True, array_like=True):
    """Publish what was saved before, and say which head has it; for partners whose changes are taken."""

    line: LineId


class FlushReply(Message, tag="flush_reply", frozen=True, array_like=True):
    """None: nothing was ever published."""

    head: HeadRef | None
    external: Annotated[tuple[External, ...], msgspec.Meta(max_length=EXTERNALS_MAX)] = ()
    """What the home names beside the fileset as not carried."""
    withheld: Count = 0
    """So many paths that change sets made are in no generation yet."""
    rollbacks: Annotated[tuple[Rollback, ...], msgspec.Meta(max_length=ROLLBACKS_KEPT)] = ()
    """The newest generations of the line that brought an older one back, the newest last."""
    refused: Text = ""
    """Why partners that follow the line refused its head."""


def why_not_positions(request: SubmitHave, reply: SubmitHaveReply) -> str | None:
    """Why the positions do not fit the contents that were asked about."""
    asked, missing = len(request.contents), reply.missing
    is_fit = all(a < b for a, b in zip((-1, *missing), (*missing, asked), strict=True))
    return None if is_fit else "positions of other contents"


def _check_base(base: Digest) -> None:
    if len(base) not in (0, DIGEST_BYTES):
        raise ValueError("a digest has 32 bytes")


def _check_fence(fence: Fence | None) -> None:
    if fence is not None and len(fence.lock_id) != LOCK_ID_BYTES:
        raise ValueError(f"the id of a lock has {LOCK_ID_BYTES} bytes")


def _check_found(entry: Entry | None) -> None:
    """An entry as a home found it: read for showing and comparing, and never laid here."""
    if entry is None:
        return
    try:
        validated(entry.path)
    except PeerError as error:
        raise ValueError(error.reason) from error
    if len(entry.digest) not in (0, DIGEST_BYTES):
        raise ValueError("a digest has 32 bytes")
