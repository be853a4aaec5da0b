"""Where nodes are dialled: learned from their connections, and followed when a node moves."""

from __future__ import annotations

from pathlib import Path

from instep.model.ids import node_name
from instep.node.config.editing import edits
from instep.node.config.loading import load
from instep.node.config.values import address
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

BALANCER = '[balancers.app]\nfilesets = ["data"]\nhttp = { listen = "127.0.0.1:80", backend = 8080 }'


def _dialled(node: ServiceNode, name: str) -> str:
    return str(load(node.directory.path).partners[node_name(name)].address)


@in_virtual_time
async def test_a_node_that_only_dials_is_known_by_where_it_comes_from(tmp_path: Path) -> None:
    """Goal: partners that joined without an address listen on loopback; the writer learns their hosts from their
    connections: a balancer gets them, no node takes their loopback address for its own, and a handover to one of them
    is refused with the command that opens it. Seen at two addresses, a node asks which one counts."""
    async with services(tmp_path) as cluster:
        cluster.net.hosts = {node_name("s1"): "10.20.0.2", node_name("s2"): "10.20.0.3"}
        cluster.make(2)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"file": "1"})
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        rows = {row["name"]: row for row in (await main.call("node_list"))["nodes"]}
        assert (rows["s1"]["address"], rows["s1"]["seen_at"]) == (None, "10.20.0.2"), rows["s1"]
        main.tail = BALANCER
        await main.reload()
        text = (await main.call("balancer_render", kind="haproxy"))["text"]
        assert "10.20.0.2:8080" in text and "10.20.0.3:8080" in text, text
        refused = await main.refuses("not_ready", "handover", fileset="data", node="s1")
        assert refused.hint is not None and "instep node set-address s1 10.20.0.2:" in refused.hint, (
            refused.hint
        )
        s1.node.membership.seen_by(node_name("s2"), "192.0.2.7")
        (asked,) = [one for one in (await s1.status())["warnings"] if "set-address" in one]
        assert "s1 10.20.0.2:" in asked and "s1 192.0.2.7:" in asked, asked


@in_virtual_time
async def test_partners_follow_a_node_that_moves(tmp_path: Path) -> None:
    """Goal: the writer's new address reaches its connected partners, whose files name it then; a partner that was not
    there names the command, which works; a file with an address of its own, such as a proxy's, is left alone."""
    async with services(tmp_path) as cluster:
        cluster.make(3)
        main, s1, s2, s3 = (cluster[name] for name in ("main", "s1", "s2", "s3"))
        main.write({"file": "1"})
        await cluster.followed("s1", "s2", "s3")
        await cluster.in_step("s1", "s2", "s3")
        old, new = main.address, "127.0.0.1:20000"
        await s2.stop()
        cluster.net.serving["127.0.0.1:30000"] = cluster.net.serving[old]
        edits.set_partner(s3.directory, "main", {"address": "127.0.0.1:30000"})
        await s3.call("reload_config")
        cluster.net.serving[new] = cluster.net.serving[old]
        assert edits.set_own_address(main.directory, address(new))
        assert not edits.set_own_address(main.directory, address(new))
        await main.call("reload_config")

        async def is_followed() -> bool:
            return _dialled(s1, "main") == new

        await reached(is_followed, lambda: f"s1 dials main at {_dialled(s1, 'main')}")
        assert any(event["what"] == "address_changed" for event in await s1.events())
        assert str(load(main.directory.path).listen) == new, "it listens where it is dialled"
        del cluster.net.serving[old]
        main.write({"file": "2"})
        await s1.holds("file", "2")
        await s3.holds("file", "2")
        assert _dialled(s3, "main") == "127.0.0.1:30000"
        s2.start()

        async def is_named() -> bool:
            links = (await s2.status())["links"]
            return any("instep node set-address main HOST:PORT" in str(link["next"]) for link in links)

        await reached(is_named, lambda: "s2 names the command")
        rows = {row["name"]: row for row in (await s2.call("check"))["checks"]}
        assert "instep node set-address main HOST:PORT" in rows["link to main"]["hint"], rows["link to main"]
        edits.set_partner(s2.directory, "main", {"address": new})
        await s2.call("reload_config")
        await s2.holds("file", "2")
        main.address = new
