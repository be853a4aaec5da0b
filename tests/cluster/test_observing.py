"""Looking without touching, and putting back after a restart in which nothing new was published."""

from __future__ import annotations

from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually


def test_observe_then_seed_then_drift_after_a_restart(fleet: Fleet) -> None:
    """Goal: ``--observe`` reports and never writes, ``diff`` names the paths, ``--seed`` takes over, and drift is put
    back from the source although its head was known before the start. Method: one partner, one by one."""
    fleet.make(1, accept=False)
    for name in ("same", "other"):
        (fleet.tree("main") / name).write_text(name)
    tree, s1 = fleet.tree("s1"), fleet["s1"]
    tree.mkdir()
    (tree / "other").write_text("changed")
    (tree / "mine").write_text("mine")
    before = tree_of(tree)
    fleet.wait()
    refused = s1.run("fileset", "accept", "data", str(tree), expect=4)
    assert refused.error["code"] == "not_empty"
    s1.run("fileset", "accept", "data", str(tree), "--observe")
    line = s1.await_standing("observing", code="differs")
    assert "1 would be added, 1 changed, 1 removed" in line["reason"]
    changes = {one["path"]: one["change"] for one in s1.run("diff", "data").json["changes"]}
    assert changes == {"same": "removed", "other": "changed", "mine": "added"}
    assert tree_of(tree) == before
    assert not (tree / ".instep").exists()
    fleet.accept("s1", "--seed")
    fleet.wait()
    fleet.assert_same()
    s1.stop()
    s1.start()
    s1.await_standing("in_step")
    (tree / "same").write_text("drift")
    eventually(lambda: (tree / "same").read_text() == "same", 20, s1.log)
    fleet.assert_same()
