"""Three real nodes: what is written on one arrives on the others."""

from __future__ import annotations

import os

from tests.support.fleet import Fleet


def test_changes_of_every_kind_arrive(fleet: Fleet) -> None:
    """Goal: changed, added, renamed, removed and a file that became a directory. Method: one publish each, then
    trees compared byte for byte and by ``verify --fleet --deep``."""
    tree = fleet.base / "main" / "tree"
    (tree / "sub" / "deep").mkdir(parents=True)
    (tree / "empty").mkdir()
    for number in range(300):
        (tree / "sub" / f"f{number}").write_text(f"file {number}\n")
    os.symlink("sub/f1", tree / "link")
    fleet.make()
    fleet.wait()
    fleet.assert_same()
    (tree / "sub" / "f1").write_text("changed")
    fleet.wait()
    fleet.assert_same()
    (tree / "new").write_text("new")
    os.rename(tree / "sub" / "f2", tree / "renamed")
    (tree / "sub" / "f3").unlink()
    (tree / "sub" / "f4").unlink()
    (tree / "sub" / "f4").mkdir()
    (tree / "sub" / "f4" / "inside").write_text("in")
    fleet.wait()
    fleet.assert_same()
    os.rename(tree / "sub", tree / "moved")
    fleet.wait()
    fleet.assert_same()
    verified = fleet.main.run("verify", "--fleet", "--deep").json
    assert verified["identical"]
    assert {node["name"] for node in verified["nodes"]} == {"main", "s1", "s2"}
