"""News for streams and waiting requests: read once for all of them, and only while anyone asks."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from instep.api.command import Document, Role
from instep.api.looking import FilesetStatusDocument, LineDocument, StatusDocument
from instep.node.access.caller import Caller, DoorName
from instep.node.access.door import CommandDoor, Silent
from instep.node.node import Node
from instep.node.runtime.driver import monotonic_ms
from instep.store.port import EVENTS_KEPT

LOOK_MS = 250
"""How often the events and the status are read at most, however many streams there are."""
LOOK_SHARE = 10
"""In a cluster so large that a look takes long, looking takes a tenth of the time at most."""
GONE_MAX = 10_000
"""Rows that are gone, kept for streams that have them still; past that, streams get all rows anew."""
_ITSELF = Caller("panel", Role.VIEWER, None, DoorName.PANEL)


class StandingRowDocument(Document, frozen=True, gc=False):
    """A node's standing in one line: a row of the overview, whose ``id`` names it in the page."""

    id: str
    fileset: str
    origin: str
    node: str
    live: str
    head: str
    standing: str
    reason: str
    since: str
    next: str
    checked: str


class StandingCountsDocument(Document, frozen=True):
    """How many rows there are, and how many of them are not in step."""

    troubled: int
    total: int


class NodeFeed:
    """The newest event's number and the present rows.

    Rows are compared once for all streams. Each reading that differs has a revision; ``seen`` names the present one,
    so that a page that was drawn with it gets only the rows that differ since.
    """

    def __init__(self, node: Node, door: CommandDoor) -> None:
        self._node = node
        self._door = door
        self._number = 0
        self._numbered_ms = -LOOK_MS
        self._rows: Mapping[str, StandingRowDocument] = {}
        self._rows_of: asyncio.Event | None = None
        self._rowed_ms = -LOOK_MS
        self._took_ms = 0
        self._reading = asyncio.Lock()
        self._begun = secrets.token_hex(4)
        self._revision = 0
        self._oldest = 0
        """The first revision whose later changes are all known."""
        self._revised: dict[str, int] = {}
        """The revision at which each row became what it is."""
        self._gone: dict[str, tuple[int, str]] = {}
        """The revision at which a row went, and its fileset."""
        self._counts: dict[str, tuple[int, int]] = {}
        """The rows of each fileset that are not in step, and all of them."""

    @property
    def is_stopping(self) -> bool:
        return self._node.stopping.is_set()

    def number(self, known: int = 0) -> int:
        """The number of the newest event, at most ``LOOK_MS`` old; looked at anew where a caller has a higher one."""
        now = monotonic_ms()
        if now - self._numbered_ms >= LOOK_MS or known > self._number:
            self._numbered_ms = now
            newest = self._node.runtime.store.events(limit=1)
            self._number = newest[-1].number if newest else 0
        return self._number

    def has_gap(self, after: int) -> bool:
        """Whether the log no longer reaches back to this number, or was begun anew since."""
        newest = self.number(after)
        return after > newest or after < newest - EVENTS_KEPT

    async def rows(self, caller: Caller) -> Mapping[str, StandingRowDocument]:
        """The rows that the caller reaches, by id and in its order."""
        async with self._reading:
            now, changed = monotonic_ms(), self._node.runtime.changed
            if changed is not self._rows_of and now - self._rowed_ms >= max(
                LOOK_MS, LOOK_SHARE * self._took_ms
            ):
                status = await self._door.run("status", {}, _ITSELF, Silent())
                assert isinstance(status, StatusDocument)
                self._take({row.id: row for row in sorted(rows_of(status), key=lambda row: row.id)})
                self._rows_of, self._rowed_ms = changed, monotonic_ms()
                self._took_ms = self._rowed_ms - now
        if caller.filesets is None:
            return self._rows
        return {key: row for key, row in self._rows.items() if caller.reaches(row.fileset)}

    async def begin(self, caller: Caller) -> None:
        """Read the rows where that was never done: then ``seen`` names some."""
        if not self._revision:
            await self.rows(caller)

    def _take(self, rows: Mapping[str, StandingRowDocument]) -> None:
        before, self._rows = self._rows, rows
        changed = [key for key, row in rows.items() if before.get(key) != row]
        gone = [key for key in before if key not in rows]
        if self._revision and not changed and not gone:
            return
        self._revision += 1
        for key in changed:
            self._revised[key] = self._revision
            self._gone.pop(key, None)
        for key in gone:
            self._revised.pop(key)
            self._gone[key] = self._revision, before[key].fileset
        if len(self._gone) > GONE_MAX:
            self._gone.clear()
            self._oldest = self._revision
        self._counts = {}
        for row in rows.values():
            troubled, total = self._counts.get(row.fileset, (0, 0))
            self._counts[row.fileset] = troubled + (row.standing != "in_step"), total + 1

    @property
    def seen(self) -> str:
        """Names the rows as they are now."""
        return f"{self._begun}.{self._revision}"

    def since(self, caller: Caller, seen: str) -> tuple[list[StandingRowDocument], list[str]]:
        """The rows of the caller that differ from the ones named by ``seen``, and the ids of those that are gone. Where
        ``seen`` names none that are known, all rows."""
        begun, _, number = seen.partition(".")
        is_known = begun == self._begun and number.isascii() and number.isdecimal() and len(number) < 16
        known = int(number) if is_known and int(number) >= self._oldest else 0
        if known >= self._revision:
            return [], []
        rows = [
            row
            for key, row in self._rows.items()
            if self._revised[key] > known and caller.reaches(row.fileset)
        ]
        gone = [key for key, (at, name) in self._gone.items() if at > known and caller.reaches(name)]
        return rows, gone

    def counts(self, caller: Caller) -> StandingCountsDocument:
        """Of the rows that the caller reaches."""
        found = [told for fileset, told in self._counts.items() if caller.reaches(fileset)]
        return StandingCountsDocument(sum(one for one, _ in found), sum(one for _, one in found))

    async def changed(self, timeout_s: float) -> None:
        """Wait until anything that ``status`` shows has changed, or the time has passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._node.runtime.changed.wait()
        except TimeoutError:
            return


def rows_of(status: StatusDocument) -> Iterator[StandingRowDocument]:
    """This node and every partner that it knows, in each line, as one table."""
    for fileset in status.filesets:
        for line in fileset.lines:
            yield _row(status.node or "", fileset, line, line, None)
            for partner in line.partners:
                yield _row(partner.name, fileset, line, partner, partner.last_checked)


def _row(
    node: str, fileset: FilesetStatusDocument, line: LineDocument, told: Any, checked: str | None
) -> StandingRowDocument:
    return StandingRowDocument(
        id=f"row.{fileset.name}.{line.origin}.{node}",
        fileset=fileset.name,
        origin=line.origin,
        node=node,
        live="" if told.live is None else str(told.live.number),
        head="" if line.head is None else str(line.head.number),
        standing=told.standing,
        reason=told.reason or "",
        since=told.since or "",
        next="; or: ".join(told.next),
        checked=checked or "",
    )


def encoded_row(row: StandingRowDocument) -> str:
    return msgspec.json.encode(row).decode()
