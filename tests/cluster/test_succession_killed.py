"""A handover killed where it could be cut in two, on either side: afterwards one node writes, and the same command
finishes it."""

from __future__ import annotations

from contextlib import suppress

import pytest

from instep.errors import InstepError
from tests.support.crashes import Crasher
from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually

STEPS = (
    ("giver", "handover.signed"),
    ("taker", "succession.noted"),
    ("giver", "succession.written"),
)
"""The simulator crashes at every effect; these are where the file, the state and the other side could disagree."""


def writers(*nodes: Crasher) -> list[str]:
    """The nodes of these that say that they write the line themselves and may."""
    found = []
    for node in nodes:
        line = node.line()
        if line["writer"] == node.node.name and line["code"] != "not_the_writer":
            found.append(node.node.name)
    return found


def kill_once(fleet: Fleet, giver: Crasher, taker: Crasher, side: str, point: str) -> None:
    """Hand the line over with one side killed at ``point``, start that side again, and finish."""
    victim = giver if side == "giver" else taker
    victim.stop()
    victim.start(point)
    for node in (giver, taker):
        node.await_line(lambda line: line["standing"] == "in_step")
    (fleet.tree(giver.node.name) / point).write_text(side)
    died = victim.process
    assert died is not None
    eventually(lambda: hand_over(giver, taker) or died.poll() is not None, 40.0, point)
    victim.await_end()
    victim.start()

    def stands() -> str:
        return f"{point}: {writers(giver, taker)}\n{giver.node.log(20)}\n{taker.node.log(20)}"

    eventually(lambda: len(writers(giver, taker)) == 1, 20.0, stands)
    eventually(lambda: hand_over(giver, taker), 40.0, stands)
    assert writers(giver, taker) == [taker.node.name], stands()


def hand_over(giver: Crasher, taker: Crasher) -> bool:
    """The command; whether it says that the taker writes. A killed daemon answers nothing."""
    asked = {"fileset": "data", "node": taker.node.name, "timeout_s": 15.0}
    with suppress(InstepError):
        return bool(giver.control.call("handover", asked, timeout_s=20.0)["writer"] == taker.node.name)
    return False


@pytest.mark.timeout(600)
def test_a_handover_killed_at_any_step_leaves_one_writer_and_the_same_command_finishes_it(
    fleet: Fleet,
) -> None:
    """Goal: no step of a handover can be cut in two. Method: the line goes back and forth between two nodes, one of
    them killed at a named point each time; the files that were written before are there in the end."""
    fleet.make(1)
    (fleet.tree("main") / "first").write_text("first")
    fleet.wait()
    giver, taker = (Crasher(fleet[name]).take_over().start() for name in ("main", "s1"))
    for side, point in STEPS:
        kill_once(fleet, giver, taker, side, point)
        giver, taker = taker, giver
    trees = [tree_of(fleet.tree(name), with_times=False) for name in ("main", "s1")]
    assert trees[0] == trees[1]
    assert {b"first", *(point.encode() for _, point in STEPS)} <= set(trees[0])
    for node in (giver, taker):
        node.stop()
