"""The ground floor of the ``PublishMachine``: its state, and the small parts that every floor above uses."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from instep.core.authors import fit, joined, lines
from instep.core.backoff import Chance
from instep.core.guards.held import NOTHING_HELD, HeldPaths
from instep.core.guards.hot import HotFiles
from instep.core.hook_writes import HookLoop
from instep.core.line_machine import LineJob, LineMachine
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.hold import PublishHold
from instep.core.publish.right_to_write import owes_a_generation, why_not_writer
from instep.core.publish.unpublished import Unpublished
from instep.core.publish.vocabulary import PublishConfig, PublishFacts, ScanSummary
from instep.core.rescan import ScanCost
from instep.core.vocabulary import Refuse, SetTimer, Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef, LineId, NodeName


class PublishPhase(enum.Enum):
    SCAN = "scan"
    VALIDATE = "validate"
    RELOAD = "reload"
    COMMIT = "commit"
    RESTORE = "restore"
    FETCH = "fetch"
    PLAN = "plan"
    RECOVER = "recover"


PublishJob = LineJob[PublishPhase]


def sharing(requests: Sequence[p.PublishAsked]) -> tuple[p.PublishAsked, ...]:
    """The first of the requests, and all that one run can carry out with it: no dry run, and no more than fit as
    authors of one generation."""
    shared = [requests[0]]
    for request in requests[1:]:
        if request.is_dry_run or requests[0].is_dry_run:
            continue
        together = (*shared, request)
        if not fit([r.author for r in together], [r.message for r in together]):
            break
        shared.append(request)
    return tuple(shared)


@dataclass(slots=True)
class Run:
    """One way from scan to announcement, for the requests that waited when it began."""

    parent: HeadRef | None
    base: HeadRef | None
    requests: tuple[p.PublishAsked, ...]
    restore: s.RestoreAsked | None = None
    plan: s.RestorePlan | None = None
    is_restored: bool = False
    left: HeldPaths = NOTHING_HELD
    """The paths that the restore could not bring to their target entries."""
    is_look: bool = False
    """Scans only to say whether the tree differs: nothing is published."""
    is_hook: bool = False
    """Runs the reload hook that was added, for the present generation: nothing is scanned or published."""
    summary: ScanSummary | None = None
    would: p.WouldPublish | None = None
    """The answer of a dry run, which a hook has still to check."""
    is_validated: bool = False
    is_reloaded: bool = False
    committing: PublishFacts | None = None
    twins: tuple[tuple[NodeName, HeadRef], ...] = ()
    """The generations that exist twice, as far as they were known when it began."""

    @property
    def is_asked(self) -> bool:
        return self.restore is not None or bool(self.requests)

    @property
    def is_by_hand(self) -> bool:
        """An operator asked for it, and not only a command that waits."""
        return self.restore is not None or any(not request.is_flush for request in self.requests)

    @property
    def author(self) -> str:
        if self.restore is not None:
            return self.restore.author
        return joined(request.author for request in self.requests)

    @property
    def message(self) -> str:
        return self.restore.message if self.restore is not None else lines(r.message for r in self.requests)

    @property
    def is_dry(self) -> bool:
        return bool(self.requests) and self.requests[0].is_dry_run

    @property
    def accepts_deletions(self) -> bool:
        asked = (*self.requests, *(() if self.restore is None else (self.restore,)))
        return any(r.accept_deletions for r in asked)

    @property
    def accepted(self) -> frozenset[bytes]:
        """The paths whose losses are meant."""
        return frozenset(path for request in self.requests for path in request.accepted)

    @property
    def is_over(self) -> bool:
        """An operator said that the tree is right, whatever newer head was adopted."""
        return any(r.is_over for r in self.requests)

    def lets_go(self, held: HeldPaths) -> frozenset[bytes]:
        """The held paths whose last entries the requests let go of."""
        chosen = [r.accept_held for r in self.requests if r.accept_held is not None]
        named = frozenset(path for paths in chosen for path in paths)
        return named if all(chosen) else named | frozenset(held.paths)

    @property
    def numbers(self) -> tuple[int, ...]:
        own = () if self.restore is None else (self.restore.request,)
        return (*own, *(r.request for r in self.requests))


Request = p.PublishAsked | s.RestoreAsked


class PublishState(LineMachine[PublishFacts, PublishConfig, PublishPhase, s.WriterEffect, p.PublishReport]):
    """One own line."""

    def __init__(
        self, line: LineId, config: PublishConfig, rng: Chance, facts: PublishFacts | None = None
    ) -> None:
        super().__init__(line, config, rng, facts or PublishFacts())
        self._run: Run | None = None
        self._requests: list[Request] = []
        self._unpublished = Unpublished()
        self._hot = HotFiles()
        self._hook_loop = HookLoop()
        self._holding = PublishHold()
        self._is_hook_due = False
        self._cost: ScanCost | None = None
        """Of the last full scan."""
        self._due_shown: int | None = None
        self._trouble: Trouble | None = None
        self._ask_req: int | None = None
        self._ask_until_ms = 0
        self._asked_at_ms = 0
        self._is_asked = False
        self._is_surveyed = False
        self._was_away = False
        """The root was out of sight, and the tree was not looked at since."""
        self._pages_from: dict[NodeName, None] = {}
        self._adopt_tries = 0
        self._holders: dict[NodeName, None] = {}
        """Partners that reported the head that is known here."""
        self._heard: dict[NodeName, p.HeadOfOursSeen] = {}
        """Heads of ours that partners reported while a commit was under way: they are judged after its answer."""
        self._difference: ScanSummary | None = None
        """Of the tree and an adopted head, as the last scan found it."""
        self._is_different = False
        """The last look found changes that wait for ``instep publish``."""
        self._must_look = False
        self._needs_recovery = True
        self._recover_trouble: Trouble | None = None
        self._announced: HeadRef | None = None

    @property
    def waits_for_path(self) -> Trouble | None:
        """Why publishing by itself waits for a path of ``hold_while``."""
        return self._holding.trouble

    def _not_the_writer(self) -> Trouble | None:
        return why_not_writer(self.line, self._facts, self._config.node)

    def _new_run(
        self,
        requests: tuple[p.PublishAsked, ...],
        restore: s.RestoreAsked | None = None,
        *,
        is_look: bool = False,
        is_hook: bool = False,
    ) -> Run:
        facts = self._facts
        return Run(
            facts.head, facts.base, requests, restore, is_look=is_look, is_hook=is_hook, twins=facts.twins
        )

    @property
    def _is_run_passed(self) -> bool:
        """Whether the head moved, or a number came to exist twice, since the run began."""
        run = self._run
        return run is not None and (run.parent, run.twins) != (self._facts.head, self._facts.twins)

    @property
    def _is_run_stopped(self) -> bool:
        """Whether the run under way may not go on: looks go on where this node is read-only."""
        run = self._run
        if run is None:
            return False
        is_kept_back = self._config.read_only is not None and not (run.is_look or run.is_hook)
        is_held = self._facts.is_paused or self._not_the_writer() is not None
        return self._is_run_passed or is_held or is_kept_back

    def _owes(self) -> bool:
        """Whether a generation has to come by itself, because this node writes the line anew."""
        return self._config.read_only is None and owes_a_generation(self._facts, self._config.node)

    def _retry_later(self, key: str) -> None:
        self._hold_back(key, self._config.retry_min_ms, self._config.retry_max_ms)

    def _refuse(self, source: NodeName, code: str, reason: str) -> None:
        self._out.append(Refuse(source, Trouble(code, reason, Retry.NEVER, 9)))

    def _end_run(self, outcome: p.Outcome) -> None:
        run = self._run
        assert run is not None
        self._run = None
        for number in run.numbers:
            self._out.append(p.GiveAnswer(number, outcome))

    def _hold_run(self, trouble: Trouble) -> None:
        """The operator has to decide: nothing is retried by itself, but the tree is looked at when it changes."""
        self._trouble = None
        self._unpublished.give_back()
        self._end_run(p.NotPublished(trouble))

    def _fail_run(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self._unpublished.give_back()
        self._retry_later("publish")
        self._end_run(p.NotPublished(trouble))

    def _succeed(self) -> None:
        self._trouble = None
        self._backoff.clear("publish")
        self._out.append(SetTimer("retry-publish", None))
