"""A writer whose disk stops taking writes: status says so by itself, and the files there are still served."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.fleet import Fleet, tree_of
from tests.support.mounts import loop_ext4
from tests.support.waiting import eventually


@pytest.mark.parametrize("publish", ["auto", "manual"])
def test_a_disk_that_stops_taking_writes_is_named_and_still_served(fleet: Fleet, publish: str) -> None:
    """Goal: nothing changes in the tree, so no event reports it; a partner that comes later still gets everything."""
    fleet.node("main")
    tree = fleet.tree("main")
    with loop_ext4(fleet.base / "image", tree):
        (tree / "small").write_text("small")
        (tree / "large").write_bytes(b"0123456789abcdef" * 100_000)
        fleet.make(1, add=("--settle", "20ms", "--publish", publish))
        fleet.publish()
        fleet.wait()
        done = subprocess.run(["mount", "-o", "remount,abort", tree], capture_output=True, check=False)
        if done.returncode:
            pytest.skip("this kernel does not stop a file system on request")
        line = fleet.main.await_standing("failing", code="stage_unusable")
        assert "Read-only" in line["reason"] and str(tree) in str(line["next"]), line
        fleet.join("s2", accept=False).run("fileset", "accept", "data", str(fleet.tree("s2")))
        kept = {b"small", b"large"}
        eventually(
            lambda: (
                {path: row for path, row in tree_of(fleet.tree("s2")).items() if path in kept}
                == {path: row for path, row in tree_of(tree).items() if path in kept}
            ),
            describe=lambda: f"{fleet['s2'].line()}\n{fleet.main.log()}",
        )
        failed = [row for row in fleet.main.run("check", expect=None).json["checks"] if not row["ok"]]
        assert [row["name"] for row in failed] == ["root of data"], failed
        fleet.close()
