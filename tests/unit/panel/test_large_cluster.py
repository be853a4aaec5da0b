"""The overview of 1,000 nodes and 50 filesets: the page, the rows that a stream sends, and the cost of each.

The figures are of processor time, of which a machine under load takes no more; each bound is three times the goal.
"""

from __future__ import annotations

import asyncio
import gzip
import re
import time
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from msgspec.structs import replace

from instep.api.command import Role
from instep.api.looking import (
    ConfigDocument,
    FilesetStatusDocument,
    LineDocument,
    PartnerDocument,
    StatusDocument,
)
from instep.api.parts import FullGenerationDocument, GenerationDocument
from instep.node.access.caller import Caller, DoorName
from instep.panel.exchange import PanelExchange
from instep.panel.feed import LOOK_MS, NodeFeed
from instep.panel.pages.assets import StaticFiles
from instep.panel.pages.site import Site
from tests.support.page_requests import SimpleExchange

NODES, FILESETS = 1_000, 50
PAGE_GOAL_S = 0.3
FIRST_LOAD_MAX = 100_000
SINCE = "2026-11-21T02:31:00Z"
HEAD = FullGenerationDocument(1, 42, "aa" * 32, "bb" * 32, "ana", "x", SINCE, 3, 9)
LIVE = GenerationDocument(1, 41, "aa" * 32, "bb" * 32)
ADMIN = Caller("ana", Role.ADMIN, None, DoorName.PANEL)


def partner(number: int, standing: str = "in_step") -> PartnerDocument:
    return PartnerDocument(f"s{number:04}", LIVE, standing, None, None, SINCE, (), SINCE, 0)


def status_of(nodes: int, filesets: int) -> StatusDocument:
    rows = tuple(partner(number, "in_step" if number % 10 else "behind") for number in range(nodes - 1))
    line = LineDocument("main", "main", HEAD, LIVE, "in_step", None, None, SINCE, (), rows)
    return StatusDocument(
        "main", "running", ConfigDocument("current"),
        tuple(
            FilesetStatusDocument(f"data{number:02}", "mirror", "metadata", "/srv", (line,))
            for number in range(filesets)
        ),
    )  # fmt: skip


@dataclass
class Simulated:
    """A node whose ``status`` is made up; door and node in one."""

    status: StatusDocument
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    name: str = "main"

    @property
    def runtime(self) -> Simulated:
        return self

    async def run(self, *_: object) -> StatusDocument:
        return self.status

    def becomes(self, status: StatusDocument) -> None:
        self.status = status
        self.changed = asyncio.Event()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The time by which the feed decides when to look again; a test moves it on."""
    now = [0]
    monkeypatch.setattr("instep.panel.feed.monotonic_ms", lambda: now[0])
    return now


def feed_of(node: Simulated) -> NodeFeed:
    return NodeFeed(cast(Any, node), cast(Any, node))


async def test_a_page_of_fifty_thousand_rows_is_drawn_in_time_and_small(clock: list[int]) -> None:
    node = Simulated(status_of(NODES, FILESETS))
    feed = feed_of(node)
    site = Site(cast(Any, node), cast(Any, node), feed)
    exchange = cast(PanelExchange, SimpleExchange("/"))
    await site.answer(exchange, ADMIN)  # reads the templates
    node.becomes(node.status)
    clock[0] += LOOK_MS
    began = time.process_time()
    drawn = await site.answer(exchange, ADMIN)
    took = time.process_time() - began
    assert took < 3 * PAGE_GOAL_S
    body = drawn.body
    assert isinstance(body, bytes)
    assert b">5000</span> of 50000 not in step" in body and body.count(b'<tr id="row.') == 200
    parts = [body, *(found.body for found in StaticFiles().by_name.values())]
    assert sum(len(gzip.compress(part)) for part in parts) < FIRST_LOAD_MAX


async def test_a_reader_gets_only_the_rows_that_differ_from_the_ones_it_has(clock: list[int]) -> None:
    """Goal: each browser got all rows at first, 12 MB of them in such a cluster."""
    node = Simulated(status_of(NODES, FILESETS))
    feed = feed_of(node)
    await feed.rows(ADMIN)
    drawn = feed.seen
    assert feed.since(ADMIN, drawn) == ([], [])
    first, *others = node.status.filesets
    line = first.lines[0]
    kept = (*line.partners[:-2], partner(NODES - 3, "held"))  # one is held, and the last one is gone
    node.becomes(
        replace(node.status, filesets=(replace(first, lines=(replace(line, partners=kept),)), *others))
    )
    clock[0] += LOOK_MS
    await feed.rows(ADMIN)
    rows, gone = feed.since(ADMIN, drawn)
    assert [(row.id, row.standing) for row in rows] == [("row.data00.main.s0997", "held")]
    assert gone == ["row.data00.main.s0998"]
    counts = feed.counts(ADMIN)
    assert (counts.troubled, counts.total) == (5_001, 49_999)
    other = replace_filesets(ADMIN, "data01")
    assert feed.since(other, drawn) == ([], []), "a caller of other filesets gets none of it"
    assert feed.counts(other).total == NODES
    for unknown in ("", "x", "x.1", f"{drawn.partition('.')[0]}.-1", f"{drawn}9"[:3]):
        assert len(feed.since(other, unknown)[0]) == NODES, unknown


async def test_a_row_that_returns_is_sent_and_is_gone_no_more(clock: list[int]) -> None:
    node = Simulated(status_of(3, 1))
    feed = feed_of(node)
    full, fewer = node.status, status_of(2, 1)
    await feed.rows(ADMIN)
    drawn = feed.seen
    for status in (fewer, full):
        node.becomes(status)
        clock[0] += LOOK_MS
        await feed.rows(ADMIN)
    rows, gone = feed.since(ADMIN, drawn)
    assert [row.node for row in rows] == ["s0001"] and gone == []


async def test_a_page_is_sent_what_changed_while_it_was_drawn(clock: list[int]) -> None:
    """Goal: no page shows an old row until the next change. Method: a row changes, and a stream has it, after a page read
    the status and before the page is drawn."""

    class Changing(Simulated):
        async def run(self, *asked: object) -> StatusDocument:
            told = self.status
            if asked[1]:  # the page names its fileset, and the feed asks for all
                self.becomes(status_of(2, 1))
                clock[0] += LOOK_MS
                await feed.rows(ADMIN)
            return told

    node = Changing(status_of(3, 1))
    feed = feed_of(node)
    await feed.rows(ADMIN)
    site = Site(cast(Any, node), cast(Any, node), feed)
    drawn = await site.answer(cast(PanelExchange, SimpleExchange("/filesets/data00")), ADMIN)
    assert isinstance(drawn.body, bytes) and b"row.data00.main.s0001" in drawn.body
    (seen,) = re.findall(r'data-seen="([^"]*)"', drawn.body.decode())
    assert feed.since(ADMIN, seen)[1] == ["row.data00.main.s0001"]


async def test_a_cache_between_keeps_compressed_files_apart() -> None:
    """Goal: no browser that reads no gzip gets it from a cache: static files are public and compressed on request."""
    node = Simulated(status_of(1, 1))
    site = Site(cast(Any, node), cast(Any, node), feed_of(node))
    (name, *_) = StaticFiles().by_name
    response = site.static(cast(PanelExchange, SimpleExchange(f"/static/{name}")))
    assert response.status == 200 and response.compression
    assert response.headers["Vary"] == "Accept-Encoding"


def replace_filesets(caller: Caller, *names: str) -> Caller:
    return Caller(caller.name, caller.role, frozenset(names), caller.door)
