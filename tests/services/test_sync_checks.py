"""The rows of ``check`` about a sync profile, at each node that has a part in it: all well, and each trouble named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instep.node.config.editing.external_edit import set_external
from tests.support.services import ServiceNode, services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time, reached

MARKS = "sync/marks/p1/data/site/s1"


async def _rows(node: ServiceNode) -> dict[str, dict[str, Any]]:
    found = (await node.call("check"))["checks"]
    return {row["name"]: row for row in found if row["name"].endswith("sync site")}


async def _failed(node: ServiceNode) -> dict[str, tuple[str, str]]:
    return {n: (row["theirs"], row["hint"]) for n, row in (await _rows(node)).items() if not row["ok"]}


@in_virtual_time
async def test_a_profile_that_works_passes_at_every_node(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        names = {node.name: set(await _rows(node)) for node in (site.s1, site.s2, site.p1)}
        assert names == {
            "s1": {
                "data@s1 of sync site",
                "data@p1 of sync site",
                "locked kinds of data@p1 in sync site",
                "databases of data@s1 in sync site",
                "databases of data@p1 in sync site",
                "contents of data@p1 in sync site",
                "base of sync site",
                "versions of sync site",
                "initiators of sync site",
            },
            "s2": {"home of sync site", "settings of sync site"},
            "p1": {"home of sync site", "changes of sync site", "locked kinds of data@p1 in sync site"},
        }
        for node in (site.s1, site.s2, site.p1):
            assert await _failed(node) == {}


async def _loses_marks(site: Site) -> None:
    site.p1.store.delete(MARKS)


async def _has_a_database(site: Site) -> None:
    set_external(site.p1.node.directory, "data", "cms-db", {})
    await site.p1.call("reload_config")


async def _edits_a_template(site: Site) -> None:
    site.p1.write({"templates/t": "edited"})
    await site.p1.publish()


async def _takes_no_changes(site: Site) -> None:
    await site.p1.set(offers_from="")


async def _stops_the_initiator(site: Site) -> None:
    await site.s2.stop()
    await reached(_is_gone(site), lambda: "s2 gone")


def _is_gone(site: Site) -> Any:
    async def is_gone() -> bool:
        return "s2" not in site.s1.node.peers.sessions

    return is_gone


@pytest.mark.parametrize(
    ("trouble", "row", "said", "step"),
    [
        (_loses_marks, "base of sync site", "none", "instep sync run site --initial left"),
        (
            _has_a_database,
            "databases of data@p1 in sync site",
            "cms-db",
            "on p1: instep fileset external add data cms-db --covered-by TEXT",
        ),
        (_edits_a_template, "locked kinds of data@p1 in sync site", "1 path", "instep sync show site"),
        (
            _takes_no_changes,
            "data@p1 of sync site",
            "takes no changes of data from s1",
            "on p1: instep fileset set data offers_from=s1",
        ),
        (_stops_the_initiator, "initiators of sync site", "s2 not connected", "on s2: instep start"),
    ],
    ids=["base", "database", "locked", "changes", "initiator"],
)
@in_virtual_time
async def test_a_trouble_is_named_with_its_next_step(
    tmp_path: Path, trouble: Any, row: str, said: str, step: str
) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        await trouble(site)

        async def is_named() -> bool:
            return row in await _failed(site.s1)

        await reached(is_named, lambda: row)
        found = await _failed(site.s1)
        assert set(found) == {row}
        assert said in found[row][0] and step in found[row][1]


@in_virtual_time
async def test_an_initiator_with_other_settings_is_named(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        site.s2.tail = site.s2.tail.replace('direction = "down"', 'direction = "up"')
        await site.s2.reload()
        assert (await _failed(site.s2))["settings of sync site"][0] == "not as on s1: kinds"
