"""Licence servers of a pool: which of them answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from instep.model.address import Address
from instep.node.runtime.driver import monotonic_ms

ANSWER_S = 1.0
KNOWN_MS = 10_000
"""How long an answer holds, so that many users do not mean many connections."""


class LicenceServers:
    """The last answers of the servers, asked again when they are old."""

    def __init__(self) -> None:
        self._known: dict[Address, tuple[int, bool]] = {}

    async def in_order(self, servers: Sequence[Address]) -> tuple[Address, ...]:
        """Those that take a connection first, both parts in the order of the settings."""
        now_ms = monotonic_ms()
        old = [one for one in servers if self._known.get(one, (0, False))[0] + KNOWN_MS <= now_ms]
        for one, works in zip(old, await asyncio.gather(*map(_answers, old)), strict=True):
            self._known[one] = (now_ms, works)
        return tuple(sorted(servers, key=lambda one: not self._known[one][1]))


async def _answers(server: Address) -> bool:
    try:
        async with asyncio.timeout(ANSWER_S):
            _, writer = await asyncio.open_connection(server.host, server.port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
