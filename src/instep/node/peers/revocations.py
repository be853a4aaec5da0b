"""The acts of a node when it hears that another was revoked."""

from __future__ import annotations

from instep.node.peers.peer_context import PeerContext


def take_revocations(peers: PeerContext, crl: bytes) -> None:
    """A peer's lists: a new revocation cuts both directions at once, and is passed on."""
    if peers.membership.adopt_crl(crl):
        peers.on_revoked()
        peers.tell_revocations()
