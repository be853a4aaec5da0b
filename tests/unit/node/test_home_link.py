"""Which node is asked for locks and changes: the home, or a hub in its place."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from instep.model.ids import NodeName, node_name
from instep.net.service import PeerCalls
from instep.node.following.home_link import home_of
from instep.node.lines.line_net import Source

MAIN = node_name("main")


class _Link(NamedTuple):
    name: NodeName
    takes: tuple[str, ...]
    client: PeerCalls
    version: int = 3

    def reply(self, message: object) -> None:
        """Nothing is sent here."""


def _links(**takes: tuple[str, ...]) -> dict[NodeName, Source]:
    client: PeerCalls = None  # type: ignore[assignment]
    return {node_name(name): _Link(node_name(name), found, client) for name, found in takes.items()}


OLD, NEW = ("offers",), ("offers", "hub_offers")


@pytest.mark.parametrize(
    ("links", "is_listed", "asked"),
    [
        (_links(main=OLD, hub=NEW), True, "main"),
        (_links(hub=NEW), True, None),
        (_links(hub=NEW), False, "hub"),
        (_links(hub=OLD), False, None),
        (_links(b=NEW, a=OLD, c=NEW), False, "b"),
        ({}, False, None),
    ],
)
def test_a_hub_is_asked_only_where_the_home_is_no_partner(
    links: dict[NodeName, Source], is_listed: bool, asked: str | None
) -> None:
    """Goal: while a listed home is away its edits wait; a hub of the version before is not asked."""
    link = home_of(links, MAIN, (MAIN,) if is_listed else ())
    assert (link.name if link is not None else None) == asked
