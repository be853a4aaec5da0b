"""Gates of a sync profile over all servers of the side that gets changes, with real services."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time, reached

MODE = '[facts.build_mode]\nvalue = "{}"\n'
PAGES = '[sync.site.kinds.pages]\npaths = ["*.aspx"]\ngates = ["build_mode", "clock"]\n'


@in_virtual_time
async def test_a_run_is_held_until_the_gate_holds_on_every_server_that_gets_changes(tmp_path: Path) -> None:
    """Goal: a mirror of production with another build mode holds the run, with both values, and nothing is changed;
    paths of other kinds, and changes towards staging, need no such gate."""
    async with services(tmp_path) as cluster:
        site = Site(cluster, PAGES, has_p2=True)
        s1, p1, p2 = site.s1, site.p1, site.production[1]
        for node, mode in ((s1, "compiled"), (site.s2, "source"), (p1, "compiled"), (p2, "source")):
            node.tail = MODE.format(mode)
        await site.begin()
        s1.write({"a": "2"})
        assert (await site.run())["phase"] == "done"
        await p2.holds("a", "2")
        s1.write({"a": "3", "page.aspx": "1"})
        heads = await s1.head(), await p1.head()
        dry = await site.run(dry_run=True)
        assert [(row["node"], row["value"], row["wanted"]) for row in dry["gates"]] == [
            ("p2", "source", "compiled")
        ]
        error = await s1.refuses("sync_held", "sync_run", profile="site")
        assert error.reason == "gate build_mode: s1 compiled, p2 source"
        assert (await p1.head(), (p1.tree / "a").read_text()) == (heads[1], "2")
        shown = await s1.call("sync_show", profile="site")
        assert (shown["last"]["phase"], shown["why_not"]) == ("held", "the last run: held")
        assert "sync_held" in {event["what"] for event in await s1.events()}
        p2.tail = MODE.format("compiled")
        await p2.reload()
        assert (await site.run())["phase"] == "done"
        await p2.holds("page.aspx", "1")
        p1.write({"other.aspx": "1"})
        error = await s1.refuses("sync_held", "sync_run", profile="site")
        assert error.reason == "gate build_mode: p1 compiled, s2 source"


@in_virtual_time
async def test_a_server_that_is_away_is_named_and_holds_nothing(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster, keys='gates = ["instep", "platform"]\n', has_p2=True)
        await site.begin()
        p2 = site.production[1]
        await p2.holds("a", "1")
        await p2.stop()

        async def is_away() -> bool:
            found = await site.run(dry_run=True)
            return {(row["node"], row["is_away"]) for row in found["gates"]} == {("p2", True)}

        site.s1.write({"a": "2"})
        await reached(is_away, lambda: "p2 is named")
        assert (await site.run())["phase"] == "done"
        await site.p1.holds("a", "2")
