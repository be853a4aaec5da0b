"""``/api/v1/events`` as JSON, waited for, or as a stream that resumes; and ``/api/v1/in-step/FILESET`` for scripts."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import web

from instep.api.command import Document, as_json
from instep.api.looking import EventsDocument, LineDocument, PartnerDocument, StatusDocument
from instep.errors import NotAllowedError, UsageError
from instep.node.access.caller import Caller
from instep.node.access.door import CommandDoor, Silent
from instep.node.config.kinds import BadValue
from instep.node.config.values import duration_ms
from instep.node.runtime.driver import monotonic_ms, wall_ms
from instep.panel.exchange import PanelExchange
from instep.panel.feed import NodeFeed, StandingRowDocument, encoded_row
from instep.panel.rest import json_answer

BEAT_S = 5.0
LOOK_S = 0.25
WAIT_MS_MAX = 60_000
STREAMS_MAX = 128
STREAMS_OF_CALLER_MAX = 16
EVENTS_MAX = 1_000


class EventPageDocument(Document, frozen=True):
    """Events, oldest first; ``cursor`` goes on after them. ``gap``: the log no longer reaches back to the cursor."""

    events: tuple[Mapping[str, Any], ...]
    cursor: str
    gap: bool


class NodeStandingDocument(Document, frozen=True):
    """How one node stands."""

    node: str
    standing: str
    reason: str | None
    behind_ms: int | None
    live: int | None


class InStepDocument(Document, frozen=True):
    """Whether every node that this one knows serves the head, or was in step until ``max_behind`` ago; then also
    whether the writer of each line was heard of within that time."""

    fileset: str
    in_step: bool
    head: int | None
    nodes: tuple[NodeStandingDocument, ...]


class Streams:
    """Open streams, and their answers. ``keep`` marks the connection of a stream as one in use."""

    def __init__(
        self, door: CommandDoor, feed: NodeFeed, keep: Callable[[web.BaseRequest], None] = lambda _: None
    ) -> None:
        self._door = door
        self._keep = keep
        self._feed = feed
        self._open: dict[str, int] = {}

    @property
    def count(self) -> int:
        return sum(self._open.values())

    # In step ------------------------------------------------------------------------------------------------

    async def in_step(self, exchange: PanelExchange, caller: Caller, fileset: str) -> web.Response:
        """200 where the fileset is in step, 503 where it is not."""
        query = exchange.request.query
        _require_known(query, ("max_behind", "wait", "node"))
        max_behind = _duration(query, "max_behind", 0) if "max_behind" in query else None
        wait_ms = _duration(query, "wait", 0)
        until = monotonic_ms() + min(wait_ms, WAIT_MS_MAX)
        while True:
            told = await self._look(caller, fileset, query.get("node"), max_behind)
            left_ms = until - monotonic_ms()
            if told.in_step or left_ms <= 0 or self._feed.is_stopping:
                return json_answer(exchange, as_json(told), 200 if told.in_step else 503)
            await self._feed.changed(min(left_ms / 1000, 1.0))

    async def _look(
        self, caller: Caller, fileset: str, node: str | None, max_behind_ms: int | None
    ) -> InStepDocument:
        status = await self._door.run(
            "status", {"fileset": fileset, "max_behind_ms": max_behind_ms}, caller, Silent()
        )
        assert isinstance(status, StatusDocument)
        now = wall_ms()
        nodes: list[NodeStandingDocument] = []
        head: int | None = None
        is_good = True
        for line in (line for each in status.filesets for line in each.lines):
            head = line.head.number if line.head is not None else None
            is_good = is_good and head is not None
            rows: list[tuple[str | None, LineDocument | PartnerDocument]] = [(status.node, line)]
            rows += [(one.name, one) for one in line.partners]
            for name, one in rows:
                if node not in (None, name):
                    continue
                behind = getattr(one, "behind_ms", None)
                if behind is None and one.since is not None:
                    behind = max(0, now - _ms(one.since))
                is_in_step = one.standing == "in_step"
                is_late = (
                    one.standing in ("behind", "applying")
                    and behind is not None
                    and behind <= (max_behind_ms or 0)
                )
                is_good = is_good and (is_in_step or is_late)
                live = one.live.number if one.live is not None else None
                nodes.append(
                    NodeStandingDocument(
                        str(name), one.standing, one.reason, 0 if is_in_step else behind, live
                    )
                )
        if node is not None and not nodes:
            raise UsageError(
                f"no node {node[:100]} serves {fileset}, as far as this node knows",
                hint="instep node list",
                code="no_node",
            )
        return InStepDocument(fileset, is_good, head, tuple(nodes))

    # Events -------------------------------------------------------------------------------------------------

    async def events(self, exchange: PanelExchange, caller: Caller) -> web.StreamResponse:
        """A page of events; with ``wait`` once there is one, and for ``text/event-stream`` all that come."""
        query, headers = exchange.request.query, exchange.request.headers
        _require_known(query, ("after", "wait", "limit", "view", "seen"))
        after = _number(headers.get("Last-Event-ID") or query.get("after"))
        if "text/event-stream" in headers.get("Accept", ""):
            return await self._stream(exchange, caller, after, query.get("view"), query.get("seen", ""))
        limit = _number(query.get("limit")) or EVENTS_MAX
        until = monotonic_ms() + min(_duration(query, "wait", 0), WAIT_MS_MAX)
        page = await self._page(caller, after or 0, min(limit, EVENTS_MAX))
        while not page.events and monotonic_ms() < until and not self._feed.is_stopping:
            await asyncio.sleep(LOOK_S)
            if self._feed.number() != (after or 0):
                page = await self._page(caller, after or 0, min(limit, EVENTS_MAX))
        return json_answer(exchange, as_json(page))

    async def _page(self, caller: Caller, after: int, limit: int) -> EventPageDocument:
        newest = self._feed.number(after)
        has_gap = bool(after) and self._feed.has_gap(after)
        after = min(after, newest)
        told = await self._door.run("events", {"after": after}, caller, Silent())
        assert isinstance(told, EventsDocument)
        events = told.events[:limit]
        last = events[-1]["number"] if events else 0
        if len(told.events) <= limit:
            last = max(last, newest)
        return EventPageDocument(events, str(last), has_gap)

    async def _stream(
        self, exchange: PanelExchange, caller: Caller, after: int | None, view: str | None, seen: str
    ) -> web.StreamResponse:
        if view not in (None, "rows"):
            raise UsageError("view is rows, or left out", code="bad_parameter")
        if self.count >= STREAMS_MAX or self._open.get(caller.name, 0) >= STREAMS_OF_CALLER_MAX:
            raise NotAllowedError(
                "too many streams are open", hint="close some", code="too_many_streams", retry_after_s=5
            )
        response = web.StreamResponse(headers=exchange.headers({"Content-Type": "text/event-stream"}))
        self._open[caller.name] = self._open.get(caller.name, 0) + 1
        try:
            await response.prepare(exchange.request)
            await self._send(exchange, response, caller, after, seen if view == "rows" else None)
        except ConnectionError:
            return response  # the reader went away
        finally:
            self._open[caller.name] -= 1
            if not self._open[caller.name]:
                del self._open[caller.name]
        return response

    async def _send(
        self,
        exchange: PanelExchange,
        response: web.StreamResponse,
        caller: Caller,
        after: int | None,
        seen: str | None,
    ) -> None:
        """``seen`` names the rows that the reader has; None for a reader who wants none."""
        cursor = self._feed.number() if after is None else after
        has_counts = False
        await response.write(b"retry: 2000\n\n")
        beat_ms = -1
        while not self._feed.is_stopping:
            if monotonic_ms() >= beat_ms:
                self._keep(exchange.request)
                if exchange.resolve() is None:
                    await response.write(b"event: signed_out\ndata: {}\n\n")
                    return
                beat_ms = monotonic_ms() + int(BEAT_S * 1000)
                await response.write(_message("beat", f'{{"now_ms": {wall_ms()}}}'))
            if self._feed.number() != cursor:
                page = await self._page(caller, cursor, EVENTS_MAX)
                if page.gap:
                    await response.write(_message("gap", "{}", str(page.cursor)))
                for event in page.events:
                    told = msgspec.json.encode(event).decode()
                    await response.write(_message("note", told, str(event["number"])))
                cursor = int(page.cursor)
            if seen is not None:
                await self._feed.rows(caller)
                if self._feed.seen != seen or not has_counts:
                    rows, gone = self._feed.since(caller, seen)
                    seen, has_counts = self._feed.seen, True
                    for message in _differences(rows, gone):
                        await response.write(message)
                    counts = msgspec.json.encode(self._feed.counts(caller)).decode()
                    await response.write(_message("counts", counts))
            await asyncio.sleep(LOOK_S)
        await response.write(b"event: stopping\ndata: {}\n\n")


def _differences(rows: Iterable[StandingRowDocument], gone: Iterable[str]) -> Iterable[bytes]:
    for row in rows:
        yield _message("row", encoded_row(row))
    for key in gone:
        yield _message("gone", msgspec.json.encode({"id": key}).decode())


def _message(kind: str, data: str, number: str | None = None) -> bytes:
    """One message of a stream. JSON has no line breaks of its own, so a hostile name cannot begin another message."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {data}\n\n".encode()


def _require_known(query: Mapping[str, str], names: Iterable[str]) -> None:
    unknown = sorted(set(query) - set(names))
    if unknown:
        raise UsageError(
            f"the query has no parameter {', '.join(unknown)[:200]}",
            hint=f"it takes {', '.join(names)}",
            code="unknown_parameter",
        )


def _duration(query: Mapping[str, str], name: str, otherwise: int) -> int:
    raw = query.get(name)
    if raw is None:
        return otherwise
    try:
        return duration_ms(raw)
    except BadValue as error:
        raise UsageError(f"{name} {error}", code="bad_parameter") from None


def _number(raw: str | None) -> int | None:
    if raw is None:
        return None
    if not (raw.isascii() and raw.isdecimal() and len(raw) < 16):
        raise UsageError("a cursor is a number of an answer", code="bad_parameter")
    return int(raw)


def _ms(iso: str) -> int:
    return int(dt.datetime.fromisoformat(iso).timestamp() * 1000)
