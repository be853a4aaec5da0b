"""The contract of the ``RolloutMachine`` as data: its states, and the invariants of every step, in production too.

A row says which events can end a state, and which may follow: events of reports and timers move a rollout, and a new
head begins the next one at the barrier, whatever the state is. An invariant is cheap; a broken one stops the line."""

from __future__ import annotations

from typing import Any

from instep.core.contract import Invariant, PhaseRow
from instep.core.rollout import vocabulary as v
from instep.core.rollout.book import RolloutBook
from instep.core.rollout.vocabulary import RolloutState
from instep.core.vocabulary import TimerFired

_NEWS = (v.PartnerReported, v.PartnerLost, v.PartnersChanged, TimerFired, v.PolicyChanged)
_ASKED = (v.AbortAsked, v.ResumeAsked, v.AnswersDiffered)
_ANEW = (v.HeadPublished, v.RolloutStarted)
_GOING = (*_NEWS, *_ASKED, *_ANEW)
_ORDERS = (v.GiveOrder,)
_BEGUN = "barrier waves watching confirming done"
_FAILS = "putting_back put_back stopped aborted"

PHASES = {
    RolloutState(row.phase): row
    for row in (
        PhaseRow("none", (), _ANEW, _BEGUN),
        PhaseRow("barrier", _ORDERS, _GOING, f"waves watching confirming done {_FAILS}"),
        PhaseRow("waves", _ORDERS, _GOING, f"barrier watching confirming done {_FAILS}"),
        PhaseRow("watching", _ORDERS, _GOING, f"barrier waves confirming done {_FAILS}"),
        PhaseRow(
            "confirming", _ORDERS, (*_NEWS, v.ConfirmAsked, *_ASKED, *_ANEW), f"barrier waves done {_FAILS}"
        ),
        PhaseRow(
            "done", _ORDERS, (v.AnswersDiffered, v.BeginAnewAsked, *_NEWS, *_ANEW), f"barrier waves {_FAILS}"
        ),
        PhaseRow(
            "putting_back", _ORDERS, (*_NEWS, v.BeginAnewAsked, *_ANEW), "barrier waves put_back aborted"
        ),
        *(
            PhaseRow(each, (), (v.BeginAnewAsked, *_ANEW), _BEGUN)
            for each in ("put_back", "stopped", "aborted")
        ),
        PhaseRow("superseded", (), _ANEW, _BEGUN),
    )
}

_EFFECTS = tuple[Any, ...]


def saves_facts(machine: RolloutBook, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, and the save comes before every order that follows from them."""
    saves = [i for i, e in enumerate(effects) if isinstance(e, v.SaveRollout)]
    return saves in ([], [0]) and machine._saved == machine._facts


def orders_for_the_target(machine: RolloutBook, effects: _EFFECTS) -> bool:
    """An order names the head that goes through the partners, and no serial above the newest one of the line."""
    facts = machine._facts
    return not any(
        isinstance(e, v.GiveOrder) and (e.order.head != facts.target or e.order.serial > facts.serial)
        for e in effects
    )


def grants_once(machine: RolloutBook, effects: _EFFECTS) -> bool:
    """A node has one permit for a head at most, and no permit stands without its node."""
    granted = machine._facts.granted
    return len(set(granted)) == len(granted) and len(machine._facts.permits) <= len(granted)


INVARIANTS: tuple[Invariant[RolloutBook], ...] = (saves_facts, orders_for_the_target, grants_once)
