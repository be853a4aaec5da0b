"""Events and effects of the ``HomeMachine``: locks and change sets of one line at its home.

The clock of ``step`` is CLOCK_BOOTTIME in milliseconds: locks end by it.
"""

from __future__ import annotations

from instep.core.changes.home_facts import EndedLock, HomeConfig, HomeFacts, LivePath, Submission
from instep.core.vocabulary import MachineWord, Note, RequestDone, RequestFailed, SetTimer, TimerFired
from instep.model.change import ChangeAnswer, ChangeSet, Fence, PathOutcome
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.lock import LockAnswer, LockOwner

# --- events -------------------------------------------------------------------------------------------------------


class HomeStarted(MachineWord):
    """First event after birth. ``epoch`` is the one in which this node writes; ``boot_id`` the kernel's."""

    boot_id: str
    epoch: int
    head: HeadRef | None = None
    entries: int = 0


class HomeConfigChanged(MachineWord):
    config: HomeConfig


class HeadMoved(MachineWord):
    """A generation of this line was committed, whatever for; ``entries`` counts its manifest."""

    head: HeadRef
    entries: int


class HomeLost(MachineWord):
    """Another node writes the line from ``epoch`` on: all locks are void, nothing more is taken."""

    epoch: int
    writer: NodeName | None = None


class LockAsked(MachineWord):
    """Lock ``path`` for ``owner``, or refresh the lock that the owner has. ``base``: the digest of the file that
    the asker has, empty where it has none. ``lock_id`` is drawn anew for this request. One ``ReplyLock`` repeats
    ``req``."""

    req: int
    source: NodeName
    owner: LockOwner
    path: bytes
    base: Digest
    ttl_ms: int
    lock_id: bytes
    reason: str = ""


class RefreshAsked(MachineWord):
    """Give the lock of this token its whole time again; ``ttl_ms`` None keeps its length."""

    req: int
    source: NodeName
    path: bytes
    fence: Fence
    ttl_ms: int | None = None


class ReleaseAsked(MachineWord):
    """End the lock of this token."""

    req: int
    source: NodeName
    path: bytes
    fence: Fence


class BreakAsked(MachineWord):
    """End another owner's lock of ``path`` for a ``reason``; ``steals``: and grant it to ``by`` in the same act, for
    ``ttl_ms`` and with ``lock_id``, if ``base`` is the live file's digest. None: the asker works in the home's own
    tree."""

    req: int
    source: NodeName
    by: LockOwner
    path: bytes
    reason: str
    is_operator: bool = False
    steals: bool = False
    ttl_ms: int = 0
    lock_id: bytes = b""
    base: Digest | None = None


class OwnEdit(MachineWord):
    """These paths may have been changed at the home by a program there. Paths without a lock need not be named: a path
    with one is read again, and its lock ends when it is not what the lock stands for."""

    paths: tuple[bytes, ...]


class LiveRead(MachineWord):
    """Answer to ``ReadLive``, for each of its paths in the same order."""

    req: int
    live: tuple[LivePath, ...]


class LiveReadFailed(RequestFailed):
    """Answer to ``ReadLive``: the root or a path cannot be read now."""


class Submitted(MachineWord):
    """A checked change set came. One ``ReplyChange`` repeats ``req``; the same set may be submitted again meanwhile."""

    req: int
    submission: Submission


class SubmitterGone(MachineWord):
    """The asker of ``req`` is no longer there: no contents will come from it."""

    req: int


class LookedUp(MachineWord):
    """Answer to ``LookUp``: the answer that was kept for this id; None: the id is new, or was never answered. ``sets``
    and ``size_bytes`` are all that is kept of the source's sets."""

    req: int
    answer: ChangeAnswer | None
    sets: int = 0
    size_bytes: int = 0


class ContentsHere(RequestDone):
    """Answer to ``FetchOffered``: every content that the change set brings is here, hashed and durable."""


class ContentsFailed(RequestFailed):
    """Answer to ``FetchOffered``: nothing was changed, the change set may be submitted again."""


class ChangesApplied(MachineWord):
    """Answer to ``ApplyChanges``: the outcome of each path that it named: ``applied``, ``same``, ``outdated`` or
    ``refused``. The changes are durable, displaced bytes are in the archive."""

    req: int
    outcomes: tuple[PathOutcome, ...]


class ApplyFailed(RequestFailed):
    """Answer to ``ApplyChanges``: the journal says whether anything was changed, and the machine asks it next."""


class ChangesRecovered(MachineWord):
    """Answer to ``RecoverChanges``. ``kept`` and ``decided`` are of ``KeepChange``. ``outcomes`` are derived from the
    journal of that change set, for the paths that ``ApplyChanges`` named; None: no journal of it ever began."""

    req: int
    kept: Submission | None
    decided: tuple[PathOutcome, ...] = ()
    outcomes: tuple[PathOutcome, ...] | None = None


class ChangesNotRecovered(RequestFailed):
    """Answer to ``RecoverChanges``: the journal or the store cannot be read now; it is asked again."""


class PathsPublished(MachineWord):
    """Answer to ``PublishPaths``: ``head`` has the changes; None: the publish is held back, for ``reason``."""

    req: int
    head: HeadRef | None
    reason: str = ""


SetAnswer = (
    LookedUp
    | ContentsHere
    | ContentsFailed
    | ChangesApplied
    | ApplyFailed
    | ChangesRecovered
    | ChangesNotRecovered
    | PathsPublished
)
"""Answers about a change set."""

LockEvent = LockAsked | RefreshAsked | ReleaseAsked | BreakAsked | OwnEdit | LiveRead | LiveReadFailed
"""Events about locks."""

HomeEvent = (
    HomeStarted
    | HomeConfigChanged
    | HeadMoved
    | HomeLost
    | LockEvent
    | Submitted
    | SubmitterGone
    | SetAnswer
    | TimerFired
)


# --- effects ------------------------------------------------------------------------------------------------------


class SaveHome(MachineWord):
    """Make ``facts`` durable before any effect that follows."""

    facts: HomeFacts


class LookUp(MachineWord):
    """Look for a kept answer to this id, and for the sum of all that is kept of this node's sets. Answer:
    ``LookedUp``."""

    req: int
    id: Digest
    source: NodeName | None = None


class FetchOffered(MachineWord):
    """Get the contents of ``wanted_contents`` of this change set that are not here, from its source, hashed into the
    staging area. Answer: ``ContentsHere`` or ``ContentsFailed``."""

    req: int
    source: NodeName
    id: Digest
    change_set: ChangeSet


class KeepChange(MachineWord):
    """Keep this change set durably, under its id, with the outcomes that are decided already; replaced by
    ``KeepAnswer``. No answer."""

    id: Digest
    submission: Submission
    decided: tuple[PathOutcome, ...] = ()


class ApplyChanges(MachineWord):
    """Make the changes of ``paths`` of this change set in the live tree, by compare-and-set: a path is changed only
    if its live object is alike to the base, read again at the switch. ``change_set.whole``: all of them or none. The
    journal names ``id``. Removals that the writer's guard would stop at the publish refuse all of it before anything
    is laid, unless they are accepted. Answer: ``ChangesApplied`` or ``ApplyFailed``."""

    req: int
    id: Digest
    change_set: ChangeSet
    paths: tuple[bytes, ...]
    accepts_deletions: bool = False


class RecoverChanges(MachineWord):
    """Derive from the journal what became of this change set, whose apply was begun before a crash. Answer:
    ``ChangesRecovered`` or ``ChangesNotRecovered``."""

    req: int
    id: Digest


class PublishPaths(MachineWord):
    """Scan these paths and publish. The losses of ``accepted`` paths are meant. Answer: ``PathsPublished``."""

    req: int
    paths: tuple[bytes, ...]
    author: str = ""
    message: str = ""
    accepted: tuple[bytes, ...] = ()


class ReadLive(MachineWord):
    """Read these paths of the live tree again, contents and all, behind every apply that was ordered before. Answer:
    ``LiveRead`` or ``LiveReadFailed``."""

    req: int
    paths: tuple[bytes, ...]


class KeepAnswer(MachineWord):
    """Keep this answer to a set of ``source`` durably for ``REMEMBERED_MS`` at least. The effects after it wait until
    it is durable."""

    answer: ChangeAnswer
    source: NodeName


class DropOffered(MachineWord):
    """Contents that were fetched for this change set are not needed any more. No answer."""

    id: Digest


class ReplyLock(MachineWord):
    """Answer the asker of ``req``."""

    req: int
    answer: LockAnswer


class ReplyChange(MachineWord):
    """Answer the asker of ``req`` with the home's final answer."""

    req: int
    answer: ChangeAnswer


class ReplyNotTaken(RequestFailed):
    """Answer the asker of ``req``: nothing was decided and nothing changed. With ``Retry.LATER`` the same change set
    may be submitted again."""


class TellHolder(MachineWord):
    """Send the owner's node the news that a lock ended without its asking. Not reachable: drop it, the next refresh or
    submit says it."""

    ended: EndedLock


HomeEffect = (
    SaveHome
    | LookUp
    | FetchOffered
    | KeepChange
    | ApplyChanges
    | RecoverChanges
    | PublishPaths
    | ReadLive
    | KeepAnswer
    | DropOffered
    | ReplyLock
    | ReplyChange
    | ReplyNotTaken
    | TellHolder
    | Note
    | SetTimer
)
