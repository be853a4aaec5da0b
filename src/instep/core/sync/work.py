"""What a sync run asks of its node, the answers, and its work until now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from instep.core.sync.plan import LeftOut, Listed, SyncPlan, SyncStep
from instep.core.sync.table import GateRow, Side
from instep.errors import InstepError
from instep.model.change import PathChange, PathOutcome
from instep.model.external import External
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry
from instep.model.sync import Rollback, SentChanges, SyncBase, SyncMark, SyncPhase, WaitingTree


class ReadBases(NamedTuple):
    """Read the bases that both homes keep. Answered by them."""


class KnownBases(NamedTuple):
    """The bases of the home that carries the run out, and the other home's marks of them, the newest last. ``since``:
    the changes that a run sent which went from the newest common base and ended without one; both homes still have the
    generations that it saw. ``made``: of these, the changes that homes made."""

    bases: tuple[SyncBase, ...]
    marks: tuple[SyncMark, ...]
    since: SentChanges | None = None
    made: tuple[WaitingTree, ...] = ()


class KeepBase(NamedTuple):
    """Have both homes keep a new base, this one last. Answered by nothing."""

    base: SyncBase


class LookAtHomes(NamedTuple):
    """Have both homes publish what was saved before, and get the pages of their heads. Those of ``known`` are here."""

    known: Digest


class HeldBack(NamedTuple):
    """Paths that change sets made at a home and that it has not published, for this reason."""

    paths: int
    reason: str


class Looked(NamedTuple):
    """The heads of both homes. Their pages are here. ``withheld``: no run begins before these are published.
    ``rollbacks``: the generations of the left and of the right that brought an older one back, the newest last.
    ``refused``: why partners of a side refused its head."""

    left: HeadRef
    right: HeadRef
    withheld: tuple[tuple[Side, HeldBack], ...] = ()
    rollbacks: tuple[tuple[Rollback, ...], tuple[Rollback, ...]] = ((), ())
    refused: tuple[tuple[Side, str], ...] = ()

    def of(self, side: Side) -> HeadRef:
        return self.left if side is Side.LEFT else self.right

    def rollbacks_of(self, side: Side) -> tuple[Rollback, ...]:
        return self.rollbacks[0 if side is Side.LEFT else 1]


class TakeWaiting(NamedTuple):
    """Change a base by what homes had made and not published, where their heads are not as before that. Answered by the
    root."""

    root: Digest
    waiting: tuple[WaitingTree, ...]
    left: Digest
    right: Digest


class FindAgain(NamedTuple):
    """Look whether a tree has all of these changes just so. Answered by that."""

    root: Digest
    changes: tuple[PathChange, ...]


class AwaitPartners(NamedTuple):
    """Wait until the partners of a side have its newest generation, or refused it. Answered by the reason of the
    refusal, which is empty where there is none, or where it takes them too long."""

    side: Side


class MakePlan(NamedTuple):
    """Reconcile three trees by the rules of the profile; of a first run, all goes one way. Answered by the plan."""

    base: Digest
    left: Digest
    right: Digest
    initial: Side | None = None


class SideChanges(NamedTuple):
    """One change set for the home of one side. ``sources``: where the other side has each content that it brings."""

    side: Side
    changes: tuple[PathChange, ...]
    sources: Mapping[Digest, Entry]


class RecordChanges(NamedTuple):
    """Keep a record of the changes that are about to be sent, in place of the one before. The ids of their sets join it
    before each is sent. Answered by nothing."""

    sent: SentChanges | None


class SendChanges(NamedTuple):
    """Have one home, or both at once, decide about a change set each. No home changes its tree before the contents that
    come from it are sent. Answered by the homes' answers, in this order."""

    parts: tuple[SideChanges, ...]


class FindOthers(NamedTuple):
    """Compare the trees of one side before and after its changes. Answered by whether any path but ``wanted`` differs,
    or one of these is another than wanted: people worked meanwhile."""

    side: Side
    before: Digest
    after: Digest
    wanted: Mapping[bytes, Entry | None]


class EditBase(NamedTuple):
    """Make the manifest of a base with these changes, durably. Answered by its root."""

    root: Digest
    changes: tuple[tuple[bytes, Entry | None], ...]


SyncRequest = (
    SyncPhase
    | ReadBases
    | LookAtHomes
    | TakeWaiting
    | MakePlan
    | FindAgain
    | RecordChanges
    | SendChanges
    | AwaitPartners
    | FindOthers
    | EditBase
    | KeepBase
)
"""What a run asks for; a phase is said as it begins, and answered by nothing."""


@dataclass(slots=True)
class SyncWork:
    """What a run did until now. ``undone`` are paths that a home did not change, by side."""

    author: str
    message: str
    began_at_ms: int
    is_dry_run: bool = False
    initial: Side | None = None
    accepts_rollback: bool = False
    accepts_deletions: bool = False
    retries_refused: bool = False
    """Bring to a side once more what its partners refused."""
    number: int = 0
    ended_at_ms: int | None = None
    phase: SyncPhase = SyncPhase.FLUSHING
    rounds: int = 0
    done: int = 0
    total: int = 0
    steps: tuple[SyncStep, ...] = ()
    listed: list[Listed] = field(default_factory=list)
    undone: list[tuple[Side, PathOutcome]] = field(default_factory=list)
    withheld: dict[Side, HeldBack] = field(default_factory=dict)
    """What a home made in the last round and did not publish."""
    made: dict[Side, int] = field(default_factory=lambda: dict.fromkeys(Side, 0))
    heads: dict[Side, HeadRef] = field(default_factory=dict)
    external: dict[Side, tuple[External, ...]] = field(default_factory=dict)
    gates: tuple[GateRow, ...] = ()
    ignores: dict[Side, tuple[str, ...]] = field(default_factory=dict)
    """The ignore patterns of each home."""
    left_out: tuple[LeftOut, ...] = ()
    """What one home alone ignores, as the last plan found it."""
    error: InstepError | None = None

    @property
    def ended(self) -> SyncPhase:
        """How a run that came to its end has ended."""
        if self.error is not None:
            return SyncPhase.HELD
        return SyncPhase.INCOMPLETE if self.undone else SyncPhase.DONE

    @property
    def percent(self) -> int:
        return (
            100
            if self.phase in (SyncPhase.DONE, SyncPhase.INCOMPLETE)
            else min(99, 100 * self.done // self.total if self.total else 0)
        )

    def planned(self, plan: SyncPlan) -> None:
        """Show the plan of a round: the paths of the first one, and all that people should look at."""
        known = {(each.path, each.copy) for each in self.listed}
        self.listed += [each for each in plan.listed if (each.path, each.copy) not in known]
        self.gates, self.left_out = plan.gates, plan.left_out
        if self.rounds == 0:
            self.steps = plan.steps
        self.total += sum(step.changes_left + step.changes_right for step in plan.steps)
