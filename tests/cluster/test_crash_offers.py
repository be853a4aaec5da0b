"""The node where an edit was made is killed at each moment of its offer, and at random, and so is the home: every edit is
made once, none is lost, none is made again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import instep.daemon.process  # noqa: F401  registers every failpoint
from instep.tree.root.failpoints import registered
from tests.support.crashes import Crasher
from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually, paced

POINTS = tuple(name for name in registered() if name.startswith("offers."))
HITS = ("", ":2", ":3")
RANDOM_KILLS = 10


class Offerer:
    """``s1`` follows with ``drift = "offer"``; both daemons are the test's own."""

    def __init__(self, fleet: Fleet) -> None:
        fleet.make(1, accept=False)
        fleet.write({f"f{number}": f"file {number}\n" for number in range(8)})
        fleet.main.run("fileset", "set", "data", "offers_from=s1")
        fleet.accept("s1", "--drift", "offer")
        fleet.wait()
        fleet["s1"].await_standing("in_step")
        self.fleet = fleet
        self.here = fleet.tree("s1")
        self.home = fleet.tree("main")
        self.main, self.s1 = (Crasher(fleet[name]).take_over() for name in ("main", "s1"))
        self.main.start()

    def alike(self) -> None:
        """Both trees are equal and both nodes rest; nothing that was accepted was taken for a local change."""

        def are() -> bool:
            at_rest = all(self.fleet[name].standing() == "in_step" for name in ("main", "s1"))
            return at_rest and tree_of(self.here) == tree_of(self.home)

        eventually(are, describe=lambda: f"{self.fleet['s1'].line()} {self.fleet['s1'].log()}")

    def arrives(self, name: str) -> None:
        """Wait until the home has made the addition, or the node of the edit is gone."""
        process = self.s1.process
        assert process is not None
        eventually(lambda: (self.home / name).exists() or process.poll() is not None, describe=name)

    def drift(self) -> list[str]:
        items = self.fleet["s1"].run("archive", "list", "data").json["items"]
        return [item["path"] for item in items if item["why"] == "drift"]


@pytest.fixture
def offerer(fleet: Fleet) -> Iterator[Offerer]:
    made = Offerer(fleet)
    try:
        yield made
    finally:
        made.s1.kill()
        made.main.kill()


def test_the_offerer_is_killed_at_each_moment_of_an_offer(offerer: Offerer) -> None:
    """Goal: whichever step it dies at, the changed, the added and the removed file of that turn are so on both nodes after
    the next start, and nothing is in the archive as a local change."""
    here, deaths = offerer.here, 0
    assert len(POINTS) == 2, POINTS
    for turn, (point, hit) in enumerate((point, hit) for point in POINTS for hit in HITS):
        offerer.s1.start(f"{point}{hit}")
        (here / "f0").write_text(f"turn {turn}\n")
        (here / f"added{turn}").write_text(f"new {turn}\n")
        (here / f"f{turn + 1}").unlink()
        if f"{point}{hit}" in ("offers.saved", "offers.saved:2", "offers.answered"):
            assert offerer.s1.await_end() != 0
            deaths += 1
        else:  # Saves may be fewer than the hits that this waits for.
            offerer.arrives(f"added{turn}")
            offerer.s1.kill()
        offerer.s1.start()
        offerer.alike()
        assert (offerer.home / "f0").read_text() == f"turn {turn}\n"
        assert (offerer.home / f"added{turn}").read_text() == f"new {turn}\n"
        assert not (offerer.home / f"f{turn + 1}").exists()
        offerer.s1.stop()
    assert deaths == 3
    offerer.s1.start()
    assert not offerer.drift()


def test_an_answer_that_was_lost_makes_no_change_a_second_time(offerer: Offerer) -> None:
    """Goal: the node dies with the home's answer in its hands, and at the home the file is put back to exactly the state that
    the edit began from. The set that is sent again is not made again: the home's file stays, here too."""
    home = offerer.home / "f1"
    before, stamp = home.read_bytes(), home.stat().st_mtime_ns
    offerer.s1.start("offers.answered")
    (offerer.here / "f1").write_text("once\n")
    assert offerer.s1.await_end() != 0
    eventually(lambda: home.read_text() == "once\n", describe="the edit at the home")
    draft = offerer.fleet.base / "draft"
    draft.write_bytes(before)
    os.utime(draft, ns=(stamp, stamp))
    draft.rename(home)
    offerer.fleet.publish()
    offerer.s1.start()
    eventually(lambda: (offerer.here / "f1").read_bytes() == before, describe="the home's file")
    offerer.alike()
    assert home.read_bytes() == before


def test_both_sides_die_at_random_while_files_are_saved(offerer: Offerer, tmp_path: Path) -> None:
    """Goal: every file that was saved on the follower is on both nodes in the end, with its last contents."""
    chance = random.Random(20)
    offerer.s1.start()
    wanted: dict[str, str] = {}
    for turn in range(RANDOM_KILLS):
        for name in (f"added{turn}", f"f{turn % 4}"):
            wanted[name] = f"{name} at {turn}\n"
            (offerer.here / name).write_text(wanted[name])
        list(paced(2, chance.random()))  # the second comes at a random moment
        victim = chance.choice((offerer.s1, offerer.main))
        victim.kill()
        victim.start()
    offerer.alike()
    for name, text in wanted.items():
        assert (offerer.home / name).read_text() == text, name
