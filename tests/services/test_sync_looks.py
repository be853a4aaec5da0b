"""Sync runs and collisions as production and mirrors see them, where only the other home dials, with real services."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_every_server_of_a_side_looks_at_runs_and_reviews(tmp_path: Path) -> None:
    """Goal: production, which has no profile and dials no server of staging, and the mirrors of both sides show the run and
    its collisions; a review on any of them counts on all; none of production's may start or end a run."""
    async with services(tmp_path) as cluster:
        site = Site(cluster, has_p2=True)
        await site.begin()
        s1, s2, p1, p2 = site.s1, site.s2, site.p1, site.production[1]
        s1.write({"a": "left", "d/x": "left"})
        p1.write({"a": "right", "d/x": "right"})
        ran = await site.run()
        ids = [each["id"] for each in ran["listed"]]
        for node in (s1, s2, p1, p2):
            shown = await node.call("sync_show", profile="site")
            assert (shown["last"]["run"], shown["carried_out_by"]) == (ran["run"], "s1"), node.name
            listed = (await node.call("sync_collisions", profile="site"))["listed"]
            assert [each["id"] for each in listed] == ids, node.name
        for node in (s1, s2, p1):
            (profile,) = (await node.call("sync_list"))["profiles"]
            assert profile["last"]["run"] == ran["run"], node.name
        await p2.call("sync_collisions", profile="site", reviewed=ids[0])
        await p1.call("sync_collisions", profile="site", reviewed=ids[1])
        assert (await s1.call("sync_collisions", profile="site"))["listed"] == []
        for node in (p1, p2):
            for command in ("sync_run", "sync_cancel"):
                await node.refuses("no_initiator", command, profile="site")
        cluster.cut("s1", "p1")
        await s1.stop()
        (profile,) = (await p1.call("sync_list"))["profiles"]
        assert "s1 carries it out and cannot be asked" in profile["why_not"]
        await p1.refuses("not_connected", "sync_show", profile="site")


@in_virtual_time
async def test_a_server_without_any_profile_may_start_no_run(tmp_path: Path) -> None:
    """Goal: production and its mirrors are refused as not allowed also before the first run, which names the profile to them."""
    async with services(tmp_path) as cluster:
        production = cluster.add("p1")
        production.writes()
        production.start()
        error = await production.refuses("no_initiator", "sync_run", profile="site")
        assert error.exit_code == 5


@in_virtual_time
async def test_run_numbers_rise_over_failed_runs_restarts_and_lost_state(tmp_path: Path) -> None:
    """Goal: no two runs have one number, also where the home that carries them out lost its memory of them."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        s1 = site.s1
        first = (await site.run())["run"]
        await s1.stop()
        s1.start()
        assert (await site.run())["run"] == first + 1
        cluster.cut("s1", "p1")
        await s1.refuses("connection_refused", "sync_run", profile="site")
        cluster.heal("s1", "p1")
        assert (await site.run())["run"] == first + 3
        s1.store.delete("sync/number/site")
        assert (await site.run())["run"] == first + 4
