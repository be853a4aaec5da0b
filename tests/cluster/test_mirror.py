"""Three real nodes: a change on one arrives on the others."""

from __future__ import annotations

import os
import random

from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually


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


def test_a_large_file_that_changed_comes_over_a_hub_that_has_no_list_of_its_chunks(fleet: Fleet) -> None:
    """Goal: s2, new, has both files whole and needed no chunk list for the small one; s1, whose old ones differ a
    little, gets both from it alone. Method: the writer stopped before s1 is back."""
    fleet.make(1)
    main, s1 = fleet["main"], fleet["s1"]
    files = {"big": 20 << 20, "medium": 3 << 20}
    for name, size in files.items():
        (fleet.tree("main") / name).write_bytes(random.Random(name).randbytes(size))
    fleet.wait()
    s2 = fleet.join("s2", accept=False)
    fleet.acquaint("main", "s1", "s2")
    s2.run("partner", "set", "s1", "--replicate", "--data", "--hub")
    s1.run("partner", "set", "s2", "--address", f"127.0.0.1:{s2.port}")
    s1.stop()
    for name, size in files.items():
        with (fleet.tree("main") / name).open("r+b") as file:
            file.seek(size // 2)
            file.write(b"changed here")
    main.run("publish", "data")
    main.run("partner", "set", "s2", "--replicate", "--data")
    s2.run("fileset", "accept", "data", str(fleet.tree("s2")), "--from", "main")
    fleet.wait("--node", "s2")
    main.stop()
    s1.start()
    eventually(lambda: tree_of(fleet.tree("s1")) == tree_of(fleet.tree("main")), 30.0, s1.log)
