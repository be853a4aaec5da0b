"""The worked example of a replication network (M13): three organisations, three clusters, no common CA."""

from __future__ import annotations

from pathlib import Path

from instep.core.reach import TABLE_CLASSES, reach
from tests.golden.test_reach_table import EXPECTED, WORKED_EXAMPLE
from tests.support.fleet import Fleet
from tests.support.waiting import eventually

HOMES = ("alpha", "gamma", "lamda")
BOTH = ("metadata", "data")
Cells = dict[tuple[str, str, str], bool]
"""Whether the documents of a home get to a node, by home, node and class."""


def _root(fleet: Fleet, name: str, of: str) -> Path:
    return fleet.tree(name).parent / f"{name}-{of}"


def _link(fleet: Fleet, inviting: str, joining: str, *rights: str) -> None:
    invited = fleet[inviting].run("invite", joining, "--other-cluster", "--from", "127.0.0.1", *rights).json
    fleet[joining].run("join", invited["tokens"][0]["token"])


def _made(fleet: Fleet) -> None:
    for name in HOMES:
        node = fleet.node(name)
        node.init()
        fleet.set_poll(node, "1s")
        node.start()
    _link(fleet, "gamma", "lamda")
    _link(fleet, "lamda", "alpha", "--hub")
    fleet["alpha"].run("partner", "set", "lamda", "--replicate", "--no-data", "--introduces")
    # alpha and gamma list each other and have no link: each heard of the other over lamda.
    _lists(fleet, "alpha", "gamma", "--data")
    _lists(fleet, "gamma", "alpha")
    for name in HOMES:
        for of in BOTH:
            _root(fleet, name, of).mkdir()
            fleet[name].run(
                "fileset", "add", of, str(_root(fleet, name, of)), "--mode", "replicate", "--class", of,
                "--settle", "20ms",
            )  # fmt: skip


def _lists(fleet: Fleet, name: str, other: str, *flags: str) -> None:
    node = fleet[name]
    eventually(lambda: other in [each["name"] for each in node.run("node", "list").json["nodes"]], 30)
    node.run("partner", "set", other, "--no-replicate", *flags)


def _prints_the_table(fleet: Fleet, name: str) -> None:
    def printed() -> str:
        return fleet[name].run("explain", "--table", json=False).stdout

    eventually(lambda: printed() == EXPECTED.read_text(), 30, printed)


def _await_cells(fleet: Fleet, cells: Cells, text: str | None) -> None:
    """Wait until each node has exactly the documents that it gets, with this text."""

    def are_so() -> bool:
        for (home, node, of), gets in cells.items():
            file = _root(fleet, node, of) / f"{home}.xml"
            found = file.read_text() if file.exists() else None
            if found != (text if gets else None):
                return False
        return True

    eventually(are_so, 90, lambda: str({name: fleet[name].status()["filesets"] for name in HOMES}))


def test_three_clusters_without_a_common_authority(fleet: Fleet) -> None:
    """Goal: six directions, insert, update and delete, two classes: 36 cells as the table says, which every node
    prints. Method: two tokens; alpha verifies gamma's documents by lamda's introduction."""
    _made(fleet)
    cells: Cells = {
        (each.home, each.node, of.value): each.gets
        for home in WORKED_EXAMPLE
        for of in TABLE_CLASSES
        for each in reach(WORKED_EXAMPLE, home, of)
    }
    assert len(cells) * 3 == 36
    for name in HOMES:
        _prints_the_table(fleet, name)
    for act in ("insert", "update", None):
        for home in HOMES:
            for of in BOTH:
                file = _root(fleet, home, of) / f"{home}.xml"
                if act is None:
                    file.unlink()
                else:
                    file.write_text(act)
        _await_cells(fleet, cells, act)
    known = fleet["alpha"].run("pki", "trust", "list").json["trusted"]
    assert {(row["name"], row["how"], row["by"]) for row in known} == {
        ("lamda", "partner", None),
        ("gamma", "introduced", "lamda"),
    }
