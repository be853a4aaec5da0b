"""Staging and production as real nodes: runs whose nodes are killed."""

from __future__ import annotations

import random

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.sync_fleet import FleetSite
from tests.support.waiting import eventually


@pytest.fixture
def site(fleet: Fleet) -> FleetSite:
    made = FleetSite(fleet)
    made.make()
    fleet.write({"keep": "1", "change": "1", "remove": "1", "d/x": "1"})
    made.run("main", "--initial", "left")
    made.settled()
    return made


def test_killed_at_random_a_run_is_finished_by_the_next(fleet: Fleet, site: FleetSite) -> None:
    """Goal: the node that carries a run out, or the other home, dies in the middle of it; the next run ends as one that was
    never disturbed: all alike, one copy of the collision."""
    rng = random.Random(5)
    for turn in range(4):
        fleet.write({f"left-{turn}-{n}": str(n) for n in range(40)} | {"d/x": f"left {turn}"}, "main")
        fleet.write({f"right-{turn}-{n}": str(n) for n in range(40)} | {"d/x": f"right {turn}"}, "p1")
        victim: Node = fleet[("main", "p1")[turn % 2]]
        phase = rng.choice(("planning", "right", "left", "base"))
        if victim.name == "main":
            victim.environment = {"INSTEP_FAILPOINT": f"sync.{phase}"}
            victim.stop()
            victim.start()
        else:
            victim.environment = {
                "INSTEP_FAILPOINT": rng.choice(("home.applied", "home.change_kept", "home.answer_kept"))
            }
            victim.stop()
            victim.start()
        fleet["main"].run("sync", "run", "site", expect=None)
        victim.await_death()
        victim.environment = {}
        victim.start()
        eventually(lambda: _ran(site), 60, lambda: fleet["main"].log())
        site.settled()
        names = [name for name in site.assert_same() if name.startswith(b"d/x.collision")]
        assert len(names) == turn + 1, names


def _ran(site: FleetSite) -> bool:
    return site.fleet["main"].run("sync", "run", "site", expect=None).code in (0, 20)
