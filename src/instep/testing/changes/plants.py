"""Planted bugs of changes from elsewhere: each breaks one rule, and the simulator must find it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from instep.core.changes import home_vocabulary as h
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.home import HomeMachine
from instep.core.changes.home_facts import Lock, Submission
from instep.core.changes.home_vocabulary import HomeEffect, HomeEvent
from instep.core.changes.offer import OfferMachine
from instep.core.changes.offer_vocabulary import EditState, OwnedPath
from instep.model.change import ChangeAnswer, Fence, PathChange
from instep.model.manifest.entry import Entry
from instep.testing.changes.editor_disk import EditorDisk
from instep.testing.changes.home_disk import HomeDisk


class _ForgetsAnswers(HomeDisk):
    """Has no table of ids."""

    def perform(self, effect: HomeEffect) -> HomeEvent | None:
        if isinstance(effect, h.LookUp):
            return h.LookedUp(effect.req, None)
        return super().perform(effect)


class _ForgetsLocks(HomeDisk):
    """Does not make locks durable."""

    def perform(self, effect: HomeEffect) -> HomeEvent | None:
        if isinstance(effect, h.SaveHome):
            effect = h.SaveHome(msgspec.structs.replace(effect.facts, locks=()))
        return super().perform(effect)


class _OffersUnlaid(EditorDisk):
    """Takes a file that never arrived for a removed one."""

    def __init__(self) -> None:
        super().__init__()
        self.offers_unlaid = True


class _LiesAboutBases(HomeDisk):
    """Changes a path whatever lies there."""

    def __init__(self) -> None:
        super().__init__()
        self.lies_about_bases = True


class _CountsEachSetAlone(HomeDisk):
    """Judges the removals of a set, and not what others removed before it."""

    def _loses_too_much(self, changes: list[PathChange]) -> bool:
        made, self.losses.made = self.losses.made, {}
        checkpoints, self.losses.checkpoints = self.losses.checkpoints, ()
        try:
            return super()._loses_too_much(changes)
        finally:
            self.losses.made, self.losses.checkpoints = made, checkpoints


class _AnyTokenOpens(HomeMachine):
    """Looks whether a change comes with a token, and not with which."""

    def _in_the_way(self, change: PathChange, token: Fence | None) -> Lock | None:
        return None if self._has_token else super()._in_the_way(change, token)

    _has_token = False

    def _honoured(self, submission: Submission) -> Fence | None:
        self._has_token = submission.change_set.token is not None
        return super()._honoured(submission)


class _LapsesEarly(HomeMachine):
    """Gives a path away before the time that it promised is over."""

    def _lapse(self) -> None:
        now, self._now = self._now, self._now + 1_500
        super()._lapse()
        self._now = now


class _AnswersBeforeItKeeps(HomeMachine):
    """Forgets to keep the answer."""

    def step(self, event: HomeEvent, now_ms: int, wall_ms: int = 0) -> tuple[HomeEffect, ...]:
        effects = super().step(event, now_ms, wall_ms)
        return tuple(effect for effect in effects if not isinstance(effect, h.KeepAnswer))


class _LetsGoAtTheAnswer(OfferMachine):
    """Thinks that an accepted edit has arrived, though its generation has not."""

    def _made(self, owned: OwnedPath, change: PathChange, base: Entry | None, answer: ChangeAnswer) -> None:
        super()._made(owned, change, base, answer)
        left = self._owned.get(change.path)
        if left is not None and left.state is EditState.ACCEPTED:
            del self._owned[change.path]


class _OffersAgain(OfferMachine):
    """Makes a new set of edits whose answer was lost."""

    def _submit_failed(self, event: o.OfferFailed) -> None:
        gone = msgspec.structs.replace(event.trouble, code="contents_gone")
        super()._submit_failed(o.OfferFailed(event.req, gone))


class _DropsLosers(EditorDisk):
    """Restores the home's file, and keeps nothing of the local one."""

    def __init__(self) -> None:
        super().__init__()
        self.keeps_losers = False


HOME_DISKS: dict[str, Callable[[], HomeDisk]] = {
    "id_table_dropped": _ForgetsAnswers,
    "locks_not_persisted": _ForgetsLocks,
    "bases_not_compared": _LiesAboutBases,
    "losses_counted_alone": _CountsEachSetAlone,
}
HOME_MACHINES: dict[str, type[HomeMachine]] = {
    "fence_not_compared": _AnyTokenOpens,
    "lapses_early": _LapsesEarly,
    "answers_not_kept": _AnswersBeforeItKeeps,
}
EDITOR_DISKS: dict[str, Callable[[], EditorDisk]] = {
    "unlaid_delete_offered": _OffersUnlaid,
    "losers_not_archived": _DropsLosers,
}
OFFER_MACHINES: dict[str, type[OfferMachine]] = {
    "let_go_at_the_answer": _LetsGoAtTheAnswer,
    "offered_under_a_new_id": _OffersAgain,
}
CHANGE_PLANTS = (*HOME_DISKS, *HOME_MACHINES, *EDITOR_DISKS, *OFFER_MACHINES)
