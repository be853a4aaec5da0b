"""What holds after every step of a ``RolloutMachine``, in production too. Each is cheap; a broken one stops the
line."""

from __future__ import annotations

from typing import Any

from instep.core.contract import Invariant
from instep.core.rollout import vocabulary as v
from instep.core.rollout.book import RolloutBook

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
