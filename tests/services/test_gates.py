"""Gates between services: a difference is refused with both values, by the apply and by ``check``."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached


async def _failed(node: ServiceNode) -> dict[str, tuple[str, str]]:
    """What ``check`` refuses, with both values."""
    found = await node.call("check")
    return {row["name"]: (row["ours"], row["theirs"]) for row in found["checks"] if not row["ok"]}


@in_virtual_time
async def test_a_version_that_differs_is_refused_and_recovers_by_itself(tmp_path: Path) -> None:
    """Goal: another version holds every generation back with both values; when the file agrees, the apply goes on by
    itself. A fact that is not defined is named."""
    ours, theirs = tmp_path / "main.version", tmp_path / "s1.version"
    ours.write_text("version=2.25.1\n")
    theirs.write_text("version=2.24.0\n")
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('gates = ["geoserver", "platform", "clock"]',))
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"file": "first"})
        line = await s1.stands("blocked", code="no_such_fact")
        assert "geoserver" in line["reason"], line
        for node, path in ((main, ours), (s1, theirs)):
            node.tail = f'[facts.geoserver]\nfile = "{path}"\nmatch = "version=(.*)"'
            await node.reload()
        line = await s1.stands("blocked", code="gate_differs")
        assert line["reason"] == "gate geoserver: main 2.25.1, s1 2.24.0", line
        assert not (s1.tree / "file").exists()
        assert (await _failed(s1))["gate geoserver of data"] == ("2.24.0", "2.25.1")
        assert (await _failed(main))["gate geoserver of data on s1"] == ("2.25.1", "2.24.0")
        assert (await main.call("node_facts", node="s1"))["facts"]["geoserver"] == "2.24.0"
        theirs.write_text("version=2.25.1\n")

        async def arrives() -> bool:
            return (s1.tree / "file").exists()

        await reached(arrives, lambda: "the apply goes on")
        await s1.stands("in_step")
        assert "gate geoserver of data" not in await _failed(s1)


@in_virtual_time
async def test_another_path_is_refused(tmp_path: Path) -> None:
    """Goal: with the gate ``path`` both roots must be the same path, until the writer asks for something else."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('gates = ["path"]',))
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"file": "first"})
        line = await s1.stands("blocked", code="gate_differs")
        assert line["reason"] == f"gate path: main {main.tree}, s1 {s1.tree}", line
        assert not (s1.tree / "file").exists()
        assert (await _failed(s1))["gate path of data"] == (str(s1.tree), str(main.tree))
        assert (await _failed(main))["gate path of data on s1"] == (str(main.tree), str(s1.tree))
        main.writes(f'gates = ["path = {s1.tree}"]')
        await main.reload()
        await s1.stands("in_step")
        assert "gate path of data" not in await _failed(s1)
