"""A home that left for ever: its documents go on an operator's word, to the archive, and come back only on another one."""

from __future__ import annotations

from pathlib import Path

from tests.support.replicas import alike, mesh, texts
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_the_line_of_a_home_that_left_goes_to_the_archive_and_stays_away(tmp_path: Path) -> None:
    """Goal: a dry run says what goes; files of others, and one that lost its name against the home, stay; an edit of a
    file of that home is in the archive; a partner that still offers the line changes nothing, nor does a restart."""
    async with services(tmp_path) as cluster:
        nodes = a, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"{node.name}/{number}.xml": f"{node.name} {number}" for number in range(3)})
            node.start()
        everything = {f"{name}/{number}.xml": f"{name} {number}" for name in "abc" for number in range(3)}
        await alike(*nodes, holding=everything)
        forgotten = {"fileset": "data", "origin": "c"}
        await a.refuses("own_line", "fileset_forget_line", fileset="data", origin="a")
        await a.refuses("unknown_line", "fileset_forget_line", fileset="data", origin="z")
        await a.refuses("home_is_here", "fileset_forget_line", **forgotten)
        await c.stop()
        a.write({"c/0.xml": "edited at a"})
        await a.call("wait", fileset="data", timeout_s=1.0)
        would = await a.call("fileset_forget_line", **forgotten, dry_run=True)
        assert (would["changed"], would["paths"], would["bytes"], would["edits"]) == (True, 4, 9, 1)
        assert len(texts(a.tree)) == 9
        done = await a.call("fileset_forget_line", **forgotten)
        assert done | {"dry_run": True} == would
        left = {path: text for path, text in everything.items() if not path.startswith("c/")}
        assert texts(a.tree) == left
        assert not (a.tree / "c").exists()
        archived = await a.archived()
        assert {path: (item["why"], item["entries"]) for path, item in archived.items()} == {
            "c": ("removed", 4), "c/0.xml": ("drift", 1),
        }  # fmt: skip
        assert texts(b.tree) == everything
        assert not (await a.call("fileset_forget_line", **forgotten))["changed"]
        await a.stop()
        a.start()
        c.start()
        c.write({"c/3.xml": "c 3"})

        async def has_it() -> bool:
            return "c/3.xml" in texts(b.tree)

        await reached(has_it, lambda: "b has the new file of c")
        await a.call("wait", fileset="data", timeout_s=2.0)
        assert texts(a.tree) == left
        assert (await a.call("fileset_forget_line", **forgotten, take_back=True))["changed"]
        await alike(*nodes, holding=everything | {"c/3.xml": "c 3"})
