"""Staging and production as real nodes: runs whose nodes are killed, and people who work during runs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.support.fleet import COMMAND_S, Fleet, Node
from tests.support.sync_fleet import FleetSite
from tests.support.waiting import eventually

SOAK_S = float(os.environ.get("INSTEP_SOAK_SECONDS", "0"))
SEED = int(os.environ.get("INSTEP_SEED", "11"))
MOMENTS = 50 if SOAK_S else 3
"""Random moments at which a node is killed."""
PHASES = ("flushing", "planning", "sending", "answered", "following", "base")
"""Failpoints of a run at the home that carries it out; `answered`: one home answered, the other may be at work."""
AT_A_HOME = ("home.change_kept", "home.applied", "home.answer_kept")
EDITS = 60
EVERY_S = 0.05


@pytest.fixture
def site(fleet: Fleet) -> FleetSite:
    made = FleetSite(fleet)
    made.make()
    fleet.write({"keep": "1", "change": "1", "remove": "1", "d/x": "1"})
    made.run("main", "--initial", "left")
    made.settled()
    return made


@pytest.mark.timeout(300 + 20 * MOMENTS)
def test_killed_at_a_phase_or_at_any_moment_a_run_is_finished_by_the_next(
    fleet: Fleet, site: FleetSite
) -> None:
    """Goal: initiator, carrying home or other home dies in a run; the next run ends as one that was never disturbed: all
    alike, one copy of the collision, at most one generation more a side."""
    rng = random.Random(SEED)
    deaths = [("main", f"sync.{rng.choice(PHASES)}"), ("p1", rng.choice(AT_A_HOME))]
    if SOAK_S:
        deaths = [("main", f"sync.{phase}") for phase in PHASES] + [("p1", place) for place in AT_A_HOME]
    moments = [(victim, "") for victim in rng.choices(("main", "p1", "s2"), k=MOMENTS)]
    lasts_s = 1.0
    for turn, (victim, place) in enumerate(deaths + moments, start=1):
        fleet.write({f"left-{turn}-{n}": str(n) for n in range(40)} | {"d/x": f"left {turn}"}, "main")
        fleet.write({f"right-{turn}-{n}": str(n) for n in range(40)} | {"d/x": f"right {turn}"}, "p1")
        site.settled()
        heads = fleet.head("main"), fleet.head("p1")
        lasts_s = _killed(site, fleet[victim], place, rng.uniform(0, lasts_s))
        eventually(lambda: _ran(site), 60, lambda: fleet["main"].log())
        site.settled()
        names = [name for name in site.assert_same() if name.startswith(b"d/x.collision")]
        assert len(names) == turn, names
        more = fleet.head("main") - heads[0], fleet.head("p1") - heads[1]
        assert max(more) <= 2, f"{more} generations in turn {turn}, after a death of {victim} {place}"


def _killed(site: FleetSite, victim: Node, place: str, after_s: float) -> float:
    """A run of ``s2`` in which a node dies, at a failpoint or so long after it began; how long it went on."""
    if place:
        victim.environment = {"INSTEP_FAILPOINT": place}
        victim.stop()
        victim.start()
    began = time.monotonic()
    run = _started(site.fleet["s2"])
    if place:
        victim.await_death()
    else:
        eventually(lambda: time.monotonic() - began >= after_s, describe=lambda: "the moment")
        victim.kill()
    run.communicate(timeout=COMMAND_S)
    victim.environment = {}
    victim.start()
    return time.monotonic() - began


def _started(node: Node) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": node.source, "INSTEP_DIR": str(node.directory)}
    command = [sys.executable, "-m", "instep.cli", "sync", "run", "site", "--json"]
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _ran(site: FleetSite) -> bool:
    return site.fleet["main"].run("sync", "run", "site", expect=None).code in (0, 20)


def test_people_work_at_both_homes_while_runs_go(fleet: Fleet, site: FleetSite) -> None:
    """Goal: twenty edits a second at each home during runs: each run ends, no file is lost, and where both made one of
    the same name both contents are there, one as a listed copy."""
    writers = [threading.Thread(target=_edits, args=(fleet.tree(home), home)) for home in ("main", "p1")]
    for each in writers:
        each.start()
    runs = 0
    while any(each.is_alive() for each in writers):
        runs += _ran(site)
    for each in writers:
        each.join()
    eventually(lambda: _ran(site), 60, lambda: fleet["main"].log())
    site.settled()
    site.assert_same()
    assert runs, "no run ended while people worked"
    tree = fleet.tree("p1")
    texts = {path.read_text(): path.name for path in tree.iterdir() if path.is_file()}
    listed = fleet["main"].run("sync", "collisions", "site").json["listed"]
    copies = {each["copy"] for each in listed if each["copy"]}
    assert copies, "no two files of one name were made"
    for home in ("main", "p1"):
        for number in range(EDITS):
            assert f"own {home} {number}" in texts
            if (fleet.base / f"made-{home}-{number}").exists():
                assert f"same {home} {number}" in texts
    assert {name for name in texts.values() if ".collision-" in name} == copies


def _edits(tree: Path, home: str) -> None:
    """New files, twenty a second; every other name is one that the other home makes too, unless it is there already."""
    base = tree.parents[1]
    began = time.monotonic()
    for number in range(EDITS):
        eventually(lambda: time.monotonic() - began >= number * EVERY_S, describe=lambda: "the next edit")  # noqa: B023
        for name, text in ((f"own-{home}-{number}", "own"), (f"same-{number}", "same")):
            whole = base / f"whole-{home}"
            whole.write_text(f"{text} {home} {number}")
            try:
                os.link(whole, tree / name)
                if text == "same":
                    (base / f"made-{home}-{number}").touch()
            except FileExistsError:
                assert text == "same"  # the other home's came before
            whole.unlink()
