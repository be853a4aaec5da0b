"""The contract of the ``HomeMachine`` as data: the phases of a change set, and the invariants of every step.

An invariant is cheap; a broken one stops the line's changes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_sets import HomePhase, HomeSets
from instep.core.contract import REST, Invariant, PhaseRow
from instep.model.paths import sort_key

PHASES = {
    HomePhase(row.phase): row
    for row in (
        PhaseRow("look", (h.LookUp,), (h.LookedUp,), f"fetch ready apply recover {REST}"),
        PhaseRow("fetch", (h.FetchOffered,), (h.ContentsHere, h.ContentsFailed), f"ready apply {REST}"),
        PhaseRow("ready", (), (), f"apply {REST}"),
        PhaseRow("apply", (h.ApplyChanges,), (h.ChangesApplied, h.ApplyFailed), f"publish recover {REST}"),
        PhaseRow(
            "recover",
            (h.RecoverChanges,),
            (h.ChangesRecovered, h.ChangesNotRecovered),
            f"publish apply {REST}",
        ),
        PhaseRow("publish", (h.PublishPaths,), (h.PathsPublished,), f"apply {REST}"),
    )
}

_EFFECTS = tuple[Any, ...]


def saves_facts(machine: HomeSets, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, and only rows that they name come before the save."""
    saves = [i for i, effect in enumerate(effects) if isinstance(effect, h.SaveHome)]
    early = effects[: saves[0]] if saves else ()
    return (
        len(saves) <= 1
        and machine._saved == machine._facts
        and all(isinstance(effect, h.KeepChange | h.KeepAnswer) for effect in early)
    )


def names_the_set_before_its_apply(machine: HomeSets, effects: _EFFECTS) -> bool:
    """A set is kept and named in the facts before it is applied, one at a time."""
    applied = [effect.id for effect in effects if isinstance(effect, h.ApplyChanges)]
    kept = [effect.id for effect in effects if isinstance(effect, h.KeepChange)]
    applying = machine._facts.applying
    return applied == kept and (not applied or (applying is not None and applied == [applying.id]))


def keeps_what_it_answers(machine: HomeSets, effects: _EFFECTS) -> bool:
    """An answer is sent behind the effect that keeps it, and its set waits for nothing any more."""
    sent = [i for i, effect in enumerate(effects) if isinstance(effect, h.ReplyChange)]
    kept = [i for i, effect in enumerate(effects) if isinstance(effect, h.KeepAnswer)]
    answered = {effects[i].answer.id for i in (*sent, *kept)}
    return max(kept, default=-1) < min(sent, default=len(effects)) and not answered & set(machine._sets)


def locks_each_path_once(machine: HomeSets, effects: _EFFECTS) -> bool:
    """No path has two locks, no two locks have one counter, and none is above the newest one."""
    locks = machine._facts.locks
    counters = [lock.fence.counter for lock in locks]
    return (
        all(sort_key(a.path) < sort_key(b.path) for a, b in pairwise(locks))
        and len(set(counters)) == len(counters)
        and max(counters, default=0) <= machine._facts.counter
    )


INVARIANTS: tuple[Invariant[HomeSets], ...] = (
    saves_facts,
    names_the_set_before_its_apply,
    keeps_what_it_answers,
    locks_each_path_once,
)
