"""The writer is killed during publish and rollback: no number is used twice, partners come in step."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

import instep.daemon.process  # noqa: F401  registers every failpoint
from instep.tree.root.failpoints import registered
from tests.support.crashes import Crasher, assert_rested, crashers, told
from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import crowding

HERE = ("publish", "history")
NOT_HIT = {"history.collecting": "the house is kept an hour after start: tests/unit/tree/test_history.py"}
BY_PAUSE = "publish.head_saved"
"""Facts are saved apart from a commit when an operator says something."""
ROLLBACK = (
    "stage.laid",
    "stage.sealed",
    "switch.begun",
    "switch.step.after:2",
    "switch.switched",
    "switch.finishing",
    "journal.removed",
    "publish.commit.before",
    "publish.commit.after",
)
TIMEOUT_S = 60.0


def specs() -> list[str]:
    return [name for name in registered() if name.split(".")[0] in HERE and name not in NOT_HIT]


def write(tree: Path, text: str) -> None:
    (tree / "sub").mkdir(parents=True, exist_ok=True)
    for number in range(30):
        (tree / "sub" / f"f{number}").write_text(f"{text}: {number}\n")
    (tree / "sub" / text.replace(" ", "-")).write_text(text)
    (tree / "big").write_bytes(text.encode() * 30_000)


def settled(fleet: Fleet, main: Crasher, s1: Crasher) -> int:
    """Wait until what lies in the writer's tree is live on the partner; the generation's number."""
    waited = main.call("wait", timeout_s=TIMEOUT_S * crowding())
    assert waited["reached"], waited
    number: int = waited["generation"]["number"]
    s1.await_in_step(number)
    assert tree_of(fleet.tree("s1")) == tree_of(fleet.tree("main"))
    for node in (main, s1):
        node.note_numbers()
    assert_rested(fleet, "s1")
    assert_rested(fleet, "main")
    return number


@pytest.mark.timeout(600)
def test_killed_at_every_failpoint_of_publish(fleet: Fleet) -> None:
    """Goal: a number names one root for ever, and every written file arrives, whenever the writer dies. Method: the
    writer is armed, its tree changes, it dies there and is started again."""
    tree = fleet.tree("main")
    write(tree, "begun")
    fleet.make(1)
    with crashers(fleet, "main", "s1") as (main, s1):
        number = settled(fleet, main, s1)
        for spec in specs():
            main.kill()
            if spec == BY_PAUSE:
                main.start(spec)
                told(lambda: main.call("pause"))
            else:
                main.spawn(spec)
                write(tree, spec)
            assert main.await_end(TIMEOUT_S) == -signal.SIGKILL, spec
            main.start()
            if spec == BY_PAUSE:
                assert main.line()["standing"] == "paused", "the pause saved before the death holds"
                main.call("resume")
                write(tree, spec)
            after = settled(fleet, main, s1)
            assert after > number, spec
            number = after


@pytest.mark.timeout(600)
def test_killed_at_every_failpoint_of_a_rollback(fleet: Fleet) -> None:
    """Goal: the same while the tree is rolled back: afterwards it is the old one or the newest, and all are in step."""
    write(fleet.tree("main"), "begun")
    fleet.make(1)
    with crashers(fleet, "main", "s1") as (main, s1):
        settled(fleet, main, s1)
        for spec in ROLLBACK:
            rolled_back_and_killed(fleet, main, s1, spec)


def rolled_back_and_killed(fleet: Fleet, main: Crasher, s1: Crasher, spec: str) -> None:
    tree = fleet.tree("main")
    write(tree, f"before {spec}")
    number = settled(fleet, main, s1)
    target = tree_of(tree, with_times=False)
    write(tree, f"after {spec}")
    settled(fleet, main, s1)
    newest = tree_of(tree, with_times=False)
    main.kill()
    main.start(spec)
    error = told(lambda: main.call("rollback", generation=number, timeout_s=TIMEOUT_S))
    assert error is not None, spec
    assert main.await_end() == -signal.SIGKILL, spec
    main.start()
    settled(fleet, main, s1)
    assert tree_of(tree, with_times=False) in (target, newest), spec


def test_sigterm_during_a_rollback_and_a_publish_ends_soon(fleet: Fleet) -> None:
    """Goal: a graceful stop has a deadline, and interrupted work goes on. Method: SIGTERM while commands run."""
    tree = fleet.tree("main")
    write(tree, "one")
    fleet.make(1)
    with crashers(fleet, "main", "s1") as (main, s1):
        first = settled(fleet, main, s1)
        write(tree, "two")
        settled(fleet, main, s1)
        asking = threading.Thread(target=lambda: told(lambda: main.call("rollback", generation=first)))
        asking.start()
        main.stop()
        asking.join(60)
        assert not asking.is_alive()
        main.start()
        settled(fleet, main, s1)
