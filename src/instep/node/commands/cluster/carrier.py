"""Commands about a sync profile, sent to the home that carries its runs out."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from instep.api.command import Command, Document
from instep.errors import UnavailableError
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.net.service import SYNC
from instep.node.node import Node

D = TypeVar("D", bound=Document)
LOOK_ELSEWHERE_S = 60.0


async def ask_carrier(node: Node, name: str, carrier: NodeName, asked: Command[D], within_s: float) -> D:
    """Its answer, over the link that this node dials, or over the one by which that home dialled this node."""
    kind, peers = type(asked), node.peers
    request = m.SyncRequest(kind.command, name, msgspec.json.encode(asked))  # type: ignore[arg-type]
    link, session = peers.uplinks.get(carrier), peers.sessions.get(carrier)
    if link is not None:
        reply = await link.client.call(SYNC, request, total_s=asked.timeout_s or within_s)
    elif session is not None:
        reply = await session.sync(request, min(asked.timeout_s or within_s, LOOK_ELSEWHERE_S))
    else:
        raise UnavailableError(
            f"{carrier} carries out {name}, and is not connected with this node",
            hint=f"on {carrier}: instep sync show {name}",
            code="not_connected",
            node=carrier,
        )
    try:
        found: D = msgspec.json.decode(reply.document, type=kind.result())
    except msgspec.DecodeError as error:
        raise UnavailableError(
            f"{carrier} answered in another form", hint="upgrade both nodes", code="bad_answer"
        ) from error
    return found
