"""Hooks of a sync profile: what they hear of runs, once each, with real services and programs."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time, reached

HOOKS = """
[sync.site.hooks.on_collision]
run = ["/bin/sh", "-c", "echo $INSTEP_HOOK $INSTEP_SYNC $INSTEP_CODE $(tr '\\\\0' ' ' < $INSTEP_CHANGED) >> {file}"]
[sync.site.hooks.on_sync_failed]
run = ["/bin/sh", "-c", "echo $INSTEP_HOOK $INSTEP_SYNC $INSTEP_CODE >> {file}"]
"""


@in_virtual_time
async def test_each_collision_and_each_failure_is_heard_once(tmp_path: Path) -> None:
    """Goal: a path that waits for its review, and a failure like the one before, are no news; after a good run, or after
    the review, they are; a notice that was not given outlives the daemon."""
    heard = tmp_path / "heard"
    heard.touch()
    async with services(tmp_path) as cluster:
        site = Site(cluster, HOOKS.format(file=heard))
        s1, p1 = site.s1, site.p1
        await site.begin()
        lines: list[str] = []

        async def hears(*more: str) -> None:
            lines.extend(more)

            async def has_heard() -> bool:
                return heard.read_text().split("\n")[:-1] == lines

            await reached(has_heard, lambda: f"{lines} heard: {heard.read_text()}")

        s1.write({"a": "left", "templates/t": "1"})
        p1.write({"a": "right"})
        await site.run()
        await hears("on_collision site sync_collisions a")
        p1.write({"templates/t": "mine"})
        await site.run()
        await hears("on_collision site sync_collisions templates/t")
        p1.write({"templates/t": "mine again"})
        await site.run()
        cluster.cut("s1", "p1")
        for _ in range(2):
            await s1.refuses("connection_refused", "sync_run", profile="site")
        await hears("on_sync_failed site connection_refused")
        cluster.heal("s1", "p1")
        await site.run()
        listed = (await s1.call("sync_collisions", profile="site"))["listed"]
        for each in listed:
            await s1.call("sync_collisions", profile="site", reviewed=each["id"])
        p1.write({"templates/t": "mine"})
        await site.run()
        await hears("on_collision site sync_collisions templates/t")
        cluster.cut("s1", "p1")
        await s1.refuses("connection_refused", "sync_run", profile="site")
        await s1.stop()
        s1.start()
        await hears("on_sync_failed site connection_refused")
