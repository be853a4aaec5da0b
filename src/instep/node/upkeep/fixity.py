"""Looks that read every byte of a tree by themselves, once in each ``fixity`` interval of its fileset.

What they find is handled as after ``instep verify --deep``: a follower fetches damaged files anew, a writer names them.
"""

from __future__ import annotations

import asyncio

from instep.errors import InstepError
from instep.model.counts import counted
from instep.node.lines.line_service import LineService
from instep.node.node import Node
from instep.node.runtime.driver import wall_ms

LOOK_S = 60.0
AGAIN_MS = 3_600_000
"""After a look that could not be made."""


class Fixity:
    """One task of the daemon. The moment of the last look is kept in the state: a restart begins no new interval."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._not_before_ms: dict[str, int] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            for service in list(self._node.services.values()):
                if self._is_due(service):
                    await self._look(service)

    def _is_due(self, service: LineService) -> bool:
        fileset, now = service.fileset, wall_ms()
        if fileset.fixity_ms is None or service.root.trouble is not None or service.live is None:
            return False
        if now < self._not_before_ms.get(fileset.name, 0):
            return False
        raw = self._node.runtime.store.get(_key(service))
        if raw is None:  # the first interval begins now
            self._node.runtime.store.put(_key(service), str(now).encode())
            return False
        return not 0 <= now - int(raw) < fileset.fixity_ms

    async def _look(self, service: LineService) -> None:
        name, runtime = service.fileset.name, self._node.runtime
        began_ms = wall_ms()
        lines = (service, *service.beside)
        try:
            replies = await asyncio.gather(*(line.verify(is_deep=True) for line in lines))
        except (InstepError, OSError) as error:
            self._not_before_ms[name] = began_ms + AGAIN_MS
            reason = error.reason if isinstance(error, InstepError) else str(error)
            runtime.note("not_audited", f"the files of {name} could not be read: {reason}", service.line)
            return
        runtime.store.put(_key(service), str(began_ms).encode())
        differing = sum(reply.differing for reply in replies)
        text = f"every byte of {name} was read: {counted(differing, 'path')} other than its generation says"
        runtime.note("audited" if not differing else "audit_differs", text, service.line, differing=differing)


def _key(service: LineService) -> str:
    return f"fixity/{service.fileset.name}"
