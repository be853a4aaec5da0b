"""The tables of phases are complete, and a machine that breaks an invariant says which one."""

from __future__ import annotations

import enum
import typing
from collections.abc import Mapping
from random import Random
from typing import Any

import msgspec
import pytest

from instep.core.changes import home_contract, offer_contract
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_sets import HomePhase
from instep.core.changes.offer_vocabulary import EditState
from instep.core.contract import REST, Broken, PhaseRow, sentence_of
from instep.core.follow import contract as follow_contract
from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.follow.state import FollowPhase
from instep.core.keep import contract as keep_contract
from instep.core.keep import vocabulary as k
from instep.core.keep.phases import KeepPhase
from instep.core.publish import contract as publish_contract
from instep.core.publish import state as publish_state
from instep.core.publish.machine import PublishMachine
from instep.core.publish.restore_vocabulary import WriterAnswer
from instep.core.rollout import contract as rollout_contract
from instep.core.rollout.machine import RolloutMachine
from instep.core.rollout.vocabulary import RolloutState
from instep.testing.simulation import simulate
from tests.golden.dialogue import LINE, MAIN, follower

SEEDS = (5, 9, 2453)


@pytest.mark.parametrize(
    ("table", "phases"),
    [
        (follow_contract.PHASES, FollowPhase),
        (keep_contract.PHASES, KeepPhase),
        (publish_contract.PHASES, publish_state.PublishPhase),
        (rollout_contract.PHASES, RolloutState),
        (home_contract.PHASES, HomePhase),
        (offer_contract.PHASES, EditState),
    ],
)
def test_every_phase_has_a_row_and_names_phases_only(
    table: Mapping[Any, PhaseRow], phases: type[enum.Enum]
) -> None:
    assert set(table) == set(phases)
    names = {REST, *(phase.value for phase in phases)}
    for row in table.values():
        assert set(row.next) <= names, row.phase
        assert len(set(row.next)) == len(row.next), row.phase


@pytest.mark.parametrize(
    ("table", "answers"),
    [
        (follow_contract.PHASES, f.FollowAnswer),
        (keep_contract.PHASES, k.KeepAnswer),
        (publish_contract.PHASES, WriterAnswer),
        (home_contract.PHASES, h.SetAnswer),
    ],
)
def test_every_answer_ends_a_phase(table: Mapping[Any, PhaseRow], answers: Any) -> None:
    assert {event for row in table.values() for event in row.events} == set(typing.get_args(answers))


def test_no_simulated_machine_goes_from_one_phase_to_another_than_its_table_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[tuple[str, str, str]] = set()

    def observe(kind: Any, phase_of: Any) -> None:
        step = kind.step

        def observed(self: Any, *words: Any) -> Any:
            before = phase_of(self) or REST
            effects = step(self, *words)
            seen.add((kind.__name__, before, phase_of(self) or REST))
            return effects

        monkeypatch.setattr(kind, "step", observed)

    observe(FollowMachine, lambda machine: machine.phase)
    observe(PublishMachine, lambda machine: machine.phase)
    observe(RolloutMachine, lambda machine: machine.facts.state.value)
    for seed in SEEDS:
        assert simulate(seed, always_rollouts=seed != SEEDS[0]).broken is None, seed
    allowed = {
        (kind, row.phase, after)
        for kind, table in (
            ("FollowMachine", follow_contract.PHASES),
            ("PublishMachine", publish_contract.PHASES),
            ("RolloutMachine", rollout_contract.PHASES),
        )
        for row in table.values()
        for after in row.next
    }
    assert {edge for edge in seen if edge[1] != REST and edge[1] != edge[2]} <= allowed


def test_every_invariant_says_what_it_states() -> None:
    every: list[Any] = [
        *follow_contract.INVARIANTS,
        *keep_contract.INVARIANTS,
        *publish_contract.INVARIANTS,
        *rollout_contract.INVARIANTS,
        *home_contract.INVARIANTS,
        *offer_contract.INVARIANTS,
    ]
    for invariant in every:
        assert sentence_of(invariant).endswith("."), invariant
        assert sentence_of(invariant) != invariant.__name__


class _SwitchesTwice(FollowMachine):
    def _ordered(self) -> tuple[f.FollowEffect, ...]:
        effects = super()._ordered()
        switches = [msgspec.structs.replace(e, req=1) for e in effects if isinstance(e, f.Switch)]
        return (*effects, *switches)


def test_a_machine_that_begins_two_jobs_breaks_by_name() -> None:
    from tests.golden.test_follow_dialogues import begun, staged

    talk = follower()
    talk.machine = _SwitchesTwice(LINE, f.FollowConfig(writer=MAIN), Random(1))
    with pytest.raises(Broken, match="begins_one_job: A step begins at most one job"):
        staged(begun(talk), 1)


def test_an_answer_of_another_phase_is_not_taken() -> None:
    talk = follower()
    talk.say(f.Started())
    with pytest.raises(AssertionError, match="RECOVER"):
        talk.say(f.Staged(talk.asked(f.Recover)))
