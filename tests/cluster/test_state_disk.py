"""The disk of the node directory is full: nothing ends, the standing says it, and it goes on when there is room."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.mounts import mounted
from tests.support.waiting import eventually


def fill(directory: Path) -> Path:
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return ballast


def stands(node: Node, code: str) -> dict[str, Any]:
    eventually(lambda: node.line()["code"] == code, 30, lambda: f"{node.name} stands {node.line()}")
    return node.line()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("role", ["main", "s1"])
def test_a_full_state_disk_stops_nothing_for_good(fleet: Fleet, role: str) -> None:
    tree = fleet.tree("main")
    with mounted("tmpfs", fleet.base / role / "node", options="size=24m,mode=700") as disk:
        tree.mkdir(parents=True)
        (tree / "a").write_text("one")
        fleet.make(1)
        fleet.wait()
        node = fleet[role]
        pid = node.pid
        ballast = fill(disk)
        for number in range(40):
            (tree / f"new-{number}").write_text("x" * 3000)
        line = stands(node, "store_full")
        assert line["standing"] == "failing"
        assert str(node.directory) in line["reason"]
        assert line["next"]
        refused = node.run("retry", "data", expect=8)
        assert refused.error["code"] == "store_full", "a retry that could do nothing says so"
        refused = node.run("pause", "data", expect=8)
        assert refused.error["code"] == "store_full", "a pause that is not recorded is not called one"
        checks = {check["name"]: check for check in node.run("check", expect=None).json["checks"]}
        assert not checks["room for the state"]["ok"]
        os.unlink(ballast)
        node.run("retry", "data")
        fleet.wait()
        fleet.assert_same("s1")
        assert node.pid == pid
        (tree / "a").write_text("two")
        eventually(lambda: (fleet.tree("s1") / "a").read_text() == "two", 30, "it goes on")
