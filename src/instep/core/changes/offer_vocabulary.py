"""Events, effects, facts and configuration of the ``OfferMachine``: edits made at a node that does not write the line.

The machine owns the paths that it names by ``OwnPaths``: the follower reverts none of them and lets no apply touch
them.
"""

from __future__ import annotations

import enum

import msgspec

from instep.core.guards.guards import DEFAULT_DELETIONS, DeletionPolicy
from instep.core.vocabulary import (
    MachineWord,
    Note,
    RequestFailed,
    SetTimer,
    TimerFired,
    Trouble,
)
from instep.model.change import ChangeAnswer, ChangeSet, Fence, PathOutcome
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.lock import LockAnswer, LockGone, LockOwner
from instep.model.manifest.entry import Entry


class OfferConfig(MachineWord):
    """This node's settings for edits of a line that it follows. ``offers`` with ``drift = "offer"``; without it only
    paths under a lock are owned and submitted. ``author`` stands in change sets without a lock."""

    node: NodeName
    offers: bool = True
    deletions: DeletionPolicy = DEFAULT_DELETIONS
    author: str = ""
    retry_min_ms: int = 500
    retry_max_ms: int = 60_000
    locks_max: int = 2_000


class EditState(enum.Enum):
    """How far the edit of an owned path is."""

    ASKED = "asked"
    """Its lock is being asked for: until the answer nothing is laid there, so that the grant is about the file that its
    program has. An edit that a look finds meanwhile is kept, as ``base`` and ``found``."""
    EDITING = "editing"
    """Under a lock of a program here, changed or not."""
    WAITING = "waiting"
    """Changed, and not offered yet."""
    OFFERED = "offered"
    """In the change set that is under way."""
    ACCEPTED = "accepted"
    """Made at the home; the generation that has it is not here yet."""
    LOSING = "losing"
    """Not made at the home: the local version goes to the archive, the generation's comes back."""
    BLOCKED = "blocked"
    """A removal among too many, which an operator must judge."""


class OwnedPath(msgspec.Struct, frozen=True, array_like=True):
    """``base`` is the home's entry from which the edit began, ``found`` the newest one seen in the tree; None:
    absent. ``here`` is how ``base`` looks in this tree, which may keep no owners: another ``found`` is an edit. Of an
    accepted path ``base`` is the accepted entry, ``head`` the generation that has it, where the home named it, and
    ``above`` one that does not have it yet, where it did not. ``outcome`` says why an edit loses. ``token`` is that
    of the lock under which it was made, in force or not. Of a path that is being edited, ``is_on_its_way``: the
    generation that has ``base`` is not here yet; ``is_stale``: the tree's generation has another entry, which no
    apply laid because the path is owned. Of an accepted one, ``is_stale``: its lock is over, and the next look shows
    whether it was saved once more."""

    path: bytes
    state: EditState
    base: Entry | None
    found: Entry | None
    head: HeadRef | None = None
    outcome: PathOutcome | None = None
    token: Fence | None = None
    is_on_its_way: bool = False
    is_stale: bool = False
    here: Entry | None = None
    above: HeadRef | None = None


class HeldLock(msgspec.Struct, frozen=True, array_like=True):
    """A lock that a program of this node holds at the home. ``until_ms`` is on CLOCK_BOOTTIME of ``boot_id``, early
    rather than late: counted from before the request was sent."""

    path: bytes
    owner: LockOwner
    fence: Fence
    ttl_ms: int
    until_ms: int
    base: Entry | None


class LostLock(msgspec.Struct, frozen=True, array_like=True):
    """A lock of a program here that ended without its owner's asking, so that the owner can be given the reason."""

    path: bytes
    owner: LockOwner
    fence: Fence
    gone: LockGone


class OfferFacts(msgspec.Struct, frozen=True, array_like=True):
    """The state that must survive a crash. ``owned`` is in path order. ``submitting`` is the change set under way, sent
    again with the same id until its answer is here; ``releases`` whether its lock ends with it. ``lost``: locks that
    ended lately, the oldest first."""

    version: int = 1
    boot_id: str = ""
    owned: tuple[OwnedPath, ...] = ()
    held: tuple[HeldLock, ...] = ()
    submitting: ChangeSet | None = None
    releases: bool = False
    lost: tuple[LostLock, ...] = ()


class Edit(msgspec.Struct, frozen=True, array_like=True):
    """A path that differs from the tree's generation: ``found`` lies there, ``base`` is the generation's entry.
    ``is_seen``: the generation's entry was laid here and seen by a scan since, so that its absence is a removal."""

    path: bytes
    found: Entry | None
    base: Entry | None
    is_seen: bool = True


# --- events -------------------------------------------------------------------------------------------------------


class OffersStarted(MachineWord):
    """First event after birth. ``nonce_seed`` is random, drawn for this start: nonces and jitter are derived from
    it."""

    boot_id: str
    nonce_seed: bytes
    entries: int = 0


class OfferConfigChanged(MachineWord):
    config: OfferConfig


class TreeLooked(MachineWord):
    """The tree was compared with its generation, after it was quiet for settle. ``edits`` are the paths that differ,
    ``clean`` those that were looked at and do not; ``is_whole``: every path that is no edit is clean. ``entries``
    counts the manifest of that generation, ``head``."""

    edits: tuple[Edit, ...]
    clean: tuple[bytes, ...] = ()
    is_whole: bool = False
    entries: int = 0
    head: HeadRef | None = None


class HomeUp(MachineWord):
    """The home can be asked, over whichever link."""


class HomeDown(MachineWord):
    """The home cannot be asked."""


class OfferAnswered(MachineWord):
    """Answer to ``SubmitOffer``."""

    req: int
    answer: ChangeAnswer


class OfferFailed(RequestFailed):
    """Answer to ``SubmitOffer``: no final answer. The code ``contents_gone`` says that the home, which knows nothing
    of this id, wants contents that are here no more."""


class HeadReached(MachineWord):
    """The tree holds this generation. ``has`` are its entries of the owned paths (None: absent), for those that the
    node could look up."""

    head: HeadRef
    has: tuple[tuple[bytes, Entry | None], ...] = ()


class EditsSetAside(MachineWord):
    """The follower did what ``OwnPaths`` says of losing paths: their local versions are in the archive, durably, named
    with their outcomes, and those of the tree's generation are back."""

    paths: tuple[bytes, ...]


class RemovalsJudged(MachineWord):
    """An operator judged the blocked removals: they are offered, or undone."""

    are_accepted: bool


class OffersRetried(MachineWord):
    """``instep retry``: forget refusals and back-off."""


class LockWanted(MachineWord):
    """A program here wants the lock of ``path``, or its whole time again. ``base``: digest of the file as it is here,
    empty where none is. ``steals``: take it from its owner, for ``reason``. With ``fence`` only the lock of that token
    is refreshed. One ``GiveLockAnswer`` repeats ``request``."""

    request: int
    owner: LockOwner
    path: bytes
    base: Digest
    ttl_ms: int
    reason: str = ""
    steals: bool = False
    is_operator: bool = False
    fence: Fence | None = None


class ReleaseWanted(MachineWord):
    """The owner is done: submit the edit of ``path``, if there is one, and end the lock in the same act. One
    ``GiveLockAnswer`` repeats ``request``. ``fence`` None: the lock that ``owner`` holds."""

    request: int
    owner: LockOwner
    path: bytes
    fence: Fence | None = None
    message: str = ""


class LockAnswered(MachineWord):
    """Answer to ``AskLock`` and ``AskRelease``."""

    req: int
    answer: LockAnswer


class LockAskFailed(RequestFailed):
    """Answer to ``AskLock`` and ``AskRelease``: the home could not be asked; what it did is unknown."""


class LockNews(MachineWord):
    """The home reports that the lock of this token ended without its owner's asking."""

    path: bytes
    fence: Fence
    gone: LockGone


class PathsLooked(MachineWord):
    """Answer to ``LookAtPaths``: ``edits`` of these paths from the generation ``head``, all others are clean."""

    req: int
    edits: tuple[Edit, ...]
    head: HeadRef | None = None


class LookFailed(RequestFailed): ...


OfferAnswerEvent = OfferAnswered | OfferFailed | LockAnswered | LockAskFailed | PathsLooked | LookFailed

OfferEvent = (
    OffersStarted
    | OfferConfigChanged
    | TreeLooked
    | HomeUp
    | HomeDown
    | HeadReached
    | EditsSetAside
    | RemovalsJudged
    | OffersRetried
    | LockWanted
    | ReleaseWanted
    | LockNews
    | OfferAnswerEvent
    | TimerFired
)


# --- effects ------------------------------------------------------------------------------------------------------


class SaveOffers(MachineWord):
    """Make ``facts`` durable before any effect that follows."""

    facts: OfferFacts


class SubmitOffer(MachineWord):
    """Submit this change set to the home, with the contents that it lacks. Answer: ``OfferAnswered`` or
    ``OfferFailed``."""

    req: int
    id: Digest
    change_set: ChangeSet
    releases: bool = False


class OwnPaths(MachineWord):
    """All paths that this machine owns from now on, in path order: no apply touches them and no revert undoes them, but
    for those that are ``losing``: the follower sets them aside, and says so by ``EditsSetAside``."""

    owned: tuple[OwnedPath, ...]


class LookAtPaths(MachineWord):
    """Compare these paths with the tree's generation now. Answer: ``PathsLooked`` or ``LookFailed``."""

    req: int
    paths: tuple[bytes, ...]


class AskLock(MachineWord):
    """Ask the home for the lock as ``wanted`` says, or for its whole time again with ``fence``. Answer:
    ``LockAnswered`` or ``LockAskFailed``."""

    req: int
    wanted: LockWanted
    fence: Fence | None = None


class AskRelease(MachineWord):
    """Ask the home to end this lock. Answer: ``LockAnswered`` or ``LockAskFailed``."""

    req: int
    path: bytes
    fence: Fence


class GiveLockAnswer(MachineWord):
    """Answer the program whose ``request`` number this is. ``outcome`` of the submitted edit of its path, when there
    was one; ``trouble`` when the home could not be asked."""

    request: int
    answer: LockAnswer | None
    outcome: PathOutcome | None = None
    head: HeadRef | None = None
    trouble: Trouble | None = None


class ReportOffers(MachineWord):
    """What ``status`` says of the edits here: counts by state, and why they do not go on."""

    counts: tuple[tuple[EditState, int], ...]
    trouble: Trouble | None = None


OfferEffect = (
    SaveOffers
    | SubmitOffer
    | OwnPaths
    | LookAtPaths
    | AskLock
    | AskRelease
    | GiveLockAnswer
    | ReportOffers
    | Note
    | SetTimer
)
