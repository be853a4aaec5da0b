"""How a simulated partner switches its tree: journaled, one step a moment, any step may fail with any errno.

A job that fails is undone at once where that can be; else its journal stays for recovery, which finishes it, undoes it
or says why neither can be. The real tree does the same; the machine's reaction is under test.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef, LineId
from instep.model.manifest.check import missing
from instep.model.manifest.diff import diff
from instep.testing.checkers.ledger import Ledger
from instep.testing.world.disk import ERRNOS, Plan, SimJournal, StepFailed
from instep.testing.world.network import Network
from instep.testing.world.node import SimNode, trouble
from instep.testing.world.world import BrokenPromise, World

RESOURCES_EXIT = 8
UNDONE_WITHIN = 2
"""So many poll intervals after nothing stands against it, an interrupted switch is undone or finished."""
Answer = Callable[[Trouble], Any]


class TreeJobs(SimNode):
    """Apply, revert, put-back and recovery of one tree, and the rules between them."""

    machine: FollowMachine
    config: f.FollowConfig
    ledger: Ledger
    sources: tuple[str, ...]

    def __init__(self, world: World, net: Network, name: str, line: LineId) -> None:
        super().__init__(world, net, name, line)
        self.switching: Plan | None = None
        """The steps of an interrupted job whose paths no operator wrote since."""
        self.is_switching = False
        """A job is between its first step and its answer."""
        self.is_unproven = False
        """Recovery took a copied tree for switched; no whole look has found the tree right since."""
        self._open_since: int | None = None
        """Since when a journal lies open that nothing keeps from being undone."""

    @abstractmethod
    def begins_job(self, head: HeadRef) -> None:
        """The tree is about to be made ``head``."""

    @abstractmethod
    def was_undone(self) -> None:
        """Recovery undid a switch."""

    def on_crash(self) -> None:
        self.is_switching = False
        self._open_since = None
        journal = self.place.journal
        if journal is not None and not journal.is_finished and self.fails(self.world.options.copied):
            self.world.record(self.name, "!", "the disk comes back file by file")
            self.place.is_copied = True
            self.switching = None

    def plan_of(self, base: HeadRef | None, target: HeadRef) -> Plan:
        if base is not None:
            return [
                (c.path, c.old.digest if c.old else None, c.new.digest if c.new else None)
                for c in diff(base.root, target.root, self.store.get_page)
            ]
        return self.place.plan_to(self.store.entries(target.root))

    def breaks(self) -> str | None:
        """The errno that staging, sealing or recording meets now, in the middle of its work."""
        share = self.world.options.work_fails
        return self.rng.choice(ERRNOS) if share and self.fails(share) else None

    # --- forward --------------------------------------------------------------------------------------------

    def go(
        self,
        head: HeadRef,
        plan: Plan,
        done: Callable[[tuple[bytes, ...]], Any],
        failed: Answer,
        *,
        archives: bool = True,
    ) -> None:
        """Write the journal, then one step a moment, so that a crash or an edit can fall between any two."""
        self.begins_job(head)
        assert self.place.journal is None or self.place.journal.is_finished, (
            "a switch began while another was not finished"
        )
        journal = SimJournal(head, plan, archives=archives)
        there = self.place.digests()
        self.switching = [step for step in plan if there.get(step[0]) == step[1] != step[2]]
        if self.world.plant != "no_journal":
            self.place.journal = journal
        self.is_switching = True
        steps = self.place.steps(journal, self.fault)

        def ended(drifted: tuple[bytes, ...]) -> None:
            self.switching = None
            self.place.holds = head
            self._answer(done(drifted))

        def broke(error: StepFailed) -> None:
            self._take_back(journal, error, failed)

        self.later(0.3, lambda: self._walk(steps, ended, broke))

    def _walk(
        self,
        steps: Iterator[bytes | None],
        done: Callable[[tuple[bytes, ...]], None],
        broke: Callable[[StepFailed], None],
    ) -> None:
        def failed(error: StepFailed) -> None:
            self.world.record(self.name, "!", f"a step fails: {error.args[0]} at {error.args[1]!r}")
            broke(error)

        self.walk(steps, lambda: self.rng.uniform(0, 2) * self.world.options.step_ms, done, failed)

    # --- back -----------------------------------------------------------------------------------------------

    def _take_back(self, journal: SimJournal, cause: StepFailed, failed: Answer) -> None:
        """Undo, or leave that to the recovery; the job has failed anyway. ``cause`` is the reported error."""
        if self.world.plant == "never_undone" or self.rng.random() < 0.5:
            self._answer(failed(_failed(cause)))
            return

        def undone(_: object) -> None:
            self._undone(journal)
            self._check_whole()
            self._answer(failed(_failed(cause)))

        self._walk(self.place.undo(journal, self.fault), undone, lambda e: self._answer(failed(_half(e))))

    def _undone(self, journal: SimJournal) -> None:
        if journal.target != self.machine.facts.tree:  # else it was a revert
            self.was_undone()

    def _answer(self, event: Any) -> None:
        """The job is over when its answer is heard."""
        self.post(event)
        self.later(0, self._end)

    def _end(self) -> None:
        self.is_switching = False
        self.check_offered()

    def recover(self, req: int) -> None:
        """An open switch is finished, else undone; ``RecoverFailed`` says that it is neither."""
        place, journal = self.place, self.place.journal
        if not place.has_marker:
            self.post(f.RecoverFailed(req, trouble("marker_missing", 4)))
        elif self.fails(self.world.options.read_error):
            self.post(f.RecoverFailed(req, trouble("read_error", RESOURCES_EXIT)))
        elif journal is None:
            self._check_whole()
            self.post(f.RecoveryEnded(req, f.RecoveryKind.NOTHING, holds=place.holds))
        elif journal.is_finished:
            self.post(self._said_finished(req, journal.target, is_doubtful=self.is_unproven))
        elif journal.is_undoing or (self.rng.random() < 0.3 and self.world.plant != "never_undone"):
            self._undo(req, journal)
        else:
            self.is_switching = True
            steps = place.steps(journal, self.fault)
            self._walk(
                steps, lambda _: self._finished(req, journal), lambda e: self._unfinished(req, journal, e)
            )

    def _said_finished(self, req: int, target: HeadRef, *, is_doubtful: bool) -> f.RecoveryEnded:
        """It is known when the state has the record and the pages of the generation."""
        is_known = target.id in self.store.generations and not missing(target.root, self.store.pages.get)
        return f.RecoveryEnded(req, f.RecoveryKind.FINISHED, target, is_doubtful, is_known=is_known)

    def _unfinished(self, req: int, journal: SimJournal, error: StepFailed) -> None:
        if self.world.plant == "never_undone":
            self._answer(f.RecoverFailed(req, _half(error)))
        else:
            self._undo(req, journal)

    def _finished(self, req: int, journal: SimJournal) -> None:
        is_doubtful, self.place.is_copied = self.place.is_copied, False
        self.place.holds = journal.target
        if is_doubtful:
            self.switching = None
            self.is_unproven = True
        self._check_whole()
        self._answer(self._said_finished(req, journal.target, is_doubtful=is_doubtful))

    def _undo(self, req: int, journal: SimJournal) -> None:
        self.is_switching = True
        self.place.is_copied = False

        def undone(_: object) -> None:
            self._undone(journal)
            self._check_whole()
            self._answer(f.RecoveryEnded(req, f.RecoveryKind.UNDONE, journal.target, holds=self.place.holds))

        def stuck(error: StepFailed) -> None:
            self._answer(f.RecoverFailed(req, _half(error)))

        self._walk(self.place.undo(journal, self.fault), undone, stuck)

    # --- what must hold -------------------------------------------------------------------------------------

    def _check_whole(self) -> None:
        """P2, seen from outside: after recovery the paths of an interrupted switch that no operator wrote are all
        old or all new."""
        plan, self.switching = self.switching, None
        if plan is None:
            return
        there = self.place.digests()
        old = [path for path, before, _ in plan if there.get(path) == before]
        new = [path for path, _, after in plan if there.get(path) == after]
        if old and new:
            raise BrokenPromise(
                "P2", f"{self.name} rests between two generations: {old[:2]} old, {new[:2]} new"
            )

    def check_offered(self) -> None:
        """P2: a tree of two generations is never called whole, whatever error left it so."""
        journal = self.place.journal
        self._check_undone(journal)
        if self.machine.is_torn or self.is_switching:
            return
        if journal is not None and not journal.is_finished:
            raise BrokenPromise("P2", f"{self.name} calls a half-switched tree whole")
        if self.is_unproven and self.config.drift is f.DriftPolicy.REVERT:
            raise BrokenPromise(
                "P2", f"{self.name} calls a tree whole that was not compared after a recovery"
            )

    def _check_undone(self, journal: SimJournal | None) -> None:
        """A switch that cannot go on is undone within a bound once that can be. Attempts, of which one comes every poll
        interval, do not begin the time anew."""
        options = self.world.options
        is_quiet = not options.step_fails and not options.read_error and self.place.has_marker
        is_open = journal is not None and not journal.is_finished
        if not is_open or not is_quiet or any(p in self.place.stuck for p in journal.displaced):  # type: ignore[union-attr]
            self._open_since = None
        elif self._open_since is None:
            self._open_since = self.world.now
        elif not self.is_switching and self.world.now - self._open_since > UNDONE_WITHIN * options.poll_ms:
            raise BrokenPromise("P2", f"{self.name} could undo its half switch, and did not")


def _failed(error: StepFailed) -> Trouble:
    return Trouble(error.args[0], f"{error.args[0]} at {error.args[1]!r}", Retry.LATER, RESOURCES_EXIT)


def _half(error: StepFailed) -> Trouble:
    reason = f"neither finished nor undone: {error.args[0]} at {error.args[1]!r}"
    return Trouble("half_switched", reason, Retry.LATER, RESOURCES_EXIT)
