"""What a node does when it hears that another was revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instep.node.peers import Peers

__all__ = ["take_revocations"]


def take_revocations(peers: Peers, crl: bytes) -> None:
    """A peer's lists: what is news cuts both directions at once, and is passed on."""
    if peers.membership.adopt_crl(crl):
        peers.on_revoked()
        peers.tell_revocations()
