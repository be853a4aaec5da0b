"""Once an accept has returned, the writer knows of that node: a wait there waits for it."""

from __future__ import annotations

from tests.support.fleet import Fleet, tree_of


def test_a_wait_right_after_an_accept_waits_for_that_node(fleet: Fleet) -> None:
    """Goal: ``wait`` on the writer never says that all are in step before a node that accepted just now is. Method: the
    files of the partner right after ``wait`` returned; the writer's own list right after each accept."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    for number in range(300):
        (tree / f"f{number}").write_bytes(b"%d" % number * 2_000)
    fleet.make(1, accept=False)
    fleet.main.run("wait", "data", "--timeout", "60s")
    fleet["s1"].run("fileset", "accept", "data", str(fleet.tree("s1")))
    rows = {row["name"]: row["standing"] for row in fleet.main.line()["partners"]}
    assert "s1" in rows, "the writer did not hear of it before the accept returned"
    assert rows["s1"] != "observing"
    assert fleet.main.run("wait", "data", "--timeout", "60s").json["reached"]
    assert tree_of(fleet.tree("s1")) == tree_of(tree)
