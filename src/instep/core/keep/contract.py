"""The contract of the ``KeepMachine`` as data: its phase, and the invariants of every step, in production too."""

from __future__ import annotations

from typing import Any

from instep.core.contract import Invariant, PhaseRow
from instep.core.heads.vocabulary import HeadSuperseded
from instep.core.keep import vocabulary as k
from instep.core.keep.phases import KeepPhase
from instep.core.line_machine import LineMachine, begins_one_job
from instep.core.vocabulary import FetchFailed, FetchPages

PHASES = {
    KeepPhase.FETCH: PhaseRow(
        "fetch", (FetchPages,), (k.PartFetched, FetchFailed, HeadSuperseded), "rest fetch"
    )
}

_Machine = LineMachine[k.KeepFacts, Any, Any, Any, Any]
_EFFECTS = tuple[Any, ...]


def saves_facts(machine: _Machine, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, by at most one effect of it."""
    return sum(isinstance(e, k.SaveKept) for e in effects) <= 1 and machine._saved == machine._facts


def says_what_is_saved(machine: _Machine, effects: _EFFECTS) -> bool:
    """A head is given to the union only as the one that is kept, after the save that names it."""
    said = [at for at, e in enumerate(effects) if isinstance(e, k.KeptHead)]
    saved = [at for at, e in enumerate(effects) if isinstance(e, k.SaveKept)]
    return all(effects[at].head == machine._facts.kept for at in said) and all(
        s < at for s in saved for at in said
    )


def keeps_no_more_than_the_head(machine: _Machine, effects: _EFFECTS) -> bool:
    """The kept generation is not above the head."""
    facts = machine._facts
    return facts.kept is None or (facts.head is not None and facts.kept.position <= facts.head.position)


def fetches_nothing_while_paused(machine: _Machine, effects: _EFFECTS) -> bool:
    """A paused or disputed line fetches nothing."""
    facts = machine._facts
    is_free = not facts.is_paused and facts.epochs.disputed is None
    return is_free or not any(isinstance(e, FetchPages) for e in effects)


INVARIANTS: tuple[Invariant[_Machine], ...] = (
    begins_one_job,
    saves_facts,
    says_what_is_saved,
    keeps_no_more_than_the_head,
    fetches_nothing_while_paused,
)
