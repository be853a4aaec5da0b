"""Staging and production as real nodes: which changes reach which servers, and runs that are killed."""

from __future__ import annotations

import random

import pytest

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually

SERVERS = ("main", "s2", "p1", "p2")


class Site:
    """Staging ``main`` with its mirror ``s2``, production ``p1`` with its mirror ``p2``: a fileset ``data`` on each side.
    ``main`` dials ``p1``, and nothing dials back for a run."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def make(self) -> None:
        fleet = self.fleet
        main = fleet.node("main")
        main.init()
        fleet.tree("main").mkdir()
        main.start()
        main.run("fileset", "add", "data", str(fleet.tree("main")), "--settle", "20ms")
        fleet.join("s2")
        main.run("fileset", "set", "data", "to=s2")
        p1, p2 = fleet.join("p1", accept=False), fleet.join("p2", accept=False)
        fleet.acquaint("p1", "p2")
        fleet.tree("p1").mkdir()
        p1.run("partner", "set", "p2", "--replicate", "--data")
        p1.run("partner", "set", "main", "--replicate", "--data")
        p2.run("partner", "set", "p1", "--address", f"127.0.0.1:{p1.port}")
        main.run("partner", "set", "p1", "--address", f"127.0.0.1:{p1.port}")
        p1.run("fileset", "add", "data", str(fleet.tree("p1")), "--settle", "20ms", "--to", "p2")
        p1.run("fileset", "set", "data", "offers_from=main")
        p1.run("publish", "data", "--over", expect=None)
        p2.run("fileset", "accept", "data", str(fleet.tree("p2")))
        for node in (main, fleet["s2"]):
            node.run(
                *[
                    "sync",
                    "add",
                    "site",
                    "--left",
                    "data@main",
                    "--right",
                    "data@p1",
                    "--initiator",
                    "main",
                    "--initiator",
                    "s2",
                ]
            )

    def run(self, initiator: str = "main", *words: str, expect: int | None = 0) -> dict[str, object]:
        found: dict[str, object] = (
            self.fleet[initiator].run("sync", "run", "site", *words, expect=expect).json
        )
        return found

    def settled(self) -> None:
        """Both mirrors are in step."""
        for home in ("main", "p1"):
            self.fleet[home].run("wait", "data", "--timeout", "60s", timeout=90)

    def trees(self) -> dict[str, dict[bytes, object]]:
        return {name: dict(tree_of(self.fleet.tree(name), with_times=False)) for name in SERVERS}

    def assert_same(self) -> dict[bytes, object]:
        trees = self.trees()
        for name in SERVERS:
            assert trees[name] == trees["main"], name
        return trees["main"]


@pytest.fixture
def site(fleet: Fleet) -> Site:
    made = Site(fleet)
    made.make()
    fleet.write({"keep": "1", "change": "1", "remove": "1", "d/x": "1"})
    made.run("main", "--initial", "left")
    made.settled()
    return made


def test_every_change_reaches_every_server_by_any_initiator(fleet: Fleet, site: Site) -> None:
    """Goal: a file added, changed and removed on staging or on production is so on all four servers after a run, whichever
    staging server started it; production starts none."""
    site.assert_same()
    for initiator in ("main", "s2"):
        for home in ("main", "p1"):
            name = f"{initiator}-{home}"
            fleet.write({f"added-{name}": "1", "change": name}, home)
            (fleet.tree(home) / ("remove" if name == "main-main" else f"keep-{initiator}")).unlink(
                missing_ok=True
            )
            site.run(initiator)
            site.settled()
            whole = site.assert_same()
            assert f"added-{name}".encode() in whole and b"remove" not in whole
    for production in ("p1", "p2"):
        found = fleet[production].run("sync", "run", "site", expect=None)
        assert found.code == (5 if production == "p1" else 4), found
    for name in ("main", "p1"):
        fleet[name].run("verify", "data", "--fleet", "--deep", timeout=90)


def test_killed_at_random_a_run_is_finished_by_the_next(fleet: Fleet, site: Site) -> None:
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


def _ran(site: Site) -> bool:
    return site.fleet["main"].run("sync", "run", "site", expect=None).code in (0, 20)
