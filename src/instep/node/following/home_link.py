"""Which link leads to the home of a followed line: its own, or that of a hub which passes changes on."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from instep.model.ids import NodeName
from instep.node.lines.line_net import Source
from instep.node.lines.line_service import LineService

OFFERS = "offers"
"""What a home that takes changes names in ``takes``."""
PASSED_OFFERS = "hub_offers"
"""What a node names in ``takes`` that can pass changes on, as a hub."""


def home_link(service: LineService) -> Source | None:
    """As ``home_of``, of this line now."""
    return home_of(service.sources, service.writer, service.runtime.settings.partners)


def home_of(
    sources: Mapping[NodeName, Source], writer: NodeName, partners: Collection[NodeName]
) -> Source | None:
    """The link to the home, None while that partner is not connected. Where the home is no partner of this node: that
    of the first hub that can pass changes on; the hub says whether it does."""
    if writer in sources or writer in partners:
        return sources.get(writer)
    hubs = sorted(name for name, link in sources.items() if PASSED_OFFERS in link.takes)
    return sources[hubs[0]] if hubs else None
