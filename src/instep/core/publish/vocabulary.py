"""Events, effects, facts and configuration of the ``PublishMachine``: one line at its writer."""

from __future__ import annotations

import enum

import msgspec

from instep.core.guards.guards import DEFAULT_DELETIONS, DeletionPolicy
from instep.core.guards.held import NOTHING_HELD, HeldPaths, ScanProblem
from instep.core.guards.hot import ContentMissed as ContentMissed
from instep.core.guards.hot import Cooling
from instep.core.guards.losses import Checkpoint, Lost
from instep.core.guards.losses import Missing as Missing
from instep.core.lines.accept import EpochBook
from instep.core.rescan import ScanCost
from instep.core.vocabulary import EpochSeen as EpochSeen
from instep.core.vocabulary import FetchFailed as FetchFailed
from instep.core.vocabulary import FetchPages as FetchPages
from instep.core.vocabulary import (
    HookEnded,
    HookWrite,
    LineEffect,
    LineEvent,
    MachineWord,
    RequestDone,
    RequestFailed,
    SignerVerdict,
    Trouble,
)
from instep.core.vocabulary import Paused as Paused
from instep.core.vocabulary import Resumed as Resumed
from instep.core.vocabulary import RetryAsked as RetryAsked
from instep.core.vocabulary import Started as Started
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.standing import Standing


class PublishMode(enum.Enum):
    AUTO = "auto"
    MANUAL = "manual"


class PublishConfig(MachineWord):
    """This node's settings for publishing the line. Durations in ms; ``node`` is this node.

    ``partners`` are the listed partners that may hold heads of this line."""

    node: NodeName
    mode: PublishMode = PublishMode.AUTO
    settle_ms: int = 200
    settle_max_ms: int = 10_000
    trigger: bytes | None = None
    trigger_max_ms: int = 5_000
    deletions: DeletionPolicy = DEFAULT_DELETIONS
    rescan_ms: int = 600_000
    has_validate: bool = False
    has_reload: bool = False
    partners: tuple[NodeName, ...] = ()
    ask_wait_ms: int = 5_000
    retry_min_ms: int = 500
    retry_max_ms: int = 60_000
    overrules: bool = False
    """An operator wrote this node's name where the newest epoch record names another."""
    is_strict: bool = False
    """Any held path refuses the publish."""
    has_past: bool = False
    """Something here shows that the line was published from this node before."""
    read_only: Trouble | None = None
    """Why this node publishes nothing for now, not even when an operator asks; its mode is then ``MANUAL``."""


class PublishFacts(msgspec.Struct, frozen=True, array_like=True):
    """The state that must survive a crash. ``highest`` is the highest number ever reserved or seen in ``epoch``: no
    number is used twice. ``base`` is the generation that scans compare with: the head, or an older one of ours when
    the pages of an adopted head are nowhere to be had. ``has_pages`` is false while the pages of an adopted head are
    still to be fetched. ``was_confirmed`` is set once a partner answered or the operator published by hand. ``held``
    are the paths that the newest scan could not carry and that keep their last entries, ``reported`` those that hold
    nothing up. ``is_adopted`` while no record says that the tree belongs to an adopted head: nothing is published
    over it then."""

    version: int = 1
    epoch: int = 1
    head: HeadRef | None = None
    base: HeadRef | None = None
    highest: int = 0
    has_pages: bool = True
    was_confirmed: bool = False
    is_paused: bool = False
    paused_reason: str = ""
    paused_until_wall_ms: int | None = None
    epochs: EpochBook = EpochBook()
    held: HeldPaths = NOTHING_HELD
    reported: HeldPaths = NOTHING_HELD
    is_adopted: bool = False
    checkpoints: tuple[Checkpoint, ...] = ()
    """From which generations the losses of the last ten minutes are counted."""
    twins: tuple[tuple[NodeName, HeadRef], ...] = ()
    """Partners, by name, that hold another generation with a number of ours, which we signed before we lost it."""
    descends_from: tuple[int, int] = (0, 0)
    """From this position on every generation that is stored here is an ancestor of the head. Below it an operator
    decided between two of them, or a newer head was adopted."""
    missing: Missing = Missing.NOTHING
    """Why paths that are missing in the tree are not published as removed, however few they are by now."""


class ScanSummary(MachineWord):
    """The result of a scan, against the base that it was asked for. The pages of ``root`` are stored.

    ``unsettled`` are paths that are too young to trust (read again by the next scan); ``entries_before`` counts the
    base's manifest. ``problems`` refuse the publish; ``held`` are the paths that keep their last entries, ``reported``
    those that hold nothing up. ``is_full``: the whole tree was looked at, at a ``cost``. Of ``copied`` hot files the
    history has the contents; ``large`` files have new ones. ``losses``: against the base and against each checkpoint,
    when anything was lost; ``at_ms`` is wall clock. ``hook_writes`` is set where hooks of this node made all of the
    changes. ``hold_path``: a path of ``hold_while`` exists."""

    root: Digest
    entries: int
    size_bytes: int
    entries_before: int
    added: int
    changed: int
    removed: int
    changed_bytes: int
    problems: tuple[ScanProblem, ...] = ()
    unsettled: tuple[bytes, ...] = ()
    definition_changed: bool = False
    held: HeldPaths = NOTHING_HELD
    reported: HeldPaths = NOTHING_HELD
    is_full: bool = False
    cost: ScanCost | None = None
    losses: tuple[Lost, ...] = ()
    at_ms: int = 0
    copied: tuple[bytes, ...] = ()
    large: tuple[bytes, ...] = ()
    hook_writes: tuple[HookWrite, ...] = ()
    hold_path: bytes | None = None


# --- events -------------------------------------------------------------------------------------------------


class PublishConfigChanged(MachineWord):
    config: PublishConfig


class DiskTurned(MachineWord):
    """The disk of the root stopped taking writes, or takes them again: a look at the tree says what that means."""


class TreeChanged(MachineWord):
    """The watcher saw changes; ``is_overflow`` when it lost track: the next scan is a full one."""

    paths: tuple[bytes, ...] = ()
    is_overflow: bool = False


class OldTreeFound(MachineWord):
    """The tree is an old copy, of before the newest head: where it differs, an operator says which of both is right."""


class PublishAsked(MachineWord):
    """``instep publish`` (or, with ``is_flush``, ``wait``: publish what was written before, in auto mode
    only). ``request`` is the asker's number; exactly one ``GiveAnswer`` repeats it."""

    request: int
    author: str = ""
    message: str = ""
    accept_deletions: bool = False
    is_dry_run: bool = False
    is_flush: bool = False
    is_full: bool = False
    is_over: bool = False
    """``--over``: the tree is right, whatever newer head of our own was adopted."""
    accept_held: tuple[bytes, ...] | None = None
    """Let go of the last entries of these held paths, or of all with an empty list."""
    accepted: tuple[bytes, ...] = ()
    """The losses of these paths are meant: a person accepted them where they were asked for. No other loss is."""
    is_whole: bool = False
    """Every write of before counts, whether or not the watch saw it: no path of the tree is left out."""


class TreeScanned(MachineWord):
    req: int
    summary: ScanSummary


class ScanFailed(RequestFailed):
    """Marker missing or another's (``marker_missing``, ``marker_foreign``), mount gone, root unreadable ..."""


class Committed(MachineWord):
    """Answer to ``Commit``: generation, pages, definition, history and epoch record are durable."""

    req: int
    head: HeadRef


class CommitFailed(RequestFailed): ...


class HeadOfOursSeen(MachineWord):
    """A partner holds this head of the line (in its report, or asked at start). ``ours`` is the id of the generation
    that is stored here with the same position, or of the one before where a failed commit skipped that number."""

    source: NodeName
    signed: SignedGeneration
    verdict: SignerVerdict
    ours: Digest | None = None


class PartnersAnswered(MachineWord):
    """Answer to ``AskPartners``; their heads and records came as ``EpochSeen``/``HeadOfOursSeen`` before this."""

    req: int
    answered: tuple[NodeName, ...]


class PartnerSeen(MachineWord):
    """A listed partner connected and reported its heads (or that it has none) by itself."""

    source: NodeName


class ManifestFetched(RequestDone):
    """Answer to ``FetchPages``."""


PublishAnswer = (
    TreeScanned | ScanFailed | HookEnded | Committed | CommitFailed | ManifestFetched | FetchFailed
)

PublishEvent = (
    LineEvent
    | PublishConfigChanged
    | TreeChanged
    | OldTreeFound
    | ContentMissed
    | DiskTurned
    | PublishAsked
    | PublishAnswer
    | HeadOfOursSeen
    | PartnersAnswered
    | PartnerSeen
)


# --- effects ------------------------------------------------------------------------------------------------


class Published(MachineWord):
    head: HeadRef
    added: int
    changed: int
    removed: int
    changed_bytes: int
    held: HeldPaths = NOTHING_HELD


class Unchanged(MachineWord):
    head: HeadRef | None
    held: HeldPaths = NOTHING_HELD


class WouldPublish(MachineWord):
    """Answer to a dry run."""

    added: int
    changed: int
    removed: int
    changed_bytes: int
    refusal: Trouble | None
    held: HeldPaths = NOTHING_HELD


class NotPublished(MachineWord):
    trouble: Trouble


Outcome = Published | Unchanged | WouldPublish | NotPublished


class SavePublish(MachineWord):
    """Make ``facts`` durable before any effect that follows."""

    facts: PublishFacts


class Scan(MachineWord):
    """Scan the tree against ``base`` (all of it when ``paths`` is empty); take in what the watcher has queued before
    starting. ``is_whole``: look at every path, but scan only ``paths`` and those that differ from the last look.
    ``is_deep`` reads every byte. Whatever ``paths`` says, look at ``again`` too; ``reads_open`` reads those
    among them anew that a program has open for writing. Losses are counted from the base and from ``since``; those of
    ``accepted`` paths are none. Held paths in ``lets_go`` keep no last entry. ``hot`` files go along only with a copy
    of their contents, those that are ``cooling`` only when they are quiet. ``holds``: scan nothing while a path of
    ``hold_while`` exists. Answer: ``TreeScanned`` or ``ScanFailed``, with the code ``hold_while`` in that case."""

    req: int
    base: HeadRef | None
    paths: tuple[bytes, ...] = ()
    is_deep: bool = False
    again: tuple[ScanProblem, ...] = ()
    reads_open: bool = False
    since: tuple[Checkpoint, ...] = ()
    lets_go: frozenset[bytes] = frozenset()
    hot: tuple[bytes, ...] = ()
    cooling: tuple[Cooling, ...] = ()
    holds: bool = False
    accepted: frozenset[bytes] = frozenset()
    is_whole: bool = False

    @property
    def is_full(self) -> bool:
        """Whether all of the tree is scanned, whatever is known of it."""
        return self.base is None or self.is_deep or not (self.paths or self.is_whole)


class Commit(MachineWord):
    """Sign and store the generation ``(epoch, number)`` with ``root`` and ``parent`` and keep its history; make the
    epoch record first where it is missing. In the same durable transaction save ``committed(facts, head)``, in order
    with every other ``SavePublish`` of the line: until the answer those are saved as ``LastCommit`` says. ``target``:
    the older generation that this one brings back whole. Answer: ``Committed`` or ``CommitFailed``."""

    req: int
    epoch: int
    number: int
    parent: HeadRef | None
    root: Digest
    entries: int
    size_bytes: int
    author: str
    message: str
    facts: PublishFacts
    target: HeadRef | None = None


class Announce(MachineWord):
    """Offer ``head`` to every partner that may have it; until then no partner learns of it."""

    head: HeadRef


class AskPartners(MachineWord):
    """Ask every listed partner for this line's epoch records and heads. Answer: ``PartnersAnswered``."""

    req: int


class GiveAnswer(MachineWord):
    """Answer the asker whose ``request`` number this is."""

    request: int
    outcome: Outcome


class PublishReport(MachineWord):
    """The writer's own standing of the line. The driver adds the wall clock."""

    standing: Standing
    code: str | None
    reason: str | None
    next_steps: tuple[str, ...]
    head: HeadRef | None


PublishEffect = LineEffect | SavePublish | Scan | Commit | Announce | AskPartners | GiveAnswer | PublishReport
