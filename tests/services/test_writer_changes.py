"""The writer of a line changes, as planned, between services."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import tree_of
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_handover_loses_nothing_and_goes_back(tmp_path: Path) -> None:
    """Goal: the line goes on at another writer with every generation: an unpublished change, handover, a change at the
    new writer, the same command again, and back again."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('ignore = ["*.tmp"]',))
        main, s1 = cluster["main"], cluster["s1"]

        async def are_same() -> bool:
            return tree_of(main.tree) == tree_of(s1.tree)

        main.write({"a": "one"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        path, words = main.directory.config, "# the operator's own words\n"
        path.write_text(words + path.read_text())
        await main.call("reload_config")
        assert (await main.call("handover", fileset="data", node="s1", dry_run=True))["dry_run"]
        assert main.settings().writer == "main"
        main.write({"b": "written just before"})
        given = await main.call("handover", fileset="data", node="s1", timeout_s=40)
        assert given["changed"], given
        assert path.read_text().startswith(words)
        assert (main.settings().writer, main.settings().line.origin) == ("s1", "main")
        assert (main.settings().definition, s1.settings().writer) == (None, "s1")
        definition = s1.settings().definition
        assert definition is not None and definition.ignore == ("*.tmp",)
        assert (s1.tree / "b").read_text() == "written just before"
        assert not (await main.call("handover", fileset="data", node="s1"))["changed"]
        await main.refuses("not_the_writer", "publish", fileset="data")
        s1.write({"c": "by the new writer"})
        await reached(are_same, lambda: "the former writer has the change of the new one")
        line = await main.stands("in_step")
        assert (line["origin"], line["writer"], line["head"]["epoch"]) == ("main", "s1", 2)
        assert line["head"]["number"] > given["generation"]["number"]
        await s1.call("handover", fileset="data", node="main", timeout_s=40)
        main.write({"d": "back home"})
        await reached(are_same, lambda: "the change after the way back")
        line = await s1.stands("in_step")
        assert (line["origin"], line["writer"], line["head"]["epoch"]) == ("main", "main", 3)
