"""After an accept: the home knows that the fileset is followed here, so a wait there waits for this node."""

from __future__ import annotations

import asyncio
import contextlib

from instep.model.ids import FilesetName, NodeName
from instep.model.standing import Standing
from instep.node.node import Node

HEARD_S = 3.0
"""A home that does not answer in this time is not waited for: the fileset is accepted all the same."""


async def be_heard(node: Node, name: FilesetName, home: NodeName, *, is_observing: bool) -> None:
    """Return once the home took in how the fileset is followed here, or did not answer in time."""
    uplink, runtime = node.peers.uplinks.get(home), node.runtime
    if uplink is None:
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(HEARD_S):
            while not is_observing and node.services[name].standing.standing is Standing.OBSERVING:
                await runtime.changed.wait()
    await uplink.is_heard(HEARD_S)
