"""A root on a file system that hangs: the node says so, is not ready, and does everything else as before."""

from __future__ import annotations

import pytest

from tests.cluster.test_readiness import asked, put
from tests.support.fleet import Fleet, free_port
from tests.support.mounts import dead_mount
from tests.support.waiting import eventually

COMMANDS: dict[str, list[tuple[str, ...]]] = {
    "main": [("publish",), ("restore", "--dry-run")],
    "s1": [("archive", "prune")],
}


@pytest.mark.parametrize("name", ["main", "s1"])
def test_a_node_whose_root_hangs_is_not_ready_and_answers(fleet: Fleet, name: str) -> None:
    """Goal: every question gets its answer while no call to the tree comes back; the node serves again by itself."""
    fleet.make(1)
    fleet.write({"a": "a", "d/b": "b"})
    fleet.wait()
    node, health = fleet[name], free_port()
    put(node, health=f"127.0.0.1:{health}")
    eventually(lambda: asked(health)[0] == 200)
    with dead_mount(fleet.tree(name)):
        left = node.run("archive", "prune", "data", expect=8).error
        assert (left["code"], left["facts"]["root"]) == ("root_silent", str(fleet.tree(name))), left
        assert left["hint"].endswith("instep status"), left
        eventually(lambda: asked(health)[0] == 503, describe=lambda: str(asked(health)))
        _, told = asked(health)
        assert told["filesets"][0]["code"] == "root_silent", told
        line = node.line()
        assert (line["standing"], line["code"]) == ("failing", "root_silent"), line
        assert str(fleet.tree(name)) in line["reason"], line
        put(node, poll="7s")
        assert node.status()["config"]["state"] == "current"
        node.run("partner", "list")
        node.run("node", "list")
        failed = [row["name"] for row in node.run("check", expect=None).json["checks"] if not row["ok"]]
        assert "root of data" in failed, failed
        for words in (("log",), ("diff",), ("verify",), ("archive", "list"), *COMMANDS[name]):
            assert node.run(*words, "data", expect=8).error["code"] == "root_silent", words
        if name == "s1":
            eventually(lambda: fleet.main.line()["partners"][0]["code"] == "root_silent")
    eventually(lambda: asked(health)[0] == 200, describe=lambda: str(asked(health)))
    node.await_standing("in_step")
    fleet.write({"a": "newer"})
    fleet.wait()
    fleet.assert_same("s1")
