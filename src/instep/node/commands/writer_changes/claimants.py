"""Before a promotion out of a dispute: ask each claimant of the epoch which generations it published there.

The promotion leaves a claimant's generations behind, no node follows them, and only the claimant reports them. So
each is asked, and waited for a moment when it is not connected; a claimant that does not answer is named, because its
generations cannot be.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from instep.api.succession import UnheardDocument
from instep.errors import ContentionError, InstepError, UnavailableError
from instep.model.ids import HeadRef, NodeName
from instep.net.messages import messages as m
from instep.net.messages.faults import error_of_reply
from instep.net.service import HEADS
from instep.net.task_group import TaskGroup
from instep.node.commands.control import Speaker
from instep.node.commands.patience import left, until
from instep.node.commands.targets import is_connected
from instep.node.lines.line_service import LineService
from instep.node.node import Node

HEAR_S = 10.0
"""So long a claimant that is not connected is waited for; at most half of the command's remaining time."""
ASK_S = 5.0


@dataclass(frozen=True, slots=True)
class Heard:
    """The heads that claimants answered with, and the claimants that did not answer."""

    heads: tuple[tuple[NodeName, HeadRef], ...] = ()
    unheard: tuple[UnheardDocument, ...] = ()


async def hear_claimants(node: Node, service: LineService, deadline: float, speaker: Speaker) -> Heard:
    """Ask every other claimant of the disputed epoch for its head; nothing at all where no epoch is disputed. Never
    fails for one that does not answer: that one is named in the result."""
    me, book = node.runtime.name, service.facts.epochs
    claimants = sorted({claim.writer for claim in book.rivals} - {me})
    if not claimants:
        return Heard()
    await speaker.progress(
        f"asking {' and '.join(claimants)} for their generations", 0, len(claimants), "nodes"
    )
    now = asyncio.get_running_loop().time()
    until_s = now + min(HEAR_S, max(0.0, deadline - now) / 2)
    async with TaskGroup() as group:
        asked = [group.create_task(_hear(node, service, who, until_s)) for who in claimants]
    answers = [task.result() for task in asked]
    return Heard(
        tuple(answer for answer in answers if isinstance(answer, tuple)),
        tuple(answer for answer in answers if isinstance(answer, UnheardDocument)),
    )


async def _hear(
    node: Node, service: LineService, who: NodeName, deadline: float
) -> tuple[NodeName, HeadRef] | UnheardDocument | None:
    """The claimant's head, None when it answered that it has none."""
    peers, line = node.peers, service.line

    try:
        while True:
            await until(node, lambda: is_connected(node, who), deadline, f"{who} is not connected")
            session = peers.sessions.get(who)
            if session is None:
                return await _head_at(node, service, who, left(deadline))
            if await session.asks_told(min(ASK_S, left(deadline))):
                head = session.known.get(line)
                return (who, head) if head is not None else None
            if asyncio.get_running_loop().time() >= deadline:
                raise UnavailableError(f"{who} is connected and does not answer", code="timed_out", node=who)
    except (ContentionError, UnavailableError) as error:
        hint = f"start or connect {who}, then: instep promote {line.fileset} --dry-run"
        return UnheardDocument(who, error.reason, hint)
    except InstepError as error:
        return UnheardDocument(who, error.reason, error.hint or f"on {who}: instep log {line.fileset}")


async def _head_at(
    node: Node, service: LineService, who: NodeName, within_s: float
) -> tuple[NodeName, HeadRef] | None:
    """Ask a claimant that only this node dials. It may refuse: then it is unheard."""
    request = m.HeadsRequest((m.KnownLine(service.line, None),), with_bundles=False)
    reply = await node.peers.uplinks[who].client.call(HEADS, request, total_s=within_s)
    for line, refused in reply.refused:
        if line == service.line:
            raise error_of_reply(refused, who)
    head = next((head for head in reply.heads if head.line == service.line), None)
    return (who, head.generation.ref()) if head is not None else None
