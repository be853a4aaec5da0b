"""When a sync profile says that both sides are in sync: only as both homes are now, with real services."""

from __future__ import annotations

from pathlib import Path

from instep.node.config.editing.external_edit import set_external
from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time, reached


async def _is_not_in_sync(site: Site, why: str) -> None:
    """Both commands come to say so, with the reason."""

    async def check() -> bool:
        (listed,) = (await site.s1.call("sync_list"))["profiles"]
        shown = await site.s1.call("sync_show", profile="site")
        return all(not each["in_sync"] and why in each["why_not"] for each in (listed, shown))

    await reached(check, lambda: f"a profile that is not in sync: {why}")


@in_virtual_time
async def test_edits_that_a_home_has_not_published_are_not_in_sync(tmp_path: Path) -> None:
    """Goal: staging or production that publishes by hand: its edit counts as soon as it is seen, and until it is published
    and brought over."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        for number, node in enumerate((site.p1, site.s1)):
            await node.set(publish="manual")
            node.write({"a": f"by hand {number}"})
            await _is_not_in_sync(site, f"{node.name}: changes since generation")
            await site.run()
            await _is_not_in_sync(site, f"{node.name}: changes since generation")
            await node.publish()
            await _is_not_in_sync(site, f"data@{node.name} has changed since the last run")
            await node.set(publish="auto")
            await site.run()
            assert (await site.s1.call("sync_show", profile="site"))["in_sync"]


@in_virtual_time
async def test_a_database_that_was_added_since_the_last_run_is_named(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        for node in (site.s1, site.p1):
            set_external(node.directory, "data", "cms-db", {})
            await node.call("reload_config")
            await _is_not_in_sync(site, f"the database cms-db of data@{node.name} is not carried")
            set_external(node.directory, "data", "cms-db", {"covered_by": "a nightly dump"})
            await node.call("reload_config")
            assert (await site.s1.call("sync_show", profile="site"))["in_sync"]


@in_virtual_time
async def test_a_home_that_cannot_be_asked_is_not_said_to_be_in_sync(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        assert (await site.s1.call("sync_show", profile="site"))["in_sync"]
        site.p1.write({"a": "2"})
        await site.p1.publish()
        await _is_not_in_sync(site, "data@p1 has changed since the last run")
        cluster.cut("s1", "p1")
        await _is_not_in_sync(site, "p1 cannot be asked")
