"""Offers to a partner: a line that is not known yet is offered once its first head is here, and again with its
definition."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from instep.model.definition import Definition, FilesetClass
from instep.model.ids import FilesetName, LineId, NodeName
from instep.model.link import Link
from instep.net.messages import messages as m
from instep.node.peers.accepted_link import AcceptedLink
from instep.node.peers.peers import Peers

MAIN, HUB, LEAF = NodeName("main"), NodeName("hub"), NodeName("leaf")
LINE = LineId(FilesetName("data"), MAIN)


class Listening(AcceptedLink):
    """A partner's session that keeps its messages."""

    def tell(self, message: m.StreamMessage) -> None:
        heard.append(message)

    def tell_head(self, head: m.Head) -> None:
        heard.append(head)


heard: list[Any] = []


class Followed(SimpleNamespace):
    """The line as the hub follows it; ``definition`` is None until the first head is here."""

    line, writer, is_written_here = LINE, MAIN, False
    definition: Definition | None = None
    facts = SimpleNamespace(epochs=SimpleNamespace(current=None))

    def known_definition(self) -> Definition | None:
        return self.definition

    def head_message(self, to: NodeName | None, *, with_bundle: bool) -> None:
        """No generation is shown: these tests are about the offer."""

    def offers_to(self, partner: NodeName) -> bool:
        return True

    def partners_changed(self) -> None:
        """Nothing follows from it here."""


def hub(link: Link) -> tuple[Peers, Followed]:
    """A hub to which the leaf is connected, and which began to follow the line just now."""
    partner = SimpleNamespace(link=link, address=None)
    runtime: Any = SimpleNamespace(name=HUB, settings=SimpleNamespace(partners={LEAF: partner}))
    peers = Peers(runtime, SimpleNamespace(), SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    service: Any = Followed()
    peers.sessions[LEAF] = Listening(peers, LEAF, m.Hello(m.VERSIONS, LEAF, b"session"), SimpleNamespace())
    peers.lines[LINE] = service
    heard.clear()
    peers.offers_changed()
    assert heard == [], "nothing is known of the line"
    return peers, service


def announced(peers: Peers) -> list[m.Offer]:
    """The offers to the leaf when a head went live at the hub; the head itself comes last."""
    heard.clear()
    head: Any = SimpleNamespace(line=LINE, generation=SimpleNamespace(ref=lambda: "a head of now"))
    asyncio.run(peers.announce(head))
    assert [each for each in heard if not isinstance(each, m.Offer)] in ([head], []), heard
    return [each for each in heard if isinstance(each, m.Offer)]


def test_a_hub_that_lists_its_partner_before_it_accepts_the_fileset_offers_it() -> None:
    """Goal: the first head brings what the line is; the partner is offered it then, before the head, and once."""
    peers, service = hub(Link(replicate=True, data=True, hub=True))
    service.definition = Definition()
    (offer,) = announced(peers)
    assert (offer.line, offer.is_withdrawn) == (LINE, False) and heard[0] is offer
    assert announced(peers) == []


def test_an_offer_follows_the_definition() -> None:
    """Goal: a head with another definition is offered with it, and withdrawn where the link has no room for it."""
    peers, service = hub(Link(replicate=True, data=False, hub=True))
    service.definition = Definition(fileset_class=FilesetClass.METADATA)
    announced(peers)
    service.definition = Definition(fileset_class=FilesetClass.METADATA, ignore=("*.tmp",))
    (offer,) = announced(peers)
    assert offer.definition == service.definition.encoded()
    service.definition = Definition(fileset_class=FilesetClass.DATA)
    (offer,) = announced(peers)
    assert offer.is_withdrawn
