"""Every line of a fileset of many homes is verified on every node, and the sentences about a line name who can help."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.replicas import alike, mesh
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

LARGE = "x" * 200_000


def _by_line(found: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(node["origin"], node["name"]): node for node in found["nodes"]}


@in_virtual_time
async def test_each_line_is_compared_on_each_node(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = _, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"{node.name}/{n}.xml": f"{node.name} {n}" for n in range(3)})
            node.start()
        await alike(*nodes)
        found = await b.call("verify", fileset="data", fleet=True, deep=True)
        assert found["identical"], found
        assert set(_by_line(found)) == {(origin, name) for origin in "abc" for name in "abc"}
        await c.call("pause", fileset="data")
        (c.tree / "a/1.xml").write_text("other")
        found = await b.call("verify", fileset="data", fleet=True)
        assert not found["identical"]
        differs = {key: node["differs"] for key, node in _by_line(found).items() if node["differs"]}
        assert {key: [each["path"] for each in paths] for key, paths in differs.items()} == {
            ("a", "c"): ["a/1.xml"]
        }
        await c.stop()
        found = await b.call("verify", fileset="data", fleet=True)
        assert not found["identical"]
        assert _by_line(found)["c", "c"]["code"] == "not_connected"


async def _line_of(node: ServiceNode, origin: str) -> dict[str, Any]:
    lines = (await node.status())["filesets"][0]["lines"]
    found: dict[str, Any] = next(line for line in lines if line["origin"] == origin)
    return found


@in_virtual_time
async def test_a_withheld_file_is_no_attested_one_and_names_who_was_asked(tmp_path: Path) -> None:
    """The third home has it, and may not pass it on."""
    async with services(tmp_path) as cluster:
        nodes = a, b, _ = mesh(cluster, "a", "b", "c", keys=('history = "off"',))
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        cluster.cut("a", "b")
        a.write({"large.bin": LARGE})
        await nodes[2].holds("large.bin", LARGE)
        await a.call("pause", fileset="data")
        (a.tree / "large.bin").rename(tmp_path / "away")
        cluster.heal("a", "b")

        async def is_withheld() -> bool:
            return bool((await _line_of(b, "a"))["code"] == "withheld")

        await reached(is_withheld, lambda: "the file is withheld")
        line = await _line_of(b, "a")
        assert "cannot be had of a, which was asked: large.bin" in line["reason"]
        assert "c has the line of a as well and may not pass it on" in line["reason"]
        (own,) = (n for n in (await b.call("verify", fileset="data"))["nodes"] if n["origin"] == "a")
        assert own["root"] is None
        assert [(each["path"], each["why"]) for each in own["differs"]] == [("large.bin", "withheld")]


@in_virtual_time
async def test_a_home_that_is_away_is_no_home_that_another_node_takes_over(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        await a.stop()

        async def is_away() -> bool:
            return bool((await _line_of(b, "a"))["standing"] == "unreachable")

        await reached(is_away, lambda: "a is away")
        assert (await _line_of(b, "a"))["next"] == ["instep check"]
