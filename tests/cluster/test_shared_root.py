"""A mirror whose followers share one root: one of them lays generations, each reloads what its own mount shows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.shared_storage import SharedStorage, is_twin_here, shared_storage
from tests.support.waiting import eventually


@pytest.fixture
def storage(fleet: Fleet) -> Iterator[SharedStorage]:
    with shared_storage(fleet) as made:
        yield made


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStorage]:
    """``s1`` and ``s2`` on one root, for the tests that leave both running."""
    with shared_storage(Fleet(tmp_path_factory.mktemp("shared"))) as made:
        made.make("s1", "s2")
        yield made


def holder(node: Node) -> str | None:
    rows = node.run("lease", "list").json["leases"]
    return next((row["holder"] for row in rows if row["name"] == "apply:data"), None)


def reload_copies(node: Node, root: Path, log: Path) -> None:
    """Its reload copies what the application reads at that moment."""
    script = log.with_suffix(".sh")
    script.write_text(f"#!/bin/sh\ncat {root}/new* {root}/a >> {log}; echo >> {log}\n")
    script.chmod(0o755)
    with (node.directory / "instep.toml").open("a") as file:
        file.write(f'\n[[filesets.data.hooks.reload]]\nrun = ["{script}"]\n')
    node.run("config", "reload")


def test_one_node_lays_and_each_reloads_what_it_sees(pair: SharedStorage) -> None:
    fleet = pair.fleet
    fleet_names = ("s1", "s2")
    logs = {}
    for name in fleet_names:
        logs[name] = fleet.base / f"{name}.log"
        reload_copies(fleet[name], fleet.tree(name), logs[name])
    for number in range(3):
        for name in fleet_names:  # from now on its mount remembers that the file is not there
            assert not (fleet.tree(name) / f"new{number}").exists()
        wanted = "".join(f"new {each}, " for each in range(number + 1)) + "longer " * (number + 1)
        fleet.write(
            {"a": "longer " * (number + 1), f"new{number}": f"new {number}, ", f"d{number}/b": "b" * 10_000}
        )
        fleet.wait()
        for name in fleet_names:
            assert logs[name].read_text().splitlines()[-1] == wanted, name
        fleet.assert_same()
    for name in fleet_names:
        rows = {row["name"]: row for row in fleet[name].run("check", expect=None).json["checks"]}
        for kind in ("fcntl", "flock"):
            said = rows[f"{kind} locks of {other(name)} in data"]["theirs"]
            assert said.startswith("not seen here" if is_twin_here() else "seen here"), said


def test_a_change_by_an_application_of_any_node_is_restored_by_the_holder(pair: SharedStorage) -> None:
    fleet = pair.fleet
    fleet.write({"local": "ours"})
    fleet.wait()
    first = holder(fleet.main)
    assert first is not None
    (fleet.tree(other(first)) / "local").write_text("an application was here")
    eventually(lambda: (pair.server / "local").read_text() == "ours", describe=fleet[first].log)
    held = fleet[first].run("archive", "list", "data").json["items"]
    assert "local" in {item["path"] for item in held}


def test_a_holder_whose_mount_hangs_leaves_the_root_to_another(pair: SharedStorage) -> None:
    """Goal: it is named at once, answers, and writes nothing; the other node lays what comes meanwhile."""
    fleet = pair.fleet
    fleet.write({"late": "one"})
    fleet.wait()
    first = holder(fleet.main)
    assert first is not None
    with pair.hanging(first):
        fleet[first].await_standing("failing", code="root_silent")
        eventually(lambda: holder(fleet.main) == other(first))
        fleet.write({"late": "two"})
        eventually(lambda: (pair.server / "late").read_text() == "two", describe=fleet[other(first)].log)
        assert fleet[first].line()["code"] == "root_silent"
    fleet.wait()
    fleet[first].await_standing("in_step")
    assert holder(fleet.main) == other(first)


def test_without_the_database_no_node_lays_and_each_says_so(pair: SharedStorage) -> None:
    """Goal: the holder stops in time, nothing is written, and all go on by themselves."""
    fleet, file = pair.fleet, pair.fleet.base / "cluster"
    fleet.write({"later": "one"})
    fleet.wait()
    file.chmod(0o644)  # the address is refused until the mode is right again
    eventually(lambda: not any(fleet[name].status()["database"]["reached"] for name in ("s1", "s2")))
    fleet.write({"later": "two"})
    for name in ("s1", "s2"):
        fleet[name].await_standing("failing", "blocked", code="cluster_file_mode")
    assert (pair.server / "later").read_text() == "one"
    file.chmod(0o600)
    eventually(lambda: (pair.server / "later").read_text() == "two")
    fleet.wait()
    fleet.assert_same()


def test_a_mount_that_is_gone_or_another_one_is_no_empty_tree(pair: SharedStorage) -> None:
    fleet = pair.fleet
    fleet.write({"kept": "one"})
    fleet.wait()
    first = holder(fleet.main)
    assert first is not None
    pair.unmount(first)
    fleet[first].await_standing("failing", "blocked", code="marker_missing")
    eventually(lambda: holder(fleet.main) == other(first))
    fleet.write({"kept": "two"})
    eventually(lambda: (pair.server / "kept").read_text() == "two")
    assert os.listdir(fleet.tree(first)) == []
    pair.mount(first)
    fleet.wait()
    fleet.assert_same()


def other(name: str) -> str:
    return "s2" if name == "s1" else "s1"


def begun_again(storage: SharedStorage, failpoint: str) -> tuple[Node, Node]:
    """The holder, which runs anew with a failpoint, and the other node."""
    fleet = storage.fleet
    first = holder(fleet.main)
    assert first is not None
    fleet[first].environment["INSTEP_FAILPOINT"] = failpoint
    fleet[first].stop()
    eventually(lambda: holder(fleet.main) == other(first), describe="a stopped node to give the lease back")
    fleet[first].start()
    fleet[other(first)].stop()
    eventually(lambda: holder(fleet.main) == first)
    fleet[first].await_standing("in_step")
    fleet[other(first)].start()
    return fleet[first], fleet[other(first)]


def served(storage: SharedStorage) -> dict[str, str]:
    return {path.name: path.read_text() for path in storage.server.iterdir() if path.is_file()}


def test_what_a_killed_holder_began_is_done_by_the_next(storage: SharedStorage) -> None:
    """Goal: the tree that is half of two generations becomes whole, and the node that comes back begins no old switch."""
    fleet = storage.fleet
    storage.make("s1", "s2")
    fleet.write(dict.fromkeys("abc", "one"))
    fleet.wait()
    dead, next_one = begun_again(storage, "switch.step.after:2=kill")
    fleet.write(dict.fromkeys("abc", "two"))
    dead.await_death()
    assert sorted(served(storage).values()) == ["one", "two", "two"]
    eventually(lambda: set(served(storage).values()) == {"two"}, describe=lambda: str(served(storage)))
    next_one.await_standing("in_step")
    fleet.write(dict.fromkeys("ab", "three"))
    eventually(lambda: served(storage)["b"] == "three")
    dead.environment.clear()
    dead.start()
    fleet.wait()
    assert served(storage) == {"a": "three", "b": "three", "c": "two"}
    assert holder(fleet.main) == next_one.name
    next_one.stop()
    eventually(lambda: holder(fleet.main) == dead.name)
    fleet.write({"a": "four"})
    eventually(lambda: served(storage)["a"] == "four", describe=dead.log)
    assert "journal_set_aside" in dead.run("events").stdout
    assert served(storage) == {"a": "four", "b": "three", "c": "two"}


def _outcome(storage: SharedStorage, node: Node) -> str | None:
    """Whether the next node laid everything, or cannot because the database is locked."""
    if set(served(storage).values()) == {"three"}:
        return "laid"
    return "locked" if "was busy" in str(node.line()["reason"]) else None


def _fallen_asleep(storage: SharedStorage) -> tuple[Node, Node, str | None]:
    """The holder, stopped in the middle of a switch, the next one, and what that one can do."""
    asleep, next_one = begun_again(storage, "switch.step.after:1=stop")
    storage.fleet.write(dict.fromkeys("abc", "two"))
    eventually(lambda: "two" in served(storage).values())
    storage.fleet.write(dict.fromkeys("abc", "three"))
    return asleep, next_one, eventually(lambda: _outcome(storage, next_one), describe=next_one.log)


def _pid(node: Node) -> int:
    assert node.pid is not None
    return node.pid


def test_a_holder_that_slept_writes_nothing_more(storage: SharedStorage) -> None:
    """Goal: it was stopped in the middle of a switch, others went on meanwhile, and its next step is refused."""
    fleet = storage.fleet
    storage.make("s1", "s2")
    fleet.write(dict.fromkeys("abc", "one"))
    fleet.wait()
    asleep, next_one, outcome = _fallen_asleep(storage)
    for _ in range(3):
        if outcome == "laid":
            break
        os.kill(
            _pid(asleep), signal.SIGCONT
        )  # it stopped inside a transaction of SQLite, which locks a whole file
        fleet.wait()
        asleep, next_one, outcome = _fallen_asleep(storage)
    assert outcome == "laid", next_one.log()
    os.kill(_pid(asleep), signal.SIGCONT)
    eventually(lambda: "fenced" in asleep.run("events").stdout, describe=asleep.log)
    fleet.wait()
    assert set(served(storage).values()) == {"three"}
    assert "drift" not in next_one.run("events").stdout, "its steps went on, and were taken back"
