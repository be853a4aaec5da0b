"""``explain`` knows the rows of the whole network: the worked example (M13) as running nodes."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import Services, services
from tests.support.virtual_time import in_virtual_time, reached

EXPECTED = Path(__file__).parent.parent / "golden" / "reach" / "worked_example.txt"
ALL, NOTHING = "replicate = true\ndata = true", ""


def _make(cluster: Services) -> None:
    rows = {
        "gamma": {"lamda": ALL, "alpha": NOTHING},
        "alpha": {"lamda": "replicate = true", "gamma": "data = true"},
        "lamda": {"alpha": f"{ALL}\nhub = true", "gamma": NOTHING},
    }
    for name in rows:
        cluster.add(name)
    cluster["gamma"].writes()
    cluster["lamda"].follows(cluster["gamma"])
    cluster["alpha"].follows(cluster["gamma"])
    for name, listed in rows.items():
        for partner, row in listed.items():
            dials = f'address = "{cluster[partner].address}"\n' if name < partner or name == "lamda" else ""
            cluster[name].partners[partner] = dials + row
    for node in cluster.nodes.values():
        node.start()


async def _prints(cluster: Services, name: str, text: str) -> None:
    last = [""]

    async def is_so() -> bool:
        last[0] = (await cluster[name].call("explain_table"))["text"]
        return last[0] == text

    await reached(is_so, lambda: f"{name} prints {last[0]}")


@in_virtual_time
async def test_every_node_prints_the_table_of_the_network(tmp_path: Path) -> None:
    """Goal: 36 cells, byte for byte, on each of the three nodes, and rows that are changed arrive. Method: the rows of
    the example, each link dialled by one side; then alpha gets a row for gamma that is not void."""
    async with services(tmp_path) as cluster:
        _make(cluster)
        expected = EXPECTED.read_text(encoding="utf-8")
        for name in cluster.nodes:
            await _prints(cluster, name, expected)
        found = await cluster["gamma"].call("explain_table")
        assert len(found["ways"]) * 3 == 36
        assert found["untold"] == []
        cluster["gamma"].write({"file": "1"})
        await cluster["alpha"].holds("file", "1")
        explained = await cluster["gamma"].call("explain", fileset="data", path="file")
        to = {row["node"]: row for row in explained["to"]}
        assert to["lamda"]["gets"]
        assert to["alpha"]["gets"]
        assert to["alpha"]["via"] == ["gamma", "lamda"], to["alpha"]
        cluster["lamda"].partners["alpha"] = cluster["lamda"].partners["alpha"].replace("hub = true", "")
        await cluster["lamda"].reload()
        await _prints(cluster, "gamma", (await cluster["lamda"].call("explain_table"))["text"])
        explained = await cluster["gamma"].call("explain", fileset="data")
        to = {row["node"]: row for row in explained["to"]}
        assert not to["alpha"]["gets"]


@in_virtual_time
async def test_a_node_that_told_no_rows_is_named(tmp_path: Path) -> None:
    """Goal: the table does not invent what a node that was never connected would say. Method: only gamma runs."""
    async with services(tmp_path) as cluster:
        _make(cluster)
        for name in ("alpha", "lamda"):
            await cluster[name].stop()
        await cluster["gamma"].stop()
        cluster["gamma"].store.put("members", b"\x90")
        cluster["gamma"].start()
        found = await cluster["gamma"].call("explain_table")
        assert found["untold"] == ["alpha", "lamda"]
        whys = {(row["home"], row["node"], row["class"]): row["why"] for row in found["ways"]}
        assert whys["gamma", "lamda", "data"] == "lamda has not told its rows"
