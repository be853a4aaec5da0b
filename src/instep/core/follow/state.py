"""The shared state of the ``FollowMachine``'s floors: its facts, its one job, how far the apply is, small parts.

The machine is one class in floors, each in a file of its own and calling only lower ones: state, heads,
permits, due, drift, apply, and on top the machine itself (``core/follow/machine.py``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from instep.core.backoff import Chance
from instep.core.follow import vocabulary as f
from instep.core.follow.fights import DriftView
from instep.core.follow.floor import is_below
from instep.core.follow.vocabulary import Due, FollowConfig, FollowEffect, FollowFacts
from instep.core.heads.line_heads import LineHeads
from instep.core.heads.stand import named as named
from instep.core.hook_writes import HookLoop
from instep.core.line_machine import LineJob
from instep.core.lines.accept import is_left_behind
from instep.core.rescan import ScanCost
from instep.core.vocabulary import Trouble
from instep.model.ids import Digest, HeadRef, LineId
from instep.model.paths import shown
from instep.model.rollout import DEFAULT_POLICY, RolloutPolicy

NAMED_MAX = 20
"""So many paths or names a note carries."""


class FollowPhase(enum.Enum):
    RECOVER = "recover"
    FETCH = "fetch"
    STAGE = "stage"
    GATES = "gates"
    VALIDATE = "validate"
    SWITCH = "switch"
    RELOAD = "reload"
    PROBE = "probe"
    RECORD = "record"
    PUT_BACK = "put_back"
    CHECK = "check"
    REVERT = "revert"
    COMPARE = "compare"
    DRAIN = "drain"
    RETURN = "return"


INTERRUPTIBLE = (FollowPhase.FETCH, FollowPhase.STAGE, FollowPhase.GATES)
QUIET = (FollowPhase.RECOVER, FollowPhase.CHECK, FollowPhase.COMPARE)


FollowJob = LineJob[FollowPhase]


@dataclass(slots=True)
class Progress:
    """How far the apply of ``target`` has come since start. Volatile: staging is resumable."""

    target: HeadRef
    is_fetched: bool = False
    is_staged: bool = False
    is_gated: bool = False
    is_validated: bool = False
    policy: RolloutPolicy = DEFAULT_POLICY
    is_reloaded: bool = True

    def needs_permit(self, config: FollowConfig) -> bool:
        """Whether the switch waits for the writer's permit: a switch that reloads nothing disturbs no client."""
        return self.policy.needs_permit(has_reload=config.has_reload and self.is_reloaded)


class FollowState(LineHeads[FollowFacts, FollowConfig, FollowPhase, FollowEffect, f.FollowReport]):
    """The machine's state."""

    def __init__(
        self, line: LineId, config: FollowConfig, rng: Chance, facts: FollowFacts | None = None
    ) -> None:
        super().__init__(line, config, rng, facts or FollowFacts())
        self._is_recovered = False
        self._progress: Progress | None = None
        self._troubles: dict[str, Trouble] = {}
        self._owed: Trouble | None = None
        self._stuck: Digest | None = None
        self._failed_switch: tuple[Digest, Trouble] | None = None
        """Whose switch failed last, and of what: until it succeeds, the steps before it are no success."""
        self._is_forgiven = False
        self._supersedes = 0
        self._sticky: HeadRef | None = None
        self._drift = DriftView()
        self._offers = f.OffersChanged()
        self._hook_loop = HookLoop()
        self._is_hook_added = False
        self._drift_ready_ms = 0
        self._scan_cost = ScanCost()
        self._compared: f.Compared | None = None
        self._compared_with: Digest | None = None
        self._is_told_out = False

    @property
    def is_torn(self) -> bool:
        """Whether the tree may hold parts of two generations: an interrupted switch was not brought to an end yet, or
        was, and only a comparison of the whole tree can show what it holds. Such a tree is offered to no node."""
        return not self._is_recovered or self._facts.is_doubted

    def _fail(self, key: str, trouble: Trouble, least_ms: int | None = None) -> None:
        self._troubles[key] = trouble
        self._hold_back(key, least_ms or self._config.retry_min_ms, self._retry_most())

    def _succeed(self, key: str) -> None:
        self._troubles.pop(key, None)
        self._backoff.clear(key)

    def _forgive(self) -> None:
        """Forget the refused generation; a put-back that runs, or whose journal may be open, is ended first."""
        facts = self._facts
        if facts.refused is None:
            return
        if self._may_be_put_back():
            self._is_forgiven = True
            return
        if facts.refused == facts.tree:
            self._succeed("due")  # The obstacle to going back is over with the wish to go back.
            if self._is_recovered and self._job is None:
                self._progress = None
                self._out.append(f.DropStage())
        self._forget_refusal()
        self._set(due=Due.RELOAD if facts.refused == facts.tree and facts.tree != facts.live else facts.due)

    def _forget_refusal(self) -> None:
        self._set(refused=None, refused_code="", refused_reason="")

    def _may_be_put_back(self) -> bool:
        """Whether the tree may fall by a put-back: one runs, or the recovery has not said yet what became
        of the last one. Until then the refusal stays, since it says why the tree falls (P4)."""
        if self._job is not None and self._job.phase is FollowPhase.PUT_BACK:
            return True
        return not self._is_recovered and self._facts.refused == self._facts.tree

    def _is_leaving_another(self, head: HeadRef) -> bool:
        """Whether the tree must still be put back from a refused generation that is not ``head``: that refusal
        is kept until the generation is out of the tree, and ``head`` is retried and refused then."""
        refused, job = self._facts.refused, self._job
        is_leaving = refused is not None and refused == self._facts.tree and refused != head
        return is_leaving and not (job is not None and job.phase is FollowPhase.SWITCH and job.head == head)

    def _forgive_late(self) -> None:
        """The put-back has ended: forget the refused generation if an operator or an order asked for that meanwhile."""
        if self._is_forgiven:
            self._is_forgiven = False
            self._forgive()

    def _refuse(self, head: HeadRef, code: str, trouble: Trouble) -> None:
        reason = trouble.reason
        self._spend_permit(head)
        if self._is_leaving_another(head):
            self._fail("apply", trouble)
            return
        self._is_forgiven = False
        self._set(refused=head, refused_code=code, refused_reason=reason[:1000])
        self._note(code, f"generation {head.number} is refused: {reason}", generation=head.number)

    def _spend_permit(self, head: HeadRef) -> None:
        """A permit ends with the refusal of its head: on a retry the node waits for its turn like all others."""
        order = self._facts.order
        if order is not None and order.head == head:
            self._set(spent=max(self._facts.spent, order.permit))

    def _wanted(self) -> HeadRef | None:
        """The generation to apply, or None when the tree holds it or something stands against it."""
        facts = self._facts
        if self._config.is_observing or facts.epochs.disputed is not None:
            return None
        if self._sticky is not None and self._sticky != facts.refused:
            return self._sticky
        head = facts.head
        if head is None or head in (facts.tree, facts.refused) or head.id == self._stuck:
            return None
        if facts.tree is not None and head.position <= facts.tree.position:
            return None
        if is_below(head, facts.floor):
            return None
        if is_left_behind(head, facts.epochs):
            return None
        return head

    def _is_going_back(self, head: HeadRef) -> bool:
        live = self._facts.live
        return live is not None and head.position < live.position

    def _passed(self, what: str) -> None:
        assert self._progress is not None
        setattr(self._progress, what, True)
        failed = self._failed_switch
        if failed is not None and failed[0] == self._progress.target.id:
            # The back-off belongs to the switch, and the switch comes later.
            self._troubles["apply"] = failed[1]
        else:
            self._succeed("apply")


def named_paths(paths: tuple[bytes, ...]) -> tuple[str, list[str]]:
    """Paths in words, and the first of them as a note carries them."""
    first = [shown(path) for path in paths[:NAMED_MAX]]
    more = f" and {len(paths) - NAMED_MAX} more" if len(paths) > NAMED_MAX else ""
    return ", ".join(first) + more, first
