"""Nodes that leave the cluster, seen by the others."""

from __future__ import annotations

from pathlib import Path

from instep.net.trust.certs import Purpose
from instep.node.config.loading import load
from instep.node.runtime.driver import skip_time
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_removed_node_is_forgotten_everywhere(tmp_path: Path) -> None:
    """Goal: the node that holds the CA removes another: its certificates are revoked, every node takes it out of its file and
    its members with an event, and no older word about it brings it back; a node that writes is not removed."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes('to = ["s1", "s2"]')
        for name in ("s1", "s2"):
            cluster.add(name).follows(main)
            cluster.link("main", name)
        s1, s2 = cluster["s1"], cluster["s2"]
        cluster.link("s1", "s2")
        for node in cluster.nodes.values():
            node.start()
        main.node.pki.take_ca(
            (cluster.authority.directory / "ca.key").read_bytes(), cluster.authority.crl_pem(), {}
        )
        main.write({"file": "1"})
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        rows = {row["name"]: row for row in (await main.call("node_list", facts=True))["nodes"]}
        assert "platform" in rows["s1"]["facts"] and "platform" in rows["s2"]["facts"]
        assert not any(row["facts"] for row in (await main.call("node_list"))["nodes"] if not row["self"])
        await s1.refuses("still_writes", "node_remove", name="main")
        await s1.refuses("no_ca", "node_remove", name="s2")
        skip_time(60.0)
        assert (await main.call("node_remove", name="s2"))["changed"]

        async def is_forgotten() -> bool:
            known = [row["name"] for row in (await s1.call("node_list"))["nodes"]]
            return "s2" not in known and "s2" not in load(s1.directory.path).partners

        await reached(is_forgotten, lambda: s1.directory.config.read_text())
        assert load(main.directory.path).filesets["data"].to == ("s1",)  # type: ignore[index]
        for node in (main, s1):
            assert any(event["what"] == "removed" for event in await node.events()), node.name
            assert node.node.pki.crl().covers(s2.node.pki.certificate(Purpose.TLS)), node.name
        rows = (await main.line())["partners"]
        assert [row["name"] for row in rows] == ["s1"], rows
        assert not (await main.call("node_remove", name="s2"))["changed"]
        main.write({"file": "2"})
        await s1.holds("file", "2")


@in_virtual_time
async def test_a_revocation_by_a_restored_ca_takes_no_node_out_of_any_file(tmp_path: Path) -> None:
    """Goal: a CA that came from a backup revokes by name, too, and every node took that for a removal: a plain ``pki
    revoke``, as after a stolen key, cost each of them its row of the node. A removal that follows still counts."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes()
        for name in ("s1", "s2"):
            cluster.add(name).follows(main)
            cluster.link("main", name)
        s1, s2 = cluster["s1"], cluster["s2"]
        cluster.link("s1", "s2")
        for node in cluster.nodes.values():
            node.start()
        main.node.pki.take_ca(
            (cluster.authority.directory / "ca.key").read_bytes(), cluster.authority.crl_pem(), {}
        )
        await cluster.followed("s1", "s2")
        skip_time(60.0)
        assert (await main.call("revoke", name="s2"))["changed"]

        async def is_known() -> bool:
            return s1.node.pki.crl().covers(s2.node.pki.certificate(Purpose.TLS))

        await reached(is_known, lambda: "the list")
        assert "s2" in load(s1.directory.path).partners
        assert not any(event["what"] == "removed" for event in await s1.events())
        skip_time(60.0)
        assert (await main.call("node_remove", name="s2"))["changed"]

        async def is_removed() -> bool:
            return "s2" not in load(s1.directory.path).partners

        await reached(is_removed, lambda: s1.directory.config.read_text())
