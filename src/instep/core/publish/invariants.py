"""What holds after every step of a ``PublishMachine``, in production too. Each is cheap; a broken one stops the
line."""

from __future__ import annotations

from typing import Any, TypeVar

from instep.core.contract import Invariant, begins_at_most_one, check_all
from instep.core.publish import vocabulary as p
from instep.core.publish.phases import PHASES
from instep.core.publish.state import PublishPhase, PublishState
from instep.core.vocabulary import Cancel

_EFFECTS = tuple[Any, ...]
EffectsT = TypeVar("EffectsT", bound=tuple[Any, ...])
_NUMBERED = (Cancel, p.AskPartners)
_WITHOUT_RUN = (PublishPhase.RECOVER, PublishPhase.FETCH)


def begins_one_job(machine: PublishState, effects: _EFFECTS) -> bool:
    """A step begins at most one job, by an effect of the phase that it is in, with the number of that job."""
    job = machine._job
    row = None if job is None else PHASES[job.phase]
    return begins_at_most_one(row, 0 if job is None else job.req, _NUMBERED, effects)


def works_for_a_run(machine: PublishState, effects: _EFFECTS) -> bool:
    """A job on the tree belongs to a run, which has the requests that wait for it."""
    job = machine._job
    return job is None or job.phase in _WITHOUT_RUN or machine._run is not None


def saves_facts(machine: PublishState, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, by at most one effect of it."""
    return (
        sum(isinstance(e, p.SavePublish | p.Commit) for e in effects) <= 1
        and machine._saved == machine._facts
    )


def saves_the_number(machine: PublishState, effects: _EFFECTS) -> bool:
    """A commit takes a number that it saves as the highest one, so that no later commit takes it again."""
    return not any(isinstance(e, p.Commit) and e.number != e.facts.highest for e in effects)


def never_commits_while_paused(machine: PublishState, effects: _EFFECTS) -> bool:
    """A paused line, and one that another node writes by now, commits nothing."""
    is_held = machine._facts.is_paused or machine._not_the_writer() is not None
    return not is_held or not any(isinstance(e, p.Commit) for e in effects)


_INVARIANTS: tuple[Invariant[PublishState], ...] = (
    begins_one_job,
    works_for_a_run,
    saves_facts,
    saves_the_number,
    never_commits_while_paused,
)


def invariants_of(machine: PublishState) -> tuple[Invariant[PublishState], ...]:
    """The invariants of a machine of this kind."""
    return _INVARIANTS


def checked(machine: PublishState, effects: EffectsT) -> EffectsT:
    """The effects of a step, once every invariant holds; raises ``Broken``."""
    check_all(invariants_of(machine), machine, effects)
    return effects
