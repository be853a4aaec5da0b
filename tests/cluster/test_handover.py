"""A planned change of writer, there and back, with real daemons."""

from __future__ import annotations

import tomllib

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def row_of(node: Node) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((node.directory / "instep.toml").read_text())["filesets"]["data"]
    return found


def await_same(fleet: Fleet, one: str, other: str) -> None:
    eventually(
        lambda: tree_of(fleet.tree(one)) == tree_of(fleet.tree(other)),
        30.0,
        lambda: f"{one} and {other} differ\n{fleet[one].log()}\n{fleet[other].log()}",
    )


def test_a_handover_loses_nothing_and_goes_back(fleet: Fleet) -> None:
    """Goal: issue 3, point 8: the line goes on at another writer with every generation. Method: three nodes, an
    unpublished change, handover, a change at the new writer, the same command again, and back again."""
    (fleet.tree("main")).mkdir(parents=True)
    (fleet.tree("main") / "a").write_text("one")
    fleet.make(1, add=("--settle", "20ms", "--ignore", "*.tmp"))
    main, s1 = fleet["main"], fleet["s1"]
    fleet.wait()
    path = main.directory / "instep.toml"
    path.write_text("# the operator's own words\n" + path.read_text())
    main.run("config", "reload")
    assert main.run("handover", "data", "s1", "--dry-run").json["dry_run"]
    assert row_of(main)["writer"] == "main"
    (fleet.tree("main") / "b").write_text("written just before")
    given = main.run("handover", "data", "s1", "--timeout", "40s").json
    assert given["changed"]
    assert path.read_text().startswith("# the operator's own words\n")
    assert (row_of(main)["writer"], row_of(main)["origin"]) == ("s1", "main")
    assert "ignore" not in row_of(main)
    assert (row_of(s1)["writer"], row_of(s1)["ignore"]) == ("s1", ["*.tmp"])
    assert (fleet.tree("s1") / "b").read_text() == "written just before"
    assert not main.run("handover", "data", "s1").json["changed"]
    assert main.run("publish", "data", expect=None).error["code"] == "not_the_writer"
    (fleet.tree("s1") / "c").write_text("by the new writer")
    await_same(fleet, "main", "s1")
    line = main.await_standing("in_step")
    assert (line["origin"], line["writer"], line["head"]["epoch"]) == ("main", "s1", 2)
    assert line["head"]["number"] > given["generation"]["number"]
    s1.run("handover", "data", "main", "--timeout", "40s")
    (fleet.tree("main") / "d").write_text("back home")
    await_same(fleet, "s1", "main")
    line = s1.await_standing("in_step")
    assert (line["origin"], line["writer"], line["head"]["epoch"]) == ("main", "main", 3)
