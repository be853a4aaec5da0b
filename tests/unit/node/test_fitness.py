"""Which standings take a node out of a balancer."""

from __future__ import annotations

import msgspec
import pytest

from instep.core.follow.vocabulary import Due, FollowFacts
from instep.model.ids import Digest, HeadRef
from instep.model.standing import Standing, StandingRecord
from instep.node.balance.fitness import LineView, fitness_of
from instep.node.balance.listeners import agent_line
from instep.node.following.follower import is_one_generation
from instep.node.runtime.draining import Drain


def line(
    standing: Standing, *, live: int | None = 4, is_whole: bool = True, here: bool = False, behind_ms: int = 0
) -> LineView:
    return LineView("catalog", StandingRecord(standing, 0), live, here, is_whole, behind_ms)


@pytest.mark.parametrize(
    ("view", "code"),
    [
        *((line(standing), "ready") for standing in Standing if standing is not Standing.DAMAGED),
        (line(Standing.DAMAGED), "damaged"),
        (line(Standing.DAMAGED, here=True), "damaged"),
        (line(Standing.FAILING, is_whole=False), "half_state"),
        (line(Standing.PAUSED, is_whole=False), "half_state"),
        (line(Standing.APPLYING, is_whole=False), "ready"),
        (line(Standing.UNKNOWN, live=None), "first_copy"),
        (line(Standing.APPLYING, live=None), "first_copy"),
        (line(Standing.OBSERVING, live=None), "ready"),
        (line(Standing.UNKNOWN, live=None, here=True), "ready"),
        (line(Standing.UNREACHABLE, behind_ms=31_000), "too_old"),
    ],
)
def test_the_table_of_the_guide(view: LineView, code: str) -> None:
    found = fitness_of("s1", (), (view,), 30_000)
    assert found.code == code
    assert found.is_ready is (code == "ready")
    assert bool(found.reasons) is not found.is_ready


def test_the_agent_says_drained_before_it_says_down() -> None:
    drain = Drain("kernel", 0, None)
    assert agent_line(fitness_of("s1", (drain,), (line(Standing.DAMAGED),), None)) == b"up drain\n"
    assert agent_line(fitness_of("s1", (), (line(Standing.IN_STEP),), None)) == b"up ready\n"
    assert agent_line(fitness_of("s1", (), (line(Standing.DAMAGED),), None)).startswith(
        b"down#catalog: is damaged"
    )


def test_a_node_that_was_put_back_is_offered_before_it_is_recorded() -> None:
    """Goal: once the put-back tree is reloaded and probed, balancers get "ready", or the return would wait for them
    until its deadline; before that, they are not."""
    old, new = (HeadRef(1, n, Digest(bytes([n]) * 32), Digest(bytes([n]) * 32)) for n in (1, 2))
    facts = FollowFacts(head=new, live=new, tree=new, refused=new)
    assert is_one_generation(facts)
    for due in (Due.RELOAD, Due.PROBE):
        assert not is_one_generation(msgspec.structs.replace(facts, tree=old, due=due))
    assert is_one_generation(msgspec.structs.replace(facts, tree=old, due=Due.RECORD))
    assert not is_one_generation(msgspec.structs.replace(facts, live=None, due=Due.RECORD))
