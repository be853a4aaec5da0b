"""Lines of homes that left for ever: on an operator's word their documents leave this node's tree for the archive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from instep.errors import UnavailableError
from instep.model.ids import FilesetName, HeadRef, NodeName
from instep.model.manifest.walk import totals
from instep.node.replica.laid import Unions
from instep.node.runtime.runtime import Runtime


class LineTotals(NamedTuple):
    """What the tree shows of one line: its generation, and how much that is."""

    head: HeadRef
    entries: int
    size_bytes: int


class ForgottenLines:
    """The homes whose lines this node keeps no more, by their names. It is kept in the state until an operator takes a
    line back: partners may offer it for ever."""

    def __init__(self, runtime: Runtime, fileset: FilesetName, unions: Unions) -> None:
        self._runtime = runtime
        self._key = f"forgotten/{fileset}"
        self._unions = unions
        raw = runtime.store.get(self._key)
        self.origins: tuple[NodeName, ...] = (
            () if raw is None else msgspec.msgpack.decode(raw, type=tuple[NodeName, ...])
        )

    def __contains__(self, origin: NodeName) -> bool:
        return origin in self.origins

    def add(self, origin: NodeName) -> None:
        self._save((*self.origins, origin))

    def take_back(self, origin: NodeName) -> None:
        self._save(tuple(each for each in self.origins if each != origin))

    def _save(self, origins: tuple[NodeName, ...]) -> None:
        self._runtime.store.put(self._key, msgspec.msgpack.encode(origins))
        self.origins = origins

    def totals_of(self, origin: NodeName) -> LineTotals | None:
        """In the worker thread: what the tree shows of this home; None where it shows nothing of it."""
        laid = self._unions.required()
        head, line = laid.part_of(origin), laid.lines.by_origin.get(origin)
        if head is None or line is None:
            return None
        found = totals(line.root, line.get)
        return LineTotals(head, found.entries, found.size_bytes)

    async def gone(self, origin: NodeName, within_s: float, why: Callable[[], str]) -> None:
        """Wait until the tree shows nothing of this home. ``UnavailableError`` at the deadline."""
        try:
            async with asyncio.timeout(within_s):
                while self._unions.now is None or self._unions.now.part_of(origin) is not None:
                    await self._runtime.changed.wait()
        except TimeoutError:
            raise UnavailableError(
                f"the line of {origin} is forgotten, and its files still lie in the tree: {why()}",
                hint="they are let go by themselves; instep status",
                code="not_gone_yet",
                node=origin,
            ) from None
