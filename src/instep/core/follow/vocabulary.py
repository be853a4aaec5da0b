"""Events, effects, facts and configuration of the ``FollowMachine``: one line at a partner.

Longer than 400 lines: it is one table of types, which is read beside the specification of the machine.
"""

from __future__ import annotations

import enum

import msgspec

from instep.core.heads.vocabulary import AskFailed as AskFailed
from instep.core.heads.vocabulary import AskHeads as AskHeads
from instep.core.heads.vocabulary import HeadsAnswered as HeadsAnswered
from instep.core.heads.vocabulary import HeadSeen as HeadSeen
from instep.core.heads.vocabulary import HeadSuperseded as HeadSuperseded
from instep.core.heads.vocabulary import OfferHead as OfferHead
from instep.core.heads.vocabulary import PollAsked as PollAsked
from instep.core.heads.vocabulary import SourceDown as SourceDown
from instep.core.heads.vocabulary import SourceNoticed as SourceNoticed
from instep.core.heads.vocabulary import SourceUp as SourceUp
from instep.core.heads.vocabulary import WordHeard as WordHeard
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
    PartnerReport,
    RequestDone,
    RequestFailed,
    Trouble,
)
from instep.core.vocabulary import Paused as Paused
from instep.core.vocabulary import Recover as Recover
from instep.core.vocabulary import RecoverFailed as RecoverFailed
from instep.core.vocabulary import Resumed as Resumed
from instep.core.vocabulary import RetryAsked as RetryAsked
from instep.core.vocabulary import Started as Started
from instep.model.ids import HeadRef, NodeName
from instep.model.rollout import DEFAULT_POLICY, Order, RolloutPolicy


class DriftPolicy(enum.Enum):
    REVERT = "revert"
    KEEP = "keep"
    OFFER = "offer"


class Due(enum.Enum):
    """The pending step of the apply of the tree's generation. It survives a crash: hooks are at least once."""

    NOTHING = ""
    RELOAD = "reload"
    PROBE = "probe"
    RECORD = "record"


class FollowConfig(MachineWord):
    """This node's own settings for following the line. Durations in ms.

    ``knows_orders`` when a rollout decides about the switch; ``orders_from`` is the node that may order, the
    writer when it is None (a hub, for a node behind it)."""

    writer: NodeName
    poll_ms: int = 30_000
    drift: DriftPolicy = DriftPolicy.REVERT
    drift_scan_ms: int = 600_000
    is_observing: bool = False
    has_gates: bool = False
    has_validate: bool = False
    has_reload: bool = False
    has_probe: bool = False
    retry_min_ms: int = 500
    retry_max_ms: int = 60_000
    knows_orders: bool = False
    orders_from: NodeName | None = None
    overrules: bool = False
    """An operator wrote another writer's name than the newest epoch record's."""


class FollowFacts(msgspec.Struct, frozen=True, array_like=True):
    """The state that must survive a crash; ``SaveFollow`` carries it, the machine is born with it.

    ``tree`` is the generation that the tree holds since the last finished switch; ``live`` the one that was recorded
    as live after reload and probe. ``refused`` is kept until a new head, a changed configuration or ``retry`` (P4).
    ``paused_until_wall_ms`` is opaque here: the driver sends ``Resumed`` when it has passed.

    ``order`` is the newest order; ``is_drained`` from before ``DrainNode`` until after ``Return``; ``replaced`` is
    the generation that ``live`` replaced; ``begun`` the head whose permit is in use until it is live or put back;
    ``unconfirmed`` the live head that waits for ``keep``; ``reloaded`` the serial of the last reload order that
    was begun. ``spent``: the highest permit of ``order``'s head that a refusal ended. ``is_doubted``: a recovery was
    in doubt about the tree, and the whole tree was not compared since.
    ``floor``: by its own record the tree held this generation, and the saved state knew only older ones."""

    version: int = 1
    head: HeadRef | None = None
    live: HeadRef | None = None
    tree: HeadRef | None = None
    due: Due = Due.NOTHING
    refused: HeadRef | None = None
    refused_code: str = ""
    refused_reason: str = ""
    is_paused: bool = False
    paused_reason: str = ""
    paused_until_wall_ms: int | None = None
    epochs: EpochBook = EpochBook()
    order: Order | None = None
    is_drained: bool = False
    replaced: HeadRef | None = None
    begun: HeadRef | None = None
    unconfirmed: HeadRef | None = None
    reloaded: int = 0
    is_doubted: bool = False
    floor: HeadRef | None = None
    spent: int = 0


# --- events -------------------------------------------------------------------------------------------------


class FollowConfigChanged(MachineWord):
    config: FollowConfig


class PagesFetched(MachineWord):
    """Answer to ``FetchPages``: all pages of the target's manifest and its definition are verified and stored
    durably, because a journal will name them. ``policy`` is its definition's rollout; ``is_reloaded`` is False where
    this node's reload hooks are all for paths that it does not change."""

    req: int
    policy: RolloutPolicy = DEFAULT_POLICY
    is_reloaded: bool = True


class Staged(RequestDone):
    """Answer to ``StageContents``: every content is staged, verified (P1), synced, and the stage is sealed."""


class StageFailed(RequestFailed): ...


class GatesChecked(MachineWord):
    """Answer to ``CheckGates``; ``refusal`` names both values and is None when all gates agree."""

    req: int
    refusal: Trouble | None = None


class TreeSwitched(MachineWord):
    """Answer to ``Switch``: the tree holds the target, directories synced. ``drifted`` are paths whose
    displaced object was not what the base said; they are in the archive as drift."""

    req: int
    drifted: tuple[bytes, ...] = ()


class SwitchFailed(RequestFailed):
    """Answer to ``Switch``: where the tree stands is for ``Recover`` to say, which the machine asks next."""


class LiveRecorded(RequestDone):
    """Answer to ``RecordLive``: durable."""


class RecordFailed(RequestFailed): ...


class PutBackDone(RequestDone):
    """Answer to ``PutBack``: the tree holds the target of the put-back."""


class PutBackFailed(RequestFailed):
    """Answer to ``PutBack``: where the tree stands is for ``Recover`` to say."""


class RecoveryKind(enum.Enum):
    NOTHING = "nothing"
    UNDONE = "undone"
    FINISHED = "finished"


class RecoveryEnded(MachineWord):
    """Answer to ``Recover``: the journal's verdict. ``target`` is the journal's; for ``finished`` the tree holds it.
    ``is_doubtful``: by its inodes the tree may not be the one of the journal; only a comparison of the whole tree
    shows what it holds. ``holds``: the tree's own record. ``is_known``: the state has all of ``target``."""

    req: int
    kind: RecoveryKind
    target: HeadRef | None = None
    is_doubtful: bool = False
    holds: HeadRef | None = None
    is_known: bool = True


class TreeTouched(MachineWord):
    """The watcher saw something that is not our own doing; ``is_overflow`` when it lost track."""

    paths: tuple[bytes, ...] = ()
    is_overflow: bool = False


class DriftChecked(MachineWord):
    """Answer to ``CheckDrift``: ``paths`` differ from the base (at most ``DRIFT_PATHS_MAX``), ``total`` in all.
    Programs (``writers``) or hooks of this node were seen writing some. ``cost`` is of a look at the whole tree."""

    req: int
    paths: tuple[bytes, ...]
    total: int
    writers: tuple[tuple[bytes, str], ...] = ()
    cost: ScanCost | None = None
    hook_writes: tuple[HookWrite, ...] = ()


class DriftCheckFailed(RequestFailed): ...


class Reverted(MachineWord):
    """Answer to ``Revert``: what became of ``paths`` in words; without words all were archived and restored."""

    req: int
    paths: tuple[bytes, ...]
    words: str = ""


class RevertFailed(RequestFailed): ...


class Compared(MachineWord):
    """Answer to ``CompareTree``: in how much the tree differs from the head; ``sample`` are some of the paths."""

    req: int
    added: int
    changed: int
    removed: int
    sample: tuple[bytes, ...] = ()
    trouble: Trouble | None = None


class NodeDrained(MachineWord):
    """Answer to ``DrainNode``: every prober knows, or the driver's deadline passed (``untold`` names those that
    did not ask in time)."""

    req: int
    untold: tuple[str, ...] = ()


class Returned(MachineWord):
    """Answer to ``Return``: the node is offered again."""

    req: int
    untold: tuple[str, ...] = ()


class OrderGiven(MachineWord):
    """A source sent the whole present order for this node (decoded and within its bounds)."""

    source: NodeName
    order: Order


class OffersChanged(MachineWord):
    """The paths that the ``OfferMachine`` of the line owns now: ``pending`` ones are submitted, accepted and not yet
    arrived, or edited under a lock, and stay as they are; ``lost`` ones were refused, and are archived and restored.
    ``trouble``: why the writer takes none of them now."""

    pending: tuple[bytes, ...] = ()
    lost: tuple[bytes, ...] = ()
    trouble: Trouble | None = None


FollowAnswer = (
    RecoveryEnded
    | RecoverFailed
    | PagesFetched
    | FetchFailed
    | HeadSuperseded
    | Staged
    | StageFailed
    | GatesChecked
    | HookEnded
    | TreeSwitched
    | SwitchFailed
    | LiveRecorded
    | RecordFailed
    | PutBackDone
    | PutBackFailed
    | DriftChecked
    | DriftCheckFailed
    | Reverted
    | RevertFailed
    | Compared
    | NodeDrained
    | Returned
)


class HookOwed(MachineWord):
    """A hook that the driver runs beside the machine (``thaw``) failed and is retried; None when it is no
    longer pending. Nothing waits for it, but the line does not stand well until then."""

    trouble: Trouble | None


FollowEvent = (
    LineEvent
    | FollowConfigChanged
    | SourceUp
    | SourceDown
    | SourceNoticed
    | WordHeard
    | HeadSeen
    | HeadsAnswered
    | AskFailed
    | FollowAnswer
    | TreeTouched
    | OffersChanged
    | PollAsked
    | OrderGiven
    | HookOwed
)


# --- effects ------------------------------------------------------------------------------------------------


class SaveFollow(MachineWord):
    """Make ``facts`` durable before any effect that follows."""

    facts: FollowFacts


class StageContents(MachineWord):
    """Stage ``head`` beside the tree that holds ``base``; resumable. Answer: ``Staged``, ``StageFailed``,
    ``HeadSuperseded``."""

    req: int
    source: NodeName
    head: HeadRef
    base: HeadRef | None


class CheckGates(MachineWord):
    """Answer: ``GatesChecked``."""

    req: int
    source: NodeName
    head: HeadRef


class Switch(MachineWord):
    """Make the sealed stage of ``head`` the tree. Answer: ``TreeSwitched`` or ``SwitchFailed``."""

    req: int
    head: HeadRef
    base: HeadRef | None


class RecordLive(MachineWord):
    """Record ``head`` as live and save ``facts`` in one durable transaction, performed in order with every
    other ``SaveFollow`` of the line (same queue); only then close the journal and empty the stage. Answer:
    ``LiveRecorded`` or ``RecordFailed``."""

    req: int
    head: HeadRef
    base: HeadRef | None
    facts: FollowFacts


class PutBack(MachineWord):
    """Return the tree, which holds ``base``, to ``head``, from the archive (and from ``source`` where that is
    not enough). Answer: ``PutBackDone`` or ``PutBackFailed``."""

    req: int
    head: HeadRef
    base: HeadRef
    source: NodeName | None = None


class CheckDrift(MachineWord):
    """Compare the tree with ``base``: the named paths, or all when ``paths`` is empty. Answer:
    ``DriftChecked`` or ``DriftCheckFailed``."""

    req: int
    base: HeadRef
    paths: tuple[bytes, ...] = ()


class Revert(MachineWord):
    """Archive what lies at ``paths`` and restore them as ``base`` says. Answer: ``Reverted`` or ``RevertFailed``."""

    req: int
    base: HeadRef
    paths: tuple[bytes, ...]
    source: NodeName | None


class DrainNode(MachineWord):
    """Take this node out of its balancers before ``head`` comes. Answer: ``NodeDrained``, always, within the
    driver's deadline. Idempotent: it is asked again after a crash."""

    req: int
    head: HeadRef


class Return(MachineWord):
    """Offer this node again. Answer: ``Returned``, always, within the driver's deadline. Idempotent."""

    req: int


class CompareTree(MachineWord):
    """Observing: compare the tree with ``head`` without writing anything. Answer: ``Compared``."""

    req: int
    head: HeadRef


class DropStage(MachineWord):
    """Empty the staging area; no answer."""


class FollowReport(PartnerReport):
    """The line's standing here changed, or its head, live or tree did: show it and send it to every source. The
    driver adds the wall clock (``since`` moves only when standing or code changed)."""

    next_steps: tuple[str, ...] = ()


FollowEffect = (
    LineEffect
    | SaveFollow
    | StageContents
    | CheckGates
    | Switch
    | RecordLive
    | PutBack
    | CheckDrift
    | Revert
    | CompareTree
    | DrainNode
    | Return
    | AskHeads
    | OfferHead
    | DropStage
    | FollowReport
)
