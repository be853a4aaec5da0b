"""The simulated writer going back: rollback, restore and recovery, with a fault or a crash between any two steps.

Checked from outside: nothing is scanned or committed while a journal is open, so no generation is a mixture; a
rollback commits exactly the root of its target; and a writer that came back with an older tree or state publishes
nothing over a newer head of its own until the tree was that head, or an operator said which of the two is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from instep.core.guards.losses import lost_between
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.pages import PageMissing
from instep.testing.world.disk import SimJournal, StepFailed
from instep.testing.world.node import trouble
from instep.testing.world.world import BrokenPromise
from instep.testing.writers.writer_base import WriterBase
from instep.testing.writers.writer_scan import compared

MESSAGE = "back to "


class SimRestores:
    """The acts of one simulated writer on its own tree besides scanning it."""

    def __init__(self, writer: WriterBase) -> None:
        self._writer = writer
        self._targets: dict[str, HeadRef] = {}
        self.accepting: dict[int, None] = {}
        self._came_back_with: tuple[int, int] | None = None
        """The position of the head that an older state knew; None once nothing has to be decided any more."""

    # --- operators ------------------------------------------------------------------------------------------

    def ask(self, target: HeadRef, *, accept_deletions: bool = False) -> None:
        """An operator types ``instep rollback`` (or ``instep restore``, for the head)."""
        writer = self._writer
        if not writer.is_alive:
            return
        request = writer.new_request()
        if accept_deletions:
            self.accepting[request] = None
        self.decided()
        message = f"{MESSAGE}{target.epoch}.{target.number}"
        self._targets[message] = target
        writer.take(s.RestoreAsked(request, target, (), "ana", message, accept_deletions, publishes=True))

    def came_back(self, facts: p.PublishFacts | None) -> None:
        """The node directory, and maybe the tree, were put back to an older copy."""
        head = facts.head if facts is not None else None
        self._came_back_with = head.position if head is not None else (0, 0)
        self._writer.guard.put_back()
        ledger = self._writer.ledger
        ledger.lost.came_back(ledger.committed, self._writer.store.generations)

    def decided(self) -> None:
        """An operator said that the tree is right, or which generation is."""
        self._came_back_with = None
        self._writer.ledger.lost.decided()

    # --- effects ----------------------------------------------------------------------------------------------

    def plan(self, effect: s.PlanRestore) -> None:
        writer = self._writer
        if not writer.place.has_marker:
            writer.post(s.PlanFailed(effect.req, trouble("marker_missing", 4)))
            return
        try:
            plan = self._planned(effect)
        except PageMissing:
            writer.post(s.PlanFailed(effect.req, trouble("contents_missing", 7)))
            return
        writer.post(s.RestorePlanned(effect.req, plan), writer.rng.uniform(0, 5))

    def _planned(self, effect: s.PlanRestore) -> s.RestorePlan:
        writer, get = self._writer, self._writer.store.get_page
        base = effect.head.root if effect.head is not None else None
        wanted, there = writer.store.entries(effect.target.root), writer.place.digests()
        losses = () if base is None else (lost_between(base, effect.target.root, get),)
        summary = replace(compared(writer, base, effect.target.root), losses=losses)
        tree = s.TreeCounts(
            sum(1 for path in wanted if path not in there),
            sum(1 for path, digest in wanted.items() if there.get(path, digest) != digest),
            sum(1 for path in there if path not in wanted),
        )
        lost = [path for path, digest in sorted(wanted.items()) if self._content(digest) is None]
        missing = Trouble("contents_missing", f"{lost[0]!r} is nowhere", Retry.LATER, 7) if lost else None
        return s.RestorePlan(summary, tree, missing)

    def _content(self, digest: Digest) -> bytes | None:
        writer = self._writer
        found = writer.store.history.get(digest) or writer.place.content_of(digest)
        return writer.content_of_others(digest, sorted(writer.sessions)) if found is None else found

    def restore(self, effect: s.Restore) -> None:
        """Everything laid first; then the journal, then step by step."""
        writer, place = self._writer, self._writer.place
        wanted = writer.store.entries(effect.target.root)
        for digest in wanted.values():
            data = self._content(digest)
            if data is None or writer.fails(writer.world.options.disk_full):
                place.stage.clear()
                writer.post(
                    s.RestoreFailed(effect.req, trouble("contents_missing" if data is None else "disk_full"))
                )
                return
            place.stage[digest] = data
        place.sealed_for = effect.target.id
        place.journal = SimJournal(effect.target, place.plan_to(wanted))
        self._steps(
            place.steps(place.journal, writer.fault),
            lambda: writer.post(s.Restored(effect.req)),
            lambda why: writer.post(s.RestoreFailed(effect.req, why, is_open=True)),
        )

    def recover(self, req: int) -> None:
        """Finish or undo an open switch: either is right, and an undo that was begun is completed."""
        writer, place = self._writer, self._writer.place
        if not place.has_marker:
            writer.post(s.RecoverFailed(req, trouble("marker_missing", 4)))
        elif place.journal is None or place.journal.is_finished:
            place.close()
            writer.post(s.TreeRecovered(req))
        else:
            is_undone = place.journal.is_undoing or writer.rng.random() < 0.5
            way = place.undo if is_undone else place.steps
            self._steps(
                way(place.journal, writer.fault),
                lambda: writer.post(s.TreeRecovered(req)),
                lambda why: writer.post(s.RecoverFailed(req, why)),
            )

    def _steps(
        self, steps: Iterator[bytes | None], done: Callable[[], None], failed: Callable[[Trouble], None]
    ) -> None:
        writer = self._writer
        step_ms = writer.world.options.step_ms

        def ended(_: object) -> None:
            writer.place.close()
            done()

        def broke(error: StepFailed) -> None:
            failed(trouble(str(error.args[0]), 8))

        writer.later(step_ms, lambda: writer.walk(steps, lambda: step_ms, ended, broke))

    # --- what must hold -----------------------------------------------------------------------------------------

    def looks(self, effect: p.Scan) -> None:
        """A scan begins."""
        self._no_open_journal("scans")
        facts: p.PublishFacts = self._writer.machine.facts
        if self._came_back_with is None or effect.base is None or facts.head != effect.base:
            return
        if self._writer.store.entries(effect.base.root) == self._writer.place.digests():
            self.decided()  # the tree is the head that was adopted: nothing has to be decided

    def commits(self, effect: p.Commit) -> None:
        self._no_open_journal("commits")
        target = self._targets.get(effect.message)
        if target is not None and effect.root != target.root:
            raise BrokenPromise("P3", f"a rollback to {target.number} commits another root")
        known = self._came_back_with
        if known is not None and effect.parent is not None and effect.parent.position > known:
            raise BrokenPromise(
                "P10",
                f"{self._writer.name} came back with an older state and commits {effect.number} over the newer head "
                f"{effect.parent.number}, which no operator asked for",
            )
        if known is not None:
            self._came_back_with = (effect.epoch, effect.number)

    def _no_open_journal(self, what: str) -> None:
        journal = self._writer.place.journal
        if journal is not None and not journal.is_finished:
            raise BrokenPromise("P2", f"{self._writer.name} {what} while a journal is open")
