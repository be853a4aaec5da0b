"""Planted bugs of sync runs: each breaks one rule, and the simulator must find it."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import msgspec

from instep.core.sync.plan import SyncPlan
from instep.core.sync.run import SyncRun
from instep.core.sync.table import Side
from instep.core.sync.work import EditBase, KnownBases, LookAtHomes, Looked, MakePlan
from instep.errors import RefusedError
from instep.model.change import ChangeAnswer
from instep.model.ids import Digest
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry
from instep.model.paths import sort_key
from instep.model.sync import SentChanges, SyncBase, WaitingTree
from instep.testing.sync.carrier import SyncCarrier
from instep.testing.sync.side import SyncDisk

_COPY = re.compile(rb"\.collision-[0-9a-f]+")


class _BaseOfTheRun(SyncRun):
    """Takes the left tree for the base, whatever was left alone."""

    def run(self) -> Generator[Any, Any, None]:
        steps, left = super().run(), b""
        answer: Any = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration:
                return
            if isinstance(request, EditBase):
                answer = Digest(left)
                continue
            answer = yield request
            if isinstance(request, LookAtHomes):
                left = answer.left.root


class _FirstForEver(SyncRun):
    """Takes one side for right in every round of a first run, also against what people do meanwhile."""

    def run(self) -> Generator[Any, Any, None]:
        steps = super().run()
        answer: Any = None
        while True:
            try:
                request = steps.send(answer)
            except StopIteration:
                return
            if isinstance(request, MakePlan):
                request = request._replace(initial=self.work.initial)
            answer = yield request


class _FollowsAtOnce(SyncRun):
    """Does not look whether the homes made a step."""

    def _base_changes(self, plan: SyncPlan) -> Iterator[tuple[bytes, Entry | None]]:
        return ((step.path, step.base_after) for step in plan.steps if step.changes_base)


class _BaseOfOneHome(SyncRun):
    """Goes from the newest base here, whether or not the other home knows it."""

    def _common(self, known: KnownBases) -> SyncBase | None:
        marks = tuple(base.mark for base in known.bases)
        return super()._common(KnownBases(known.bases, marks))


class _TrustsHeldChanges(SyncRun):
    """Counts what was made and is held back from publishing."""

    def _answered(self, side: Side, answer: ChangeAnswer) -> None:
        super()._answered(side, answer)
        self._made[side].update(answer.made)


class _ForgetsThePast(SyncRun):
    """Does not look whether a home went back."""

    def _refuse_gone_back(self, side: Side, heads: Looked) -> None:
        pass


class _RollbackOfTheHead(SyncRun):
    """Looks only whether the head itself is a rollback: an edit after it hides it."""

    def _refuse_gone_back(self, side: Side, heads: Looked) -> None:
        newest = heads.rollbacks_of(side)[-1:]
        if newest and newest[0].position == heads.of(side).position:
            super()._refuse_gone_back(side, heads)


class _RollbackForEver(SyncRun):
    """Names a rollback also when an operator has accepted it."""

    def _refuse_gone_back(self, side: Side, heads: Looked) -> None:
        if heads.rollbacks_of(side) and self._base is not None and not self.work.accepts_rollback:
            raise RefusedError(f"{side} went back", code="went_back")


class _SettledByOneSide(SyncRun):
    """Looks only whether the left is as the last run left it."""

    def _is_settled(self, heads: Looked) -> bool:
        base = self._base
        return base is not None and self.work.initial is None and base.left.id == heads.left.id


class _DoneWhenMade(SyncRun):
    """Takes the heads after a run for reconciled: an edit that was published with its changes is in them too."""

    def _new_base(self, root: Digest, waiting: tuple[WaitingTree, ...]) -> SyncBase:
        return msgspec.structs.replace(super()._new_base(root, waiting), is_whole=not self.work.undone)


class _ForgetsSent(SyncRun):
    """Does not ask the homes about the changes of a run that ended without its base."""

    def _with_made(self, root: Digest, known: KnownBases, heads: Looked) -> Generator[Any, Any, Any]:
        return (yield from super()._with_made(root, known._replace(since=None, made=()), heads))


class _BelievesSent(SyncCarrier):
    """Takes changes for made that were sent: a home may have refused them, or never have got them."""

    def _made(self, sent: SentChanges) -> dict[Side, set[bytes]]:
        paths = {change.path for change in diff(sent.settled, sent.wanted, self.pages.__getitem__)}
        return dict.fromkeys(Side, paths)


class _NamesByRun(SyncCarrier):
    """Names copies by the number of the run."""

    def planned(self, asked: MakePlan) -> SyncPlan:
        plan = super().planned(asked)
        mark = b".collision-%08d" % self.ledger.runs
        steps = [step if step.left or step.right else _renamed(step, mark) for step in plan.steps]
        return replace(plan, steps=tuple(sorted(steps, key=lambda step: sort_key(step.path))))


def _renamed(step: Any, mark: bytes) -> Any:
    path = _COPY.sub(mark, step.path)

    def moved(entry: Entry | None) -> Entry | None:
        return msgspec.structs.replace(entry, path=path) if entry is not None else None

    return replace(
        step,
        path=path,
        to_left=moved(step.to_left),
        to_right=moved(step.to_right),
        base_after=moved(step.base_after),
    )


class _RunsAtOnce(SyncCarrier):
    """Starts a run while one is under way."""

    @property
    def is_running(self) -> bool:
        return False

    def begin(self, initial: Side | None = None, *, accepts_rollback: bool = False) -> bool:
        self._steps = None
        return super().begin(initial, accepts_rollback=accepts_rollback)


class _Overwrites(SyncDisk):
    """Changes a path whatever lies there."""

    def __init__(self) -> None:
        super().__init__()
        self.lies_about_bases = True


RUNS: dict[str, type[SyncRun]] = {
    "base_per_run": _BaseOfTheRun,
    "first_for_ever": _FirstForEver,
    "base_before_answers": _FollowsAtOnce,
    "base_of_one_home": _BaseOfOneHome,
    "held_counts": _TrustsHeldChanges,
    "went_back_unseen": _ForgetsThePast,
    "rollback_of_the_head": _RollbackOfTheHead,
    "rollback_for_ever": _RollbackForEver,
    "settled_by_one_side": _SettledByOneSide,
    "done_when_made": _DoneWhenMade,
    "sent_is_forgotten": _ForgetsSent,
}
CARRIERS: dict[str, type[SyncCarrier]] = {
    "copies_named_by_run": _NamesByRun,
    "two_runs_at_once": _RunsAtOnce,
    "sent_counts": _BelievesSent,
}
DISKS: dict[str, type[SyncDisk]] = {"bases_not_compared": _Overwrites}
SYNC_PLANTS = (*RUNS, *CARRIERS, *DISKS)
