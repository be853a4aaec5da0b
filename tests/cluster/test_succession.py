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
    """Somebody writes a new file every 50 ms; the names, as they are finished."""
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
        writer.join(10.0)


@pytest.mark.timeout(180)
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
    main.run("partner", "set", "s3", "--replicate", "--data")
    s1.run("partner", "set", "s3", "--replicate", "--data")
    s3.run("partner", "set", "s1", "--address", f"127.0.0.1:{s1.port}")
    s3.run("fileset", "accept", "data", str(fleet.tree("s3")), "--from", "s1")
    await_same(fleet, "s1", "s3")
    assert s3.await_standing("in_step")["writer"] == "s1"
