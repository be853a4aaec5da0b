"""The contract of the ``OfferMachine`` as data: how an edit goes on, and the invariants of every step."""

from __future__ import annotations

from typing import Any

from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer_book import OfferBook
from instep.core.changes.offer_vocabulary import EditState
from instep.core.contract import REST, Invariant, PhaseRow

_LOOKS = (o.TreeLooked, o.PathsLooked)
_ANSWERS = (o.OfferAnswered, o.OfferFailed)

PHASES = {
    EditState(row.phase): row
    for row in (
        PhaseRow("asked", (o.AskLock,), (o.LockAnswered, o.LockAskFailed), f"editing waiting losing {REST}"),
        PhaseRow("editing", (), (*_LOOKS, o.LockNews, o.LockAnswered), f"offered waiting accepted {REST}"),
        PhaseRow("waiting", (), (*_LOOKS, o.LockAnswered), f"offered editing blocked losing {REST}"),
        PhaseRow("offered", (o.SubmitOffer,), _ANSWERS, f"accepted editing waiting losing {REST}"),
        PhaseRow(
            "accepted", (), (o.HeadReached, *_LOOKS, o.LockAnswered), f"waiting editing offered losing {REST}"
        ),
        PhaseRow("losing", (o.OwnPaths,), (o.EditsSetAside, *_LOOKS), REST),
        PhaseRow("blocked", (), (o.RemovalsJudged, *_LOOKS), f"waiting offered losing {REST}"),
    )
}

_EFFECTS = tuple[Any, ...]


def saves_facts(machine: OfferBook, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, and the save comes first."""
    saves = [i for i, effect in enumerate(effects) if isinstance(effect, o.SaveOffers)]
    return saves in ([], [0]) and machine._saved == machine._facts


def owns_before_it_acts(machine: OfferBook, effects: _EFFECTS) -> bool:
    """The follower hears which paths are owned before a set is sent or a lock is answered."""
    owns = [i for i, effect in enumerate(effects) if isinstance(effect, o.OwnPaths)]
    acts = [i for i, effect in enumerate(effects) if isinstance(effect, o.SubmitOffer | o.GiveLockAnswer)]
    is_first = max(owns, default=-1) < min(acts, default=len(effects))
    return is_first and (not machine._is_started or machine._told == machine._facts.owned)


def submits_one_set(machine: OfferBook, effects: _EFFECTS) -> bool:
    """The set under way is in the facts, and its paths, and no others, are offered."""
    offered = {each.path for each in machine._facts.owned if each.state is EditState.OFFERED}
    submitting = machine._facts.submitting
    wanted = {change.path for change in submitting.changes} if submitting is not None else set()
    sent = [effect.change_set for effect in effects if isinstance(effect, o.SubmitOffer)]
    return offered == wanted and sent in ([], [submitting])


def edits_under_locks(machine: OfferBook, effects: _EFFECTS) -> bool:
    """A path is being edited only while a program here holds its lock."""
    held = {each.path for each in machine._facts.held}
    editing = (each.path for each in machine._facts.owned if each.state is EditState.EDITING)
    return held.issuperset(editing)


INVARIANTS: tuple[Invariant[OfferBook], ...] = (
    saves_facts,
    owns_before_it_acts,
    submits_one_set,
    edits_under_locks,
)
