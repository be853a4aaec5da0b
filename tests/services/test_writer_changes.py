"""The writer of a line changes, as planned, between services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, services
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


@in_virtual_time
async def test_a_report_ends_with_what_it_is_about(tmp_path: Path) -> None:
    """Goal: a former writer follows and stands so at every node, its own status and check name no partner of before,
    and a partner that removed the fileset while it was cut off is in no answer once it is back."""
    async with services(tmp_path) as cluster:
        cluster.make(2)
        cluster.link("s1", "s2")
        for node in cluster.nodes.values():
            await node.reload()
        main, s1, s2 = (cluster[name] for name in ("main", "s1", "s2"))
        main.write({"a": "1"})
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        assert {"path of data on s1", "path of data on s2"} <= await main.checked()
        await main.call("handover", fileset="data", node="s1", timeout_s=40)
        for text in ("2", "3"):
            s1.write({"a": text})
            assert (await s1.publish(wait=True))["wait"]["reached"]

        async def shown(node: ServiceNode) -> dict[str, str]:
            return {row["name"]: row["standing"] for row in (await node.line())["partners"]}

        async def is_so() -> bool:
            return await shown(s1) == {"main": "in_step", "s2": "in_step"}

        await reached(is_so, lambda: "the former writer is in step")
        assert (await main.line())["standing"] == "in_step"
        assert await shown(main) == {}
        assert not {row for row in await main.checked() if row.endswith(" on s2")}
        cluster.cut("s1", "s2")
        await s2.forget()
        cluster.heal("s1", "s2")

        async def is_gone() -> bool:
            return await shown(s1) == {"main": "in_step"}

        await reached(is_gone, lambda: "its report has ended")
        assert not {row for row in await s1.checked() if row.endswith("of data on s2")}
        found = await s1.call("verify", fileset="data", fleet=True)
        assert {row["name"] for row in found["nodes"]} == {"s1", "main"}
        s1.write({"a": "4"})
        assert (await s1.publish(wait=True))["wait"]["reached"]


@in_virtual_time
async def test_a_paused_partner_is_no_next_writer_and_its_pause_ends_with_the_change(tmp_path: Path) -> None:
    """Goal: a handover to a paused partner waited in vain and said to run it again; and the former home showed the
    pause of another node for ever, which reports to the new writer."""
    async with services(tmp_path) as cluster:
        cluster.make(2)
        cluster.link("s1", "s2")
        main, s1, s2 = cluster["main"], cluster["s1"], cluster["s2"]
        for node in (s1, s2):
            await node.reload()
        main.write({"a": "one"})
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        await s2.call("pause", fileset="data", reason="kernel")

        def standing_at(node: ServiceNode) -> Callable[[], Awaitable[bool]]:
            async def is_paused() -> bool:
                rows = (await node.call("node_list"))["nodes"]
                return bool({row["name"]: row["standing"] for row in rows}["s2"] == "paused")

            return is_paused

        await reached(standing_at(main), lambda: "the report of the pause")
        for dry_run in (True, False):
            error = await main.refuses("paused", "handover", fileset="data", node="s2", dry_run=dry_run)
            assert error.hint == "on s2: instep resume data" and "kernel" in error.reason
        await main.call("handover", fileset="data", node="s1", timeout_s=60)
        await reached(standing_at(s1), lambda: "the report to the new writer")
        await s2.call("resume", fileset="data")
        await s2.stands("in_step")
        assert not await standing_at(main)()
