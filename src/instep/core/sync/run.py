"""One run of a sync profile, decided: look at both homes, plan, change both, keep the base.

Implements the section "Runs" of ``docs/spec/sync.md``. ``run`` is a generator: it yields what its node is to do, and is
sent what came of it. A path is changed at a home only where it still is what the plan saw. A run that ends anywhere
leaves the base of before, and the next one comes to the same end.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import zip_longest
from typing import Any

from instep.core.sync.bases import common_base
from instep.core.sync.plan import SyncPlan, SyncStep
from instep.core.sync.rollbacks import went_back
from instep.core.sync.side_changes import changes_of, sets_of, sources_of
from instep.core.sync.table import Side
from instep.core.sync.work import (
    AwaitPartners,
    EditBase,
    FindAgain,
    FindOthers,
    HeldBack,
    KeepBase,
    KnownBases,
    LookAtHomes,
    Looked,
    MakePlan,
    ReadBases,
    RecordChanges,
    SendChanges,
    SideChanges,
    SyncRequest,
    SyncWork,
    TakeWaiting,
)
from instep.errors import RefusedError
from instep.model.change import ChangeAnswer, OutcomeKind
from instep.model.counts import counted
from instep.model.ids import Digest, HeadRef
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry
from instep.model.sync import RefusedTree, SentChanges, SyncBase, SyncPhase, WaitingTree

ROUNDS_MAX = 3
HELD = "sync_held"
"""The code of a run that changed nothing, for something must agree first."""
Steps = Generator[SyncRequest, Any, Any]


class SyncRun:
    """``names`` are the sides as people call them, left and right."""

    def __init__(self, profile: str, names: tuple[str, str], work: SyncWork) -> None:
        self._profile = profile
        self._names = dict(zip(Side, names, strict=True))
        self._base: SyncBase | None = None
        self._last_run = 0
        self.work = work
        self._made: dict[Side, set[bytes]] = {}
        """What the homes made and published in this round."""
        self._waiting: dict[Side, set[bytes]] = {}
        """What they made and did not publish."""
        self._before: dict[Side, HeadRef] = {}
        """The heads of the homes before the first changes that they made in this run."""
        self._refused: dict[Side, str] = {}
        """Why the partners of a side refused its newest generation."""
        self._held_back: set[Side] = set()
        """Sides that get nothing in this round: it would be what their partners refused."""
        self._kept = manifest.EMPTY_ROOT
        """The base that the next run goes from, as far as partners refused nothing."""
        self._is_whole = True
        """The heads after this round are what it made of those before: there is nothing to do while they stand."""

    def run(self) -> Generator[SyncRequest, Any, None]:
        work = self.work
        yield from self._enter(SyncPhase.FLUSHING)
        known: KnownBases = yield ReadBases()
        self._base = self._common(known)
        root = self._kept = self._base.root if self._base is not None else manifest.EMPTY_ROOT
        while True:
            heads: Looked = yield LookAtHomes(root)
            self._looked(heads)
            if self._is_settled(heads):
                self._say_refused()
                return
            if work.rounds == 0:
                root = yield from self._with_made(root, known, heads)
            yield from self._enter(SyncPhase.PLANNING)
            if work.initial is not None and work.rounds == 0:
                root = self._kept = (heads.right if work.initial is Side.LEFT else heads.left).root
            initial = work.initial if work.rounds == 0 else None  # What persons did meanwhile counts.
            plan: SyncPlan = yield MakePlan(root, heads.left.root, heads.right.root, initial)
            work.planned(plan)
            if work.is_dry_run:
                return
            self._refuse_held(plan)
            yield from self._hold_back(plan)
            work.undone.clear()
            work.withheld.clear()
            self._made = {Side.LEFT: set(), Side.RIGHT: set()}
            self._waiting = {Side.LEFT: set(), Side.RIGHT: set()}
            yield from self._send(root, plan, heads)
            yield from self._await_partners()
            yield from self._enter(SyncPhase.BASE)
            yield from self._find_others(plan, heads)
            root = yield from self._edited(root, plan)
            work.rounds += 1
            moved = any(outcome.kind is OutcomeKind.OUTDATED for _, outcome in work.undone)
            if not moved or work.withheld or work.rounds >= ROUNDS_MAX:
                self._say_refused()
                self._say_withheld()
                left_waiting = yield from self._with_waiting(root, plan)
                yield KeepBase(self._new_base(self._kept if self._refused else root, left_waiting))
                return
            yield from self._enter(SyncPhase.FLUSHING)

    def _say_withheld(self) -> None:
        """The run ends as held where a home changed paths and has not published them: they are in no base yet."""
        if self.work.withheld:
            side, withheld = next(iter(self.work.withheld.items()))
            self.work.error = self._withheld(side, withheld)

    def _withheld(self, side: Side, withheld: HeldBack) -> RefusedError:
        fileset, _, node = self._names[side].partition("@")
        many = counted(withheld.paths, "changed path")
        return RefusedError(
            f"{node} has not published {many} of {fileset}: {withheld.reason}",
            hint=f"on {node}: instep publish {fileset}; then: instep sync run {self._profile}",
            code=HELD,
            node=node,
            paths=withheld.paths,
        )

    def _say_refused(self) -> None:
        """The run ends as held where the partners of a side do not take what it has."""
        for side, reason in self._refused.items():
            fileset, _, node = self._names[side].partition("@")
            number = self.work.heads[side].number
            self.work.error = RefusedError(
                f"the partners of {node} refused generation {number} of {fileset}: {reason}",
                hint=f"correct it on the other side; or repair that server, and there: instep retry {fileset}",
                code=HELD,
                node=node,
                generation=number,
            )
        for side in self._held_back:
            assert self._base is not None
            assert self._base.refused is not None
            node = self._names[side].partition("@")[2]
            self.work.error = RefusedError(
                f"{node} gets nothing: its partners refused the same changes before: {self._base.refused.reason}",
                hint=f"correct them on the other side; or once more as they are: instep sync run {self._profile}"
                " --retry-refused",
                code=HELD,
                node=node,
            )

    def _enter(self, phase: SyncPhase) -> Steps:
        self.work.phase = phase
        yield phase

    # --- looking ------------------------------------------------------------------------------------------------

    def _common(self, known: KnownBases) -> SyncBase | None:
        """The base from which to go; only a first run goes without one."""
        bases, marks = known.bases, known.marks
        self._last_run = max((*(each.run for each in bases), *(each.run for each in marks)), default=0)
        found = common_base(bases, marks)
        if found is not None or self.work.initial is not None:
            return found
        reason = f"{self._profile} has no base yet: nothing says what both sides had"
        if bases or marks:
            here, there = (f"run {each[-1].run}" if each else "none" for each in (bases, marks))
            reason = (
                f"{self._profile} has no base that both homes know: one has {here}, the other has {there}"
            )
        raise RefusedError(
            reason,
            hint=f"which side is right: instep sync run {self._profile} --initial left (or right)",
            code="no_base",
            profile=self._profile,
        )

    def _looked(self, heads: Looked) -> None:
        for side in Side:
            self.work.heads[side] = heads.of(side)
            self._refuse_gone_back(side, heads)
        self._refused = dict(heads.refused)
        for side, waiting in heads.withheld:
            if not self.work.is_dry_run:
                raise self._withheld(side, waiting)

    def _is_settled(self, heads: Looked) -> bool:
        base = self._base
        return (
            base is not None
            and base.is_whole
            and self.work.initial is None
            and (base.left.id, base.right.id) == (heads.left.id, heads.right.id)
        )

    def _refuse_gone_back(self, side: Side, heads: Looked) -> None:
        """A rollback looks like changes, and would flow to the other side."""
        base = self._base
        if base is None or self.work.accepts_rollback:
            return
        head, last = heads.of(side), base.left if side is Side.LEFT else base.right
        if head.root == last.root:
            return
        rollback = went_back(heads.rollbacks_of(side), last)
        if rollback is not None:
            number, target = rollback.number, rollback.target_number
            reason = f"generation {number} was rolled back to generation {target}"
        elif head.position < last.position:
            number = head.number
            reason = f"it has generation {number}, and had generation {last.number} after the last run"
        else:
            return
        raise RefusedError(
            f"{self._names[side]} went back: {reason}",
            hint=f"take it as a change: instep sync run {self._profile} --accept-rollback",
            code="went_back",
            side=side.value,
            generation=number,
        )

    def _refuse_held(self, plan: SyncPlan) -> None:
        """Nothing is changed where a gate does not hold."""
        rows = [row for row in plan.gates if not row.is_away]
        if not rows:
            return
        first, others = rows[0], len(rows) - 1
        more = f"; and {counted(others, 'gate')} more" if others else ""
        raise RefusedError(
            f"{first.reason}{more}",
            hint=f"make the facts agree, or change the gates; then: instep sync run {self._profile}",
            code=HELD,
            gate=first.gate,
            node=first.node,
            value=first.value,
            wanted=first.wanted,
        )

    def _hold_back(self, plan: SyncPlan) -> Steps:
        """A side gets nothing while all that it would get is what its partners refused: the next change goes."""
        self._held_back.clear()
        refused = self._base.refused if self._base is not None else None
        if refused is None or self.work.retries_refused:
            return
        changes = tuple(changes_of(plan, Side(refused.side)))
        if changes and (yield FindAgain(refused.root, changes)):
            self._held_back.add(Side(refused.side))

    # --- sending ------------------------------------------------------------------------------------------------

    def _with_made(self, root: Digest, known: KnownBases, heads: Looked) -> Steps:
        """The base with the changes that homes made since, and that it has not: those that waited to be published, and
        those of a run that ended without a base. Of a side that went back since that run, nothing is known."""
        waiting, since = self._base.waiting if self._base is not None else (), known.since
        if since is not None and not any(
            went_back(heads.rollbacks_of(side), seen) is not None
            for side, seen in zip(Side, (since.left, since.right), strict=True)
        ):
            waiting = (*(waiting if since.settled == root else ()), *known.made)
            root = self._kept = since.settled
        if waiting:
            root = yield TakeWaiting(root, waiting, heads.left.root, heads.right.root)
            self._kept = self._kept if self._refused else root
        return root

    def _sent(self, root: Digest, plan: SyncPlan, heads: Looked) -> Steps:
        """The record of a round's changes; none of a first run, which has no base."""
        if self._base is None or self.work.initial is not None:
            return None
        changes = tuple((step.path, step.base_after) for step in plan.steps if step.changes_base)
        wanted: Digest = yield EditBase(root, changes)
        return SentChanges(self._base.mark, self._kept, wanted, heads.left, heads.right)

    def _send(self, root: Digest, plan: SyncPlan, heads: Looked) -> Steps:
        """Have both homes make their changes at once, with the contents that they lack from the other side."""
        yield from self._enter(SyncPhase.SENDING)
        if not plan.is_empty:
            yield RecordChanges((yield from self._sent(root, plan, heads)))
        sides = [side for side in Side if side not in self._held_back]
        for sets in zip_longest(*(self._sets_of(side, plan) for side in sides)):
            parts = tuple(part for part in sets if part is not None)
            answers: tuple[ChangeAnswer, ...] = yield SendChanges(parts)
            for part, answer in zip(parts, answers, strict=True):
                self._answered(part.side, answer)

    @staticmethod
    def _sets_of(side: Side, plan: SyncPlan) -> Iterator[SideChanges]:
        sources = sources_of(plan, side)
        return (SideChanges(side, changes, sources) for changes in sets_of(changes_of(plan, side)))

    def _answered(self, side: Side, answer: ChangeAnswer) -> None:
        """A change that is held back from publishing is in no generation, and so in no base."""
        work = self.work
        if answer.made:
            self._before.setdefault(side, work.heads[side])
        if answer.head is not None:
            work.heads[side] = answer.head
            self._made[side].update(answer.made)
            self._refused.pop(side, None)
        elif answer.made:
            work.withheld[side] = HeldBack(len(answer.made), answer.reason)
            self._waiting[side].update(answer.made)
        work.made[side] += len(answer.made)
        work.undone += [(side, outcome) for outcome in answer.outcomes if not outcome.is_made]
        work.done += len(answer.outcomes)

    def _await_partners(self) -> Steps:
        """What a side got counts once its partners have it."""
        sides = [side for side in Side if self._made[side]]
        if sides:
            yield from self._enter(SyncPhase.FOLLOWING)
        for side in sides:
            reason = yield AwaitPartners(side)
            if reason:
                self._refused[side] = reason

    def _find_others(self, plan: SyncPlan, heads: Looked) -> Steps:
        """What people changed meanwhile may be published with what the homes made."""
        work = self.work
        is_held = work.undone or work.withheld or work.left_out or self._refused or self._held_back
        self._is_whole = not is_held
        for side in Side:
            before, after = heads.of(side), work.heads[side]
            if self._is_whole and before.id != after.id:
                wanted = {change.path: change.new for change in changes_of(plan, side)}
                self._is_whole = not (yield FindOthers(side, before.root, after.root, wanted))

    # --- the base -----------------------------------------------------------------------------------------------

    def _base_changes(self, plan: SyncPlan) -> Iterator[tuple[bytes, Entry | None]]:
        """The base follows these steps: a path that a home did not change keeps its old one."""
        made = self._made
        for step in plan.steps:
            if (
                step.changes_base
                and (not step.changes_left or step.path in made[Side.LEFT])
                and (not step.changes_right or step.path in made[Side.RIGHT])
            ):
                yield step.path, step.base_after

    def _edited(self, root: Digest, plan: SyncPlan) -> Steps:
        """The base that both sides have after this round. The one that is kept follows no changes that the partners of
        a side refused: they may be put back there."""
        changes = tuple(self._base_changes(plan))
        refused = {change.path for side in self._refused for change in changes_of(plan, side)}
        settled = tuple(change for change in changes if change[0] not in refused)
        is_one = self._kept == root and settled == changes
        after: Digest = yield EditBase(root, changes)
        self._kept = after if is_one else (yield EditBase(self._kept, settled))
        return after

    def _with_waiting(self, root: Digest, plan: SyncPlan) -> Steps:
        """The base with what a home made and did not publish, or with what its partners refused."""
        known = {each.side: each.seen for each in self._base.waiting} if self._base is not None else {}
        seen = known | {side.value: head.root for side, head in self._before.items()}
        found = [
            WaitingTree(side.value, root, seen[side.value]) for side in self._refused if side.value in seen
        ]
        for side in self.work.withheld:
            steps = [step for step in plan.steps if step.path in self._waiting[side] and self._is_made(step)]
            after = yield EditBase(root, tuple((step.path, step.base_after) for step in steps))
            found.append(WaitingTree(side.value, after, seen[side.value]))
        return tuple(found)

    def _is_made(self, step: SyncStep) -> bool:
        """Whether each home that the step changes made it, published or not."""
        sides = zip(Side, (step.changes_left, step.changes_right), strict=True)
        return all(not is_so or step.path in self._made[x] | self._waiting[x] for x, is_so in sides)

    def _new_base(self, root: Digest, waiting: tuple[WaitingTree, ...]) -> SyncBase:
        """Of a side whose partners refused what it got, the head stays the one before: going back to it is no going
        back."""
        heads, base = dict(self.work.heads), self._base
        refused = base.refused if base is not None and (self._held_back or self._refused) else None
        for side, reason in self._refused.items():
            if refused is None or side in self._before:
                refused = RefusedTree(side.value, heads[side].root, reason)
            if side in self._before:
                heads[side] = self._before[side]
            elif base is not None:
                heads[side] = base.left if side is Side.LEFT else base.right
        left, right = heads[Side.LEFT], heads[Side.RIGHT]
        return SyncBase(self._last_run + 1, root, left, right, self._is_whole, waiting, refused)
