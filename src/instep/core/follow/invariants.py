"""What holds after every step of a ``FollowMachine``, in production too. Each is cheap; a broken one stops the line."""

from __future__ import annotations

from typing import Any

from instep.core.contract import Invariant
from instep.core.follow import vocabulary as f
from instep.core.follow.state import FollowPhase, FollowState
from instep.core.line_machine import begins_one_job

_EFFECTS = tuple[Any, ...]
_ACTS = (f.Switch, f.PutBack, f.Revert)


def saves_facts(machine: FollowState, effects: _EFFECTS) -> bool:
    """After a step the facts are saved, by at most one effect of it, or are being recorded as live."""
    saves = sum(isinstance(e, f.SaveFollow | f.RecordLive) for e in effects)
    is_recording = machine._job is not None and machine._job.phase is FollowPhase.RECORD
    return saves <= 1 and (is_recording or machine._saved == machine._facts)


def acts_after_saving(machine: FollowState, effects: _EFFECTS) -> bool:
    """No effect that changes the tree comes before the save of the same step."""
    saved = next((i for i, e in enumerate(effects) if isinstance(e, f.SaveFollow)), 0)
    return not any(isinstance(e, _ACTS) for e in effects[:saved])


def recovers_first(machine: FollowState, effects: _EFFECTS) -> bool:
    """The tree is not changed before the journal of an interrupted switch was brought to an end."""
    return machine._is_recovered or not any(isinstance(e, _ACTS) for e in effects)


def never_switches_while_paused(machine: FollowState, effects: _EFFECTS) -> bool:
    """A paused line does not switch."""
    return not machine._facts.is_paused or not any(isinstance(e, f.Switch) for e in effects)


def never_switches_downwards(machine: FollowState, effects: _EFFECTS) -> bool:
    """A switch goes to a newer generation than the one that the tree holds; only a put-back goes to an older one."""
    return not any(
        isinstance(e, f.Switch) and e.base is not None and e.head.position <= e.base.position for e in effects
    )


def never_switches_to_what_it_refused(machine: FollowState, effects: _EFFECTS) -> bool:
    """A generation that is refused is not switched to (P4): a put-back brought the tree back from it, or will."""
    refused = machine._facts.refused
    return refused is None or not any(isinstance(e, f.Switch) and e.head == refused for e in effects)


INVARIANTS: tuple[Invariant[FollowState], ...] = (
    begins_one_job,
    saves_facts,
    acts_after_saving,
    recovers_first,
    never_switches_while_paused,
    never_switches_downwards,
    never_switches_to_what_it_refused,
)
