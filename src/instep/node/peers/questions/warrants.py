"""A writer's word that one hub may ask for contents of its line on its behalf, given and examined; and how long
such a question may take.

Contents may always go back to the line's own writer (P6), and to no other node against the flags of a link. A hub that
asks on the writer's behalf shows the writer's signed word. It names the hub: no other node can ask with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from instep.model.ids import LineId, NodeName
from instep.net.messages.lending import Wanted, Warrant, warrant_id
from instep.node.lines.line_service import LineService
from instep.node.peers.peer_context import PeerContext
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.signers import verdict_on

WARRANT_MS = 600_000
"""Longer than the deadline of any question but those for very large contents, each of which brings its own."""
SKEW_MS = 300_000
"""So far the clocks of two nodes may be apart."""
HAS_S = 120.0
"""The partner may have to read every file of a path that the archive has in several versions."""
PARTS_S = 60.0
READ_BYTES = 32 << 20
"""A partner hashes what it looks for: so much in a second, on a slow disk, is added to the deadlines of contents."""


def reading_s(wants: Sequence[Wanted]) -> float:
    """How long a partner with a slow disk reads these contents, each once."""
    return sum({want.digest: want.size for want in wants}.values()) / READ_BYTES


def warrant_of(peers: PeerContext, line: LineId, via: NodeName) -> Warrant | None:
    """This node's word for a line that it writes, None for any other line."""
    service = peers.service(line)
    if service is None or not service.is_written_here:
        return None
    until_ms = wall_ms() + WARRANT_MS
    return Warrant(until_ms, via, peers.runtime.pki.sign(warrant_id(line, via, until_ms)))


def is_warranted(service: LineService, warrant: Warrant | None, asker: NodeName) -> bool:
    """Whether the line's present writer signed this for the asker, and not long ago."""
    if warrant is None or not -SKEW_MS <= warrant.until_ms - wall_ms() <= WARRANT_MS + SKEW_MS:
        return False
    if warrant.via != asker or warrant.signature.signer != service.writer:
        return False
    signed = warrant_id(service.line, warrant.via, warrant.until_ms)
    verdict = verdict_on(service.runtime, warrant.signature, signed)
    return verdict.is_valid and not verdict.is_ca
