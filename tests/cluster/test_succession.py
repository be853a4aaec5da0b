"""The change of writer with daemons: handed over under writes, killed half way, promoted, claimed twice."""

from __future__ import annotations

import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def row_of(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((node.directory / "instep.toml").read_text())["filesets"]["data"]
    return found


def await_same(fleet: Fleet, *names: str, timeout: float = 30.0) -> None:
    def is_same() -> bool:
        trees = [tree_of(fleet.tree(name), with_times=False) for name in names]
        return all(tree == trees[0] for tree in trees)

    eventually(is_same, timeout, lambda: "\n".join(fleet[name].log(15) for name in names))


def await_writer(node: Node, writer: str, epoch: int) -> dict[str, Any]:
    last: dict[str, Any] = {}

    def is_there() -> bool:
        last.clear()
        last.update(node.line())
        head = last["head"]
        return last["writer"] == writer and head is not None and head["epoch"] >= epoch

    eventually(is_there, 30.0, lambda: f"{node.name}: {last}\n{node.log()}")
    return last


@contextmanager
def writing(tree: Path) -> Iterator[list[str]]:
    """A program writes a new file every 50 ms; the names, as they are finished."""
    done: list[str] = []
    enough = threading.Event()

    def write() -> None:
        while not enough.wait(0.05):
            name = f"w{len(done):04d}"
            (tree / name).write_text(name)
            done.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield done
    finally:
        enough.set()
        writer.join(60)


@pytest.mark.timeout(600)
def test_a_handover_under_writes_loses_nothing_and_who_was_away_learns_it_from_the_old_writer(
    fleet: Fleet,
) -> None:
    """Goal: no generation and no late edit is lost, and a third node follows. Method: three nodes, one of them away
    while the line is given away under writes; a fourth that joins later."""
    fleet.make(2)
    main, s1, s2 = fleet["main"], fleet["s1"], fleet["s2"]
    (fleet.tree("main") / "a").write_text("one")
    fleet.wait()
    refused = main.run("handover", "data", "s1", "--dry-run", expect=4).error
    assert (refused["code"], refused["facts"]["partners"]) == ("not_ready", ["s2"])
    assert "on s1: instep partner set s2 --replicate --data" in refused["hint"]
    fleet.acquaint("s1", "s2")
    s1.run("partner", "set", "s2", "--replicate", "--data")
    assert main.run("handover", "data", "s1", "--dry-run").json["partners"] == ["s2"]
    s2.stop()
    with writing(fleet.tree("main")) as written:
        eventually(lambda: len(written) > 5)
        given = main.run("handover", "data", "s1", "--timeout", "40s").json
        after = len(written)
        eventually(lambda: len(written) > after + 2)
    assert given["changed"]
    s2.start()
    line = await_writer(s2, "s1", 1)
    assert line["origin"] == "main"
    (fleet.tree("s1") / "b").write_text("by the new writer")
    await_same(fleet, "main", "s1", "s2")
    assert s2.await_standing("in_step")["head"]["epoch"] == 2
    kept = {path.name for path in fleet.tree("s1").iterdir()}
    archived = {item["path"] for item in main.run("archive", "list", "data", "--set-aside").json["items"]}
    assert [name for name in written if name not in kept and name not in archived] == []
    s3 = fleet.join("s3", accept=False)
    fleet.acquaint("main", "s1", "s3")
    main.run("partner", "set", "s3", "--replicate", "--data")
    s1.run("partner", "set", "s3", "--replicate", "--data")
    s3.run("partner", "set", "s1", "--address", f"127.0.0.1:{s1.port}")
    s3.run("fileset", "accept", "data", str(fleet.tree("s3")), "--from", "s1")
    await_same(fleet, "s1", "s3")
    assert s3.await_standing("in_step")["writer"] == "s1"


def link(upper: Node, lower: Node) -> None:
    """``lower`` may follow ``upper``: listed there, dialled from here."""
    upper.run("partner", "set", lower.name, "--replicate", "--data")
    lower.run("partner", "set", upper.name, "--address", f"127.0.0.1:{upper.port}")


def promotion(fleet: Fleet) -> tuple[str, ...]:
    """The command that takes the CA from a backup made now on ``main``."""
    secret, backup = fleet.base / "secret", fleet.base / "ca.backup"
    secret.write_text("a long enough passphrase")
    secret.chmod(0o600)
    fleet.main.run("pki", "backup", "--to", str(backup), "--passphrase-file", str(secret))
    return "promote", "data", "--home-is-dead", "--pki-backup", str(backup), "--passphrase-file", str(secret)


@pytest.mark.timeout(600)
def test_a_promotion_loses_exactly_what_it_names_and_the_home_that_is_back_is_told(fleet: Fleet) -> None:
    """Goal: with the home and its CA key gone a partner goes on, naming the lost generations; the home that comes
    back is refused with the reason, and keeps the generations that only it had. Method: s1 away while two generations
    are published, the home killed."""
    fleet.make(2)
    main, s1, s2 = fleet["main"], fleet["s1"], fleet["s2"]
    take = promotion(fleet)
    fleet.write({"kept": "kept"})
    base = fleet.wait()["generation"]
    link(s1, s2)
    s1.stop()
    numbers = []
    for name in ("lost1", "lost2"):
        fleet.write({name: name})
        numbers.append(fleet.publish())
    eventually(lambda: (fleet.tree("s2") / "lost2").exists(), 30.0, s2.log)
    main.kill()
    s1.start()
    assert s1.run("promote", "data", expect=2).error["code"] == "home_lives"
    assert s1.run("promote", "data", "--home-is-dead", expect=4).error["code"] == "no_ca_key"

    def named() -> list[int]:
        return [one["number"] for one in s1.run("promote", "data", "--dry-run").json["lost"]]

    eventually(lambda: named() == numbers, 30.0, s1.log)
    done = s1.run(*take).json
    assert (done["writer"], done["epoch"], done["base"]["id"]) == ("s1", 2, base["id"])
    assert [one["number"] for one in done["lost"]] == numbers
    assert done["lost"][-1]["known_by"] == ["s2"]
    assert done["generation"]["epoch"] == 2 and done["generation"]["number"] > base["number"]
    assert not s1.run(*take).json["changed"]
    await_same(fleet, "s1", "s2")
    assert {path.name for path in fleet.tree("s2").iterdir()} - {".instep"} == {"kept"}
    assert await_writer(s2, "s1", 2)["head"]["epoch"] == 2

    main.start()
    refused = main.await_standing("blocked", code="not_the_writer")
    assert "--from s1 --replace" in refused["next"][0]
    assert main.run("publish", "data", expect=None).error["code"] == "not_the_writer"
    tree = str(fleet.tree("main"))
    told = main.run("fileset", "accept", "data", tree, expect=4).error
    assert told["code"] == "left_behind"
    given = main.run("fileset", "accept", "data", tree, "--from", "s1", "--replace").json
    assert [one["number"] for one in given["set_aside"]] == numbers
    await_same(fleet, "main", "s1")
    archived = {item["path"] for item in main.run("archive", "list", "data").json["items"]}
    assert {"lost1", "lost2"} <= archived


@pytest.mark.timeout(600)
def test_two_nodes_that_claim_one_epoch_are_both_refused_and_named(fleet: Fleet) -> None:
    """Goal: no node follows either, every node names both, and a third record resolves it, which names the
    generations of s2 or that s2 could not be asked. Method: the line handed to s1 and, by the CA, to s2, which did
    not hear of it."""
    fleet.make(2)
    main, s1, s2 = fleet["main"], fleet["s1"], fleet["s2"]
    take = promotion(fleet)
    fleet.write({"kept": "kept"})
    fleet.wait()
    link(s1, s2)
    s2.stop()
    assert main.run("handover", "data", "s1", "--timeout", "40s").json["changed"]
    main.stop()
    s1.stop()
    s2.start()
    assert s2.run(*take).json["epoch"] == 2
    (fleet.tree("s2") / "theirs").write_text("by s2")
    s1.start()
    main.start()
    for node in (s1, s2, main):
        line = node.await_standing("blocked", code="epoch_conflict")
        assert "s1" in line["reason"] and "s2" in line["reason"], line
    assert s1.run("publish", "data", expect=None).error["code"] == "epoch_conflict"
    assert not s2.run("promote", "data", "--dry-run").json["unheard"], "s1 is asked where s2 dials it"
    s2.stop()
    plan = main.run("promote", "data", "--dry-run", "--timeout", "3s").json
    assert [one["node"] for one in plan["unheard"]] == ["s2"], plan
    assert "s2 is not connected" in plan["unheard"][0]["reason"]
    s2.start()
    resolved = main.run("promote", "data", "--home-is-dead").json
    assert (resolved["epoch"], resolved["writer"]) == (3, "main")
    assert resolved["lost"] and not resolved["unheard"], resolved
    assert resolved["lost"][-1]["known_by"] == ["s2"]
    assert (
        s2.await_standing("blocked", code="not_the_writer")["head"]["number"]
        == resolved["lost"][-1]["number"]
    )
    s1.await_standing("in_step")
    assert await_writer(s1, "main", 3)["writer"] == "main"
