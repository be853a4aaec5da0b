"""Three real daemons of one cluster, each a home of one fileset: files that are made on any arrive at all, and stay its own."""

from __future__ import annotations

from typing import Any

from tests.support.fleet import Fleet
from tests.support.panel import panel_node, signed_in
from tests.support.replicas import HOMES, homes_of, put, texts
from tests.support.waiting import eventually


def _alike(fleet: Fleet, holding: dict[str, str]) -> None:
    def standings() -> dict[str, set[str]]:
        return {
            name: {line["standing"] for line in node.status()["filesets"][0]["lines"]}
            for name, node in fleet.nodes.items()
        }

    def are() -> bool:
        if any(texts(fleet.tree(name)) != holding for name in HOMES):
            return False
        return all(found == {"in_step"} for found in standings().values())

    eventually(
        are,
        60.0,
        describe=lambda: f"{ {name: texts(fleet.tree(name)) for name in HOMES} } {standings()}",
    )


def test_three_homes_of_one_fileset(fleet: Fleet) -> None:
    """Inserts, updates, deletes and an edit elsewhere on each; then one is killed, loses its state and comes back."""
    homes_of(fleet)
    for name in HOMES:
        put(fleet.tree(name), {f"{name}/{number}.xml": f"{name} {number}" for number in range(4)})
    expected = {f"{name}/{number}.xml": f"{name} {number}" for name in HOMES for number in range(4)}
    _alike(fleet, expected)
    for name, other in zip(HOMES, (*HOMES[1:], HOMES[0]), strict=True):
        put(
            fleet.tree(name), {f"{name}/0.xml": "updated", f"{name}/new/9.xml": "new", f"{other}/1.xml": name}
        )
        (fleet.tree(name) / name / "2.xml").unlink()
        (fleet.tree(name) / other / "3.xml").unlink()
        expected |= {f"{name}/0.xml": "updated", f"{name}/new/9.xml": "new", f"{other}/1.xml": name}
    for name in HOMES:
        del expected[f"{name}/2.xml"], expected[f"{name}/3.xml"]
    _alike(fleet, expected)
    heads = {name: fleet.head(name) for name in HOMES}
    node = fleet["s2"]
    node.kill()
    for state in (node.directory / "state").glob("node.db*"):
        state.unlink()
    node.start()
    _alike(fleet, expected)
    assert {name: fleet.head(name) for name in HOMES} == heads
    _collide(fleet)


def _collide(fleet: Fleet) -> None:
    """Both homes of a pair write the same new paths at once: a person sees it, by the commands and the panel of either."""
    main, s1 = fleet.main, fleet["s1"]
    for number in range(5):
        for node in ("main", "s1"):
            (fleet.tree(node) / f"map <b>{number}.xml").write_text(f"map of {node}")

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = s1.run("collisions", "list").json["collisions"]
        return found

    eventually(lambda: bool(listed()), 60.0, describe=lambda: s1.run("status").stdout)
    one = listed()[0]
    shown = s1.run("collisions", "show", one["id"]).json
    assert [side["homes"] for side in shown["sides"]] == [[one["winner"]], [one["loser"]]]
    assert [(fleet.tree("s1") / side["path"]).read_text() for side in shown["sides"]] == [
        f"map of {one['winner']}", f"map of {one['loser']}",
    ]  # fmt: skip
    browser = signed_in(s1, panel_node(s1))
    page = browser.get("/collisions").text
    assert "map &lt;b&gt;" in page
    assert one["id"] in page
    assert "diff -u" in browser.get(f"/collisions/{one['id']}?fileset=data").text
    told = browser.form("/collisions/reviewed", {"id": one["id"], "fileset": "data"})
    assert told.status == 303, told.text
    assert one["id"] not in {each["id"] for each in listed()}
    assert not s1.run("collisions", "reviewed", one["id"]).json["changed"]
    row = next(
        each for each in s1.run("collisions", "list", "--all").json["collisions"] if each["id"] == one["id"]
    )
    assert row["reviewed_by"]
    assert s1.run("collisions", "show", "00000000", expect=4).error["code"] == "unknown_listing"
    eventually(
        lambda: main.run("status").json["filesets"][0]["collisions"] >= 1, 60.0, "its other home lists it"
    )
