"""The acts of a node at once when it hears of a revocation: it looks at what is open in both directions, and passes
it on."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from instep.model.ids import NodeName
from instep.node.node import Node
from instep.node.peers.peers import Peers


@pytest.mark.parametrize("is_news", [True, False])
def test_news_is_followed_and_passed_on_and_what_is_known_ends_there(is_news: bool) -> None:
    """Without the end two nodes would pass it to each other for ever; without the news a node behind a hub would hear
    nothing."""
    done: list[str] = []
    peers = SimpleNamespace(
        membership=SimpleNamespace(adopt_crl=lambda crl: crl == b"lists" and is_news),
        on_revoked=lambda: done.append("follow"),
        tell_revocations=lambda: done.append("tell"),
    )
    Peers.take_revocations(cast(Peers, peers), b"lists")
    assert done == (["follow", "tell"] if is_news else [])


def test_connections_of_both_directions_are_looked_at_with_the_new_lists() -> None:
    done: list[Any] = []
    lost = [NodeName("s1")]

    def lost_trust() -> list[NodeName]:
        done.append("dialled")
        return lost

    node = SimpleNamespace(
        tls=SimpleNamespace(reload=lambda: done.append("reload"), lost_trust=lost_trust),
        shown=SimpleNamespace(look=lambda: done.append("shown")),
        peers=SimpleNamespace(dial_anew=lambda names: done.append(names)),
        server=SimpleNamespace(drop_untrusted=lambda: done.append("accepted")),
    )
    Node.follow_trust(cast(Node, node))
    assert done == ["reload", "shown", "accepted", "dialled", lost]
