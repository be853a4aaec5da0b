"""A file of another home that is renamed here: its new name waits for the answer, and the outcome is named."""

from __future__ import annotations

from pathlib import Path

from tests.support.replicas import alike, mesh, texts
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_new_name_waits_for_the_home_and_is_a_copy_where_the_home_keeps_the_file(
    tmp_path: Path,
) -> None:
    """Goal: while the home is away the new name is shown as waiting and not published; the home has changed the file
    meanwhile, so both names are there then, and an event says whose the new one is. A rename that the home takes is none."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        a.write({"taken.xml": "of a"})
        await alike(*nodes)
        (b.tree / "taken.xml").rename(b.tree / "moved.xml")
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1", "moved.xml": "of a"})
        cluster.cut("a", "b")
        a.write({"a.xml": "2"})
        await a.publish()
        (b.tree / "a.xml").rename(b.tree / "renamed.xml")

        async def waits() -> bool:
            lines = {line["origin"]: line for line in (await b.status())["filesets"][0]["lines"]}
            return "1 new path waits for the answer: renamed.xml" in (lines["a"]["reason"] or "")

        await reached(waits, lambda: f"the new name waits: {texts(b.tree)}")
        assert await b.head() == 2, "nothing is published meanwhile"
        cluster.heal("a", "b")
        await alike(*nodes, holding={"a.xml": "2", "b.xml": "1", "moved.xml": "of a", "renamed.xml": "1"})
        (kept,) = (row["text"] for row in await b.events() if row["what"] == "rename_kept")
        assert kept.startswith("renamed.xml was renamed here from a.xml"), kept
