"""Sync runs that start by their profile's schedule, and ticks that are missed, with real services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instep.net.task_group import TaskGroup
from instep.node.runtime.driver import skip_time, wall_ms
from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time, reached

EACH_HALF_MINUTE = 'schedule = "*/30 * * * * *"\nzone = "Europe/Berlin"\n'


async def _shown(site: Site) -> dict[str, Any]:
    return await site.s1.call("sync_show", profile="site")


@in_virtual_time
async def test_a_run_starts_at_its_tick_and_the_next_one_is_named(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster, keys=EACH_HALF_MINUTE)
        await site.begin()
        site.s1.write({"a": "2"})
        await site.p1.holds("a", "2")
        shown = await _shown(site)
        assert (shown["schedule"]["zone"], shown["schedule"]["missed_at"]) == ("Europe/Berlin", None)
        assert shown["schedule"]["next_at"] > shown["last"]["started_at"]
        assert shown["last"]["initiator"] == "s1"
        assert (await site.s2.call("sync_show", profile="site"))["schedule"] == shown["schedule"]


@in_virtual_time
async def test_a_tick_that_passed_meanwhile_is_named_and_not_made_up_for(tmp_path: Path) -> None:
    """Goal: the home was down, is in maintenance or read-only, or has a run under way: the tick is named with the reason."""
    async with services(tmp_path) as cluster:
        site = Site(cluster, keys='schedule = "0 0 * * *"\n')
        s1 = site.s1
        await site.begin()
        await s1.stop()
        s1.write({"a": "2"})
        skip_time(2 * 86_400.0)
        s1.start()

        async def missed(why: str) -> None:
            async def is_named() -> bool:
                return why in (await _shown(site))["schedule"]["missed_because"]

            await reached(is_named, lambda: f"missed: {why}")

        await missed("this node was not running")
        assert "sync_missed" in {event["what"] for event in await s1.events()}
        assert (site.p1.tree / "a").read_text() == "1"
        await s1.call("maintenance", on=True, reason="disks")
        s1.daemon.sync_schedule.look(_midnight_s(1))
        await missed("it is in maintenance")
        await s1.call("maintenance", on=False)
        await s1.call("readonly", on=True)
        s1.daemon.sync_schedule.look(_midnight_s(2))
        await missed("s1 is read-only")
        await s1.call("readonly", on=False)

        async def is_under_way() -> bool:
            return s1.daemon.sync.is_at_work

        async with TaskGroup() as tasks:
            tasks.create_task(site.run())
            await reached(is_under_way, lambda: "a run is under way")
            s1.daemon.sync_schedule.look(_midnight_s(3))
        await missed("a run of site is under way, started by s1")
        assert (await _shown(site))["schedule"]["missed_at"] is not None
        assert site.same()["a"] == "2"


def _midnight_s(days: int) -> int:
    return (wall_ms() // 86_400_000 + days) * 86_400
