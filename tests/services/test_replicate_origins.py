"""Homes that a partner only names: of their lines nothing is kept across a restart, and no other home waits for them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from instep.model.ids import FilesetName, LineId, NodeName
from instep.net.messages import messages as m
from instep.node.following.kept_origins import UNPROVEN_MAX
from instep.node.replica.own_line import OwnLine
from tests.support.replicas import alike, mesh
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached


def _kept(node: ServiceNode) -> set[NodeName]:
    service = node.node.services[FilesetName("data")]
    assert isinstance(service, OwnLine)
    return set(service.replica.kept)


@in_virtual_time
async def test_a_partner_that_names_many_homes_shuts_out_no_other_one(tmp_path: Path) -> None:
    """Goal: the next home is kept, whatever a partner has named before, and after a restart. Method: ``b`` offers 300
    lines of homes that do not exist, then ``c`` begins; ``a`` is started again; ``b`` withdraws them."""
    async with services(tmp_path) as cluster:
        a, b, c = mesh(cluster, "a", "b", "c")
        for node in (a, b):
            node.write({f"{node.name}.xml": node.name})
            node.start()
        await alike(a, b)

        def name_many() -> list[m.Offer]:
            link = a.node.peers.uplinks[NodeName("b")]
            real = link.offers[LineId(FilesetName("data"), NodeName("b"))]
            made = [
                msgspec.structs.replace(real, line=LineId(real.line.fileset, NodeName(f"none{number}")))
                for number in range(300)
            ]
            for offer in made:
                link._offered(offer)
            return made

        async def is_left() -> bool:
            return _kept(a) == {"b", "c"}

        name_many()
        assert len(_kept(a)) == UNPROVEN_MAX + 1
        c.write({"c.xml": "of c"})
        c.start()
        await a.holds("c.xml", "of c")
        await a.stop()
        a.start()
        await alike(a, b, c)
        assert _kept(a) == {"b", "c"}
        for offer in name_many():
            a.node.peers.uplinks[NodeName("b")]._offered(msgspec.structs.replace(offer, is_withdrawn=True))
        await reached(is_left, lambda: f"withdrawn lines are over: {_kept(a)}")
        await alike(a, b, c, holding={"a.xml": "a", "b.xml": "b", "c.xml": "of c"})
