"""Files of many homes that are edited and locked where no link leads to their home but over a hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.errors import ContentionError, InstepError
from tests.support.replicas import MODE, alike, link_both
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached


async def _chain(cluster: Services) -> tuple[ServiceNode, ...]:
    """``a`` and ``c`` know nothing but the hub between them; each is a home."""
    nodes = tuple(cluster.add(name) for name in ("a", "hub", "c"))
    for node in nodes:
        node.writes(MODE)
        node.write({f"{node.name}.xml": f"of {node.name}"})
    for name in ("a", "c"):
        link_both(cluster, "hub", name, hub=True)
    for node in nodes:
        node.start()
    await alike(*nodes)
    return nodes


@in_virtual_time
async def test_an_edit_reaches_its_home_over_a_hub(tmp_path: Path) -> None:
    """Every operator lets its partners in by default, as at a home: without a key that names them."""
    async with services(tmp_path) as cluster:
        nodes = a, hub, c = await _chain(cluster)
        c.write({"a.xml": "edited at c"})
        await a.holds("a.xml", "edited at c")
        await alike(*nodes, holding={"a.xml": "edited at c", "hub.xml": "of hub", "c.xml": "of c"})
        for node in (hub, c):
            assert not await node.archived("drift"), node.name


@in_virtual_time
async def test_a_lock_reaches_over_a_hub_and_its_end_is_heard_of(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = a, _, c = await _chain(cluster)
        where = {"fileset": "data", "path": "a.xml"}
        granted = await c.call("lock", **where, owner="ana", ttl_ms=60_000)
        for node in nodes:
            with pytest.raises(ContentionError) as denied:
                await node.call("lock", **where)
            assert denied.value.facts["owner"] == "ana@c@hub", denied.value.facts
        c.write({"a.xml": "under a lock"})
        done = await c.call("unlock", **where, owner="ana", token=granted["token"])
        assert done["outcome"] in ("applied", "same")
        await a.holds("a.xml", "under a lock")
        await alike(*nodes)
        again = await c.call("lock", **where, owner="ben")
        await a.call("break_lock", **where, reason="mine")

        async def is_told() -> bool:
            try:
                await c.call("lock", **where, owner="ben", token=again["token"])
            except ContentionError as error:
                return error.facts["why"] == "broken" and "mine" in error.reason
            return False

        await reached(is_told, lambda: "the owner behind the hub knows why")


@in_virtual_time
async def test_a_node_behind_a_hub_verifies_with_the_nodes_that_it_can_ask(tmp_path: Path) -> None:
    """The home of a line, which is no partner here, is not missing; a hub that is away is."""
    async with services(tmp_path) as cluster:
        _, hub, c = await _chain(cluster)
        document = await c.call("verify", fileset="data", deep=True, fleet=True)
        assert document["identical"], document
        assert {(each["origin"], each["name"]) for each in document["nodes"]} == {
            (line, name) for line in ("a", "c", "hub") for name in ("c", "hub")
        }
        await hub.stop()
        assert not (await c.call("verify", fileset="data", deep=True, fleet=True))["identical"]


@in_virtual_time
async def test_a_hub_that_names_its_partners_passes_on_no_changes_of_others(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        a, hub, c = await _chain(cluster)
        await hub.set(offers_from="a")
        with pytest.raises(InstepError) as refused:
            await c.call("lock", fileset="data", path="a.xml")
        assert refused.value.error_code == "not_the_writer"
        assert (a.tree / "a.xml").read_text() == "of a"
