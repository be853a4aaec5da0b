"""Sync profiles whose home gave its line to a mirror: the step is named, and the profile works with the new home."""

from __future__ import annotations

from pathlib import Path

import msgspec

from instep.model.sync import SyncBase
from tests.support.services import ServiceNode, services
from tests.support.sync_site import Site, files
from tests.support.virtual_time import in_virtual_time, reached


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
        s1.write({"a": "2"})
        p2.write({"uploads/u": "2", "d/x": "2"})
        await _names(site, "data@p1", "data@p2")
        ran = await site.run()
        assert (ran["phase"], ran["listed"]) == ("done", [])
        assert files(s1.tree) == files(p2.tree)
        assert (p2.tree / "a").read_text() == (s1.tree / "d/x").read_text() == "2"
        assert (await s1.call("sync_show", profile="site"))["in_sync"]


@in_virtual_time
async def test_a_handover_and_a_way_back_of_production_lose_no_base(tmp_path: Path) -> None:
    """Goal: where nothing changed, a run with the new home changes nothing; with the first home again, the run goes from
    the base that was made with the second, so that a change which production took back is not made again."""
    async with services(tmp_path) as cluster:
        site = Site(cluster, has_p2=True)
        s1, p1, p2 = site.s1, site.p1, site.production[1]
        cluster.link("p2", "s1")
        await site.begin()
        await p1.call("handover", fileset="data", node="p2")
        await p2.set(offers_from="s1")
        await _names(site, "data@p1", "data@p2")
        head = await p2.head()
        assert (await site.run())["changes_total"] == 0
        assert (await p2.head(), (await s1.call("sync_show", profile="site"))["in_sync"]) == (head, True)
        s1.write({"a": "2"})
        await site.run()
        await p2.call("handover", fileset="data", node="p1")
        await _names(site, "data@p2", "data@p1")
        p1.write({"a": "1"})
        ran = await site.run()
        assert (ran["listed"], site.same()["a"]) == ([], "1")


@in_virtual_time
async def test_a_new_home_without_the_generation_of_the_base_has_no_base(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster, has_p2=True)
        s1, p1, p2 = site.s1, site.p1, site.production[1]
        cluster.link("p2", "s1")
        await site.begin()
        await p1.call("handover", fileset="data", node="p2")
        await p2.set(offers_from="s1")
        await _names(site, "data@p1", "data@p2")
        p2.store.delete_generations([base.right.id for base in _bases(s1, "data@s1/data@p1")])
        await s1.refuses("no_base", "sync_run", profile="site")


@in_virtual_time
async def test_the_base_moves_with_a_handover_of_staging_and_back(tmp_path: Path) -> None:
    """Goal: the new home of staging gets the base from the former one: changes of both sides go on, nothing is listed; and
    so does the first home when it has staging again, although it has an older base of its own."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, s2, p1 = site.s1, site.s2, site.p1
        cluster.link("p1", "s2")
        await site.begin()
        await s1.call("handover", fileset="data", node="s2")
        await p1.set(offers_from="s1,s2")
        await _names(site, "data@s1", "data@s2")
        s2.write({"a": "2"})
        p1.write({"d/x": "2"})
        ran = await site.run(s2)
        assert (ran["phase"], ran["listed"]) == ("done", [])
        assert files(s2.tree) == files(p1.tree)
        assert (files(s2.tree)["a"], files(s2.tree)["d/x"]) == ("2", "2")
        await s2.call("handover", fileset="data", node="s1")
        await _names(site, "data@s2", "data@s1")
        p1.write({"a": "1"})
        ran = await site.run()
        assert (ran["listed"], site.same()["a"]) == ([], "1")


@in_virtual_time
async def test_an_initiator_has_a_copy_of_the_base_for_the_day_when_the_home_is_dead(tmp_path: Path) -> None:
    """Goal: staging's home is gone, and with it its state: its mirror, now the home, goes on without ``--initial``. A copy
    that is older than the last run is none."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, s2, p1 = site.s1, site.s2, site.p1
        cluster.link("p1", "s2")
        await site.begin()

        async def is_copied() -> bool:
            return _bases(s2, FIRST)[-1:] == _bases(s1, FIRST)[-1:]

        s1.write({"a": "2"})
        await site.run()
        await reached(is_copied, lambda: "a copy at s2")
        older, newest = _bases(s1, FIRST)[-2:]
        await s1.call("handover", fileset="data", node="s2")
        await s1.stop()
        await p1.set(offers_from="s2")
        await _names(site, "data@s1", "data@s2", s2)
        p1.write({"a": "3"})
        s2.store.put(BASES.format(FIRST), msgspec.msgpack.encode((older,)))
        await s2.refuses("no_base", "sync_run", profile="site")
        s2.store.put(BASES.format(FIRST), msgspec.msgpack.encode((newest,)))
        ran = await site.run(s2)
        assert (ran["listed"], files(s2.tree)) == ([], files(p1.tree))
        assert files(s2.tree)["a"] == "3"


@in_virtual_time
async def test_a_base_that_the_former_home_lost_is_none(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, s2, p1 = site.s1, site.s2, site.p1
        cluster.link("p1", "s2")
        await site.begin()
        await s1.call("handover", fileset="data", node="s2")
        await p1.set(offers_from="s2")
        await _names(site, "data@s1", "data@s2")
        for node in (s1, s2):
            node.store.delete(BASES.format("data@s1/data@p1"))
        error = await s2.refuses("no_base", "sync_run", profile="site")
        assert "instep sync run site --initial left" in (error.hint or "")
        await site.run(s2, initial="left")
        assert files(s2.tree) == files(p1.tree)


@in_virtual_time
async def test_after_a_handover_of_staging_its_old_home_names_the_new_one(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        await site.s1.call("handover", fileset="data", node="s2")
        for node in (site.s1, site.s2):
            error = await node.refuses("home_moved", "sync_run", profile="site")
            assert "instep sync add site --left data@s2 --right data@p1;" in (error.hint or "")


BASES = "sync/bases/site/{}"
FIRST = "data@s1/data@p1"


def _bases(node: ServiceNode, pair: str) -> tuple[SyncBase, ...]:
    return msgspec.msgpack.decode(node.store.get(BASES.format(pair)) or b"\x90", type=tuple[SyncBase, ...])


async def _names(site: Site, old: str, new: str, *servers: ServiceNode) -> None:
    """Name the new home in the profile on both servers of staging, or on these."""
    for node in servers or (site.s1, site.s2):
        config = node.directory.config
        config.write_text(config.read_text().replace(old, new))
        await node.call("reload_config")
