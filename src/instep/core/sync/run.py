"""One run of a sync profile, decided: look at both homes, plan, change the right, then the left, keep the base.

Implements the section "Runs" of ``docs/spec/sync.md``. ``run`` is a generator: it yields what its node is to do, and is
sent what came of it. A path is changed at a home only where it still is what the plan saw. A run that ends anywhere
leaves the base of before, and the next one comes to the same end.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from instep.core.sync.bases import common_base
from instep.core.sync.plan import SyncPlan
from instep.core.sync.rollbacks import went_back
from instep.core.sync.table import Side
from instep.core.sync.work import (
    EditBase,
    FindOthers,
    HeldBack,
    KeepBase,
    KnownBases,
    LookAtHomes,
    Looked,
    MakePlan,
    ReadBases,
    SendChanges,
    SyncRequest,
    SyncWork,
)
from instep.errors import RefusedError
from instep.model.change import CHANGE_SET_MAX_BYTES, CHANGES_MAX, ChangeAnswer, OutcomeKind, PathChange
from instep.model.counts import counted
from instep.model.ids import Digest
from instep.model.manifest import manifest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import is_below, shown
from instep.model.sync import SyncBase, SyncPhase

ROUNDS_MAX = 3
HELD = "sync_held"
"""The code of a run that changed nothing, for something must agree first."""
_BYTES_OF_CHANGE = 400
"""A change set with so many bytes for each change is sure to fit."""

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
        self._is_whole = True
        """The heads after this round are what it made of those before: there is nothing to do while they stand."""

    def run(self) -> Generator[SyncRequest, Any, None]:
        work = self.work
        yield from self._enter(SyncPhase.FLUSHING)
        known: KnownBases = yield ReadBases()
        self._base = self._common(known)
        root = self._base.root if self._base is not None else manifest.EMPTY_ROOT
        while True:
            heads: Looked = yield LookAtHomes(root)
            self._looked(heads)
            if self._is_settled(heads):
                return
            yield from self._enter(SyncPhase.PLANNING)
            if work.initial is not None and work.rounds == 0:
                root = (heads.right if work.initial is Side.LEFT else heads.left).root
            initial = work.initial if work.rounds == 0 else None  # What persons did meanwhile counts.
            plan: SyncPlan = yield MakePlan(root, heads.left.root, heads.right.root, initial)
            work.planned(plan)
            if work.is_dry_run:
                return
            self._refuse_held(plan)
            work.undone.clear()
            work.withheld.clear()
            self._made = {Side.LEFT: set(), Side.RIGHT: set()}
            yield from self._send(Side.RIGHT, plan)
            yield from self._send(Side.LEFT, plan)
            yield from self._enter(SyncPhase.BASE)
            yield from self._find_others(plan, heads)
            root = yield EditBase(root, tuple(self._base_changes(plan)))
            work.rounds += 1
            moved = any(outcome.kind is OutcomeKind.OUTDATED for _, outcome in work.undone)
            if not moved or work.rounds >= ROUNDS_MAX:
                self._say_withheld()
                yield KeepBase(self._new_base(root))
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

    def _enter(self, phase: SyncPhase) -> Steps:
        self.work.phase = phase
        yield phase

    # --- looking ------------------------------------------------------------------------------------------------

    def _common(self, known: KnownBases) -> SyncBase | None:
        """The base from which to go; only a first run goes without one."""
        bases, marks = known
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

    # --- sending ------------------------------------------------------------------------------------------------

    def _send(self, side: Side, plan: SyncPlan) -> Steps:
        """Have one home make its changes, with the contents that it lacks from the other side."""
        yield from self._enter(SyncPhase.RIGHT if side is Side.RIGHT else SyncPhase.LEFT)
        sources = _sources(plan, side)
        for changes in _sets(_changes(plan, side)):
            answer: ChangeAnswer = yield SendChanges(side, changes, sources)
            self._answered(side, answer)

    def _answered(self, side: Side, answer: ChangeAnswer) -> None:
        """A change that is held back from publishing is in no generation, and so in no base."""
        work = self.work
        if answer.head is not None:
            work.heads[side] = answer.head
            self._made[side].update(answer.made)
        elif answer.made:
            work.withheld[side] = HeldBack(len(answer.made), answer.reason)
        work.made[side] += len(answer.made)
        work.undone += [(side, outcome) for outcome in answer.outcomes if not outcome.is_made]
        work.done += len(answer.outcomes)

    def _find_others(self, plan: SyncPlan, heads: Looked) -> Steps:
        """What people changed meanwhile may be published with what the homes made."""
        work = self.work
        self._is_whole = not work.undone and not work.withheld and not work.left_out
        for side in Side:
            before, after = heads.of(side), work.heads[side]
            if self._is_whole and before.id != after.id:
                wanted = {change.path: change.new for change in _changes(plan, side)}
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

    def _new_base(self, root: Digest) -> SyncBase:
        heads = self.work.heads
        return SyncBase(self._last_run + 1, root, heads[Side.LEFT], heads[Side.RIGHT], self._is_whole)


def _changes(plan: SyncPlan, side: Side) -> Iterator[PathChange]:
    for step in plan.steps:
        if side is Side.RIGHT and step.changes_right:
            yield PathChange(step.path, step.right, step.to_right)
        elif side is Side.LEFT and step.changes_left:
            yield PathChange(step.path, step.left, step.to_left)


def _sets(changes: Iterator[PathChange]) -> Iterator[tuple[PathChange, ...]]:
    """As few sets as hold them; a removed directory and what lay in it stay in one."""
    most = min(CHANGES_MAX, CHANGE_SET_MAX_BYTES // _BYTES_OF_CHANGE)
    group: list[PathChange] = []
    batch: list[PathChange] = []
    top: PathChange | None = None
    for change in changes:
        if top is not None and not is_below(change.path, top.path):
            top = None
        if top is None:
            if batch and len(batch) + len(group) > most:
                yield tuple(batch)
                batch = []
            batch += group
            group = []
            is_kept = change.new is not None and change.new.kind is Kind.DIR
            top = change if change.base is not None and change.base.kind is Kind.DIR and not is_kept else None
        group.append(change)
        if len(group) > CHANGES_MAX:
            raise RefusedError(
                f"{shown(group[0].path)} alone has more than {CHANGES_MAX} changes",
                hint="remove the directory on both sides, or in parts",
                code="too_many_changes",
                path=shown(group[0].path),
            )
    if batch and len(batch) + len(group) > most:
        yield tuple(batch)
        batch = []
    if batch or group:
        yield (*batch, *group)


def _sources(plan: SyncPlan, side: Side) -> dict[Digest, Entry]:
    """Where the other side has each content."""
    entries = (step.left if side is Side.RIGHT else step.right for step in plan.steps)
    return {entry.digest: entry for entry in entries if entry is not None and entry.kind is not Kind.DIR}
