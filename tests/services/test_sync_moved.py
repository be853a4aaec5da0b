"""Sync profiles whose home gave its line to a mirror: the step is named, and the profile works with the new home."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.sync_site import Site, files
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_after_a_handover_of_production_the_profile_names_the_new_home(tmp_path: Path) -> None:
    """Goal: the run is refused with the command that names the new home, and with it changes go both ways again."""
    async with services(tmp_path) as cluster:
        site = Site(cluster, has_p2=True)
        s1, p1, p2 = site.s1, site.p1, site.production[1]
        cluster.link("p2", "s1")
        await site.begin()
        await p1.call("handover", fileset="data", node="p2")
        error = await s1.refuses("home_moved", "sync_run", profile="site")
        assert "p1 does not write data any more: p2 does" in error.reason
        assert "instep sync add site --left data@s1 --right data@p2;" in (error.hint or "")
        shown = await s1.call("sync_show", profile="site")
        assert "p2 does" in shown["why_not"] and shown["last"]["error"]["hint"] == error.hint
        await p2.set(offers_from="s1")
        s1.tail = s1.tail.replace("data@p1", "data@p2")
        await s1.reload()
        await s1.refuses("no_base", "sync_run", profile="site")
        await site.run(initial="left")
        s1.write({"a": "2"})
        p2.write({"uploads/u": "2"})
        assert (await site.run())["phase"] == "done"
        assert files(s1.tree) == files(p2.tree)
        assert (p2.tree / "a").read_text() == (s1.tree / "uploads/u").read_text() == "2"
        assert (await s1.call("sync_show", profile="site"))["in_sync"]


@in_virtual_time
async def test_after_a_handover_of_staging_its_old_home_names_the_new_one(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        await site.s1.call("handover", fileset="data", node="s2")
        for node in (site.s1, site.s2):
            error = await node.refuses("home_moved", "sync_run", profile="site")
            assert "instep sync add site --left data@s2 --right data@p1;" in (error.hint or "")
