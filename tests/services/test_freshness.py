"""Lines that come over a hub are dated by their homes' own words, however the hub behaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msgspec.structs import replace

from instep.model.ids import LineId, NodeName, fileset_name, node_name
from instep.model.replication.freshness import SignedWord, word_id
from instep.net.messages import messages as m
from instep.node.runtime.driver import shift_wall_clock, wall_ms
from tests.support.replicas import MODE, alike, link_both
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

OF_A = LineId(fileset_name("data"), node_name("a"))


async def _chain(cluster: Services) -> tuple[ServiceNode, ServiceNode, ServiceNode]:
    """``a`` and ``c`` know nothing but the hub between them; each is a home."""
    a, hub, c = (cluster.add(name) for name in ("a", "hub", "c"))
    for node in (a, hub, c):
        node.writes(MODE)
        node.write({f"{node.name}.xml": f"of {node.name}"})
    for name in ("a", "c"):
        link_both(cluster, "hub", name, hub=True)
    for node in (a, hub, c):
        node.start()
    await alike(a, hub, c)
    for node in (c, a):
        assert (await node.call("wait", fileset="data", max_behind_ms=5_000))["reached"]
    return a, hub, c


async def _line_of_a(node: ServiceNode, **params: Any) -> dict[str, Any]:
    lines = (await node.call("status", **params))["filesets"][0]["lines"]
    return next((line for line in lines if line["origin"] == "a"), {"standing": None, "code": None})


async def _stands(node: ServiceNode, standing: str, code: str | None = None) -> dict[str, Any]:
    """Wait until the line of ``a`` stands so; the line."""
    last: dict[str, Any] = {}

    async def is_so() -> bool:
        last.clear()
        last.update(await _line_of_a(node))
        return (last["standing"], last["code"]) == (standing, code)

    await reached(is_so, lambda: f"{node.name} {standing} {code}: {last}")
    return last


def _silence(hub: ServiceNode, *, heads: bool = False) -> None:
    """From now on the hub keeps words to itself, or heads."""
    if not heads:
        hub.node.peers.freshness.listeners.pop(node_name("c"))
        return

    async def nothing(who: NodeName, request: m.HeadsRequest) -> m.HeadsReply:
        return m.HeadsReply(())

    hub.node.peers.heads = nothing  # type: ignore[method-assign]
    for session in hub.node.peers.sessions.values():
        for name in ("tell_head", "tell_notice"):
            setattr(session, name, lambda _: None)


@in_virtual_time
async def test_a_line_is_dated_over_a_hub_and_stale_without_its_home(tmp_path: Path) -> None:
    """Goal: in step as of a moment that goes on; a hub that says nothing more is seen, with the time and the next step, and
    so is a home that is gone. With its words back the line is in step."""
    async with services(tmp_path) as cluster:
        a, hub, c = await _chain(cluster)
        first = (await _line_of_a(c))["as_of"]

        async def is_later() -> bool:
            return bool((await _line_of_a(c))["as_of"] > first)

        await reached(is_later, lambda: f"a date after {first}")
        assert (await _line_of_a(a)).get("as_of") is None, "its own line has no date"
        assert (await c.call("wait", fileset="data", max_behind_ms=5_000))["reached"]
        _silence(hub)
        line = await _stands(c, "behind", "stale")
        assert line["since"] == line["as_of"] and line["as_of"] in line["reason"], line
        assert "hub" in line["reason"] and line["next"][0] == "on hub: instep status data", line
        assert (await _line_of_a(hub))["standing"] == "in_step", "it hears of the home"
        waited = await c.call("wait", fileset="data", max_behind_ms=5_000, timeout_s=1.0)
        assert not waited["reached"] and {"node": "a", "standing": "behind"} in waited["waiting_for"]
        rows = {row["name"]: row for row in (await c.call("check"))["checks"]}
        assert not rows["date of data of a"]["ok"], rows["date of data of a"]
        cluster.cut("hub", "c")
        cluster.heal("hub", "c")
        await alike(a, hub, c)
        await a.stop()
        for node in (hub, c):  # each is a source of the other
            assert (await _stands(node, "behind", "stale"))["as_of"] > line["as_of"]


@in_virtual_time
async def test_a_hub_that_keeps_heads_back_is_named(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        a, hub, c = await _chain(cluster)
        _silence(hub, heads=True)
        a.write({"new.xml": "kept back"})
        await hub.holds("new.xml", "kept back")
        line = await _stands(c, "behind", "head_withheld")
        assert "hub" in line["reason"] and "generation 2" in line["reason"], line


@in_virtual_time
async def test_a_date_is_asked_for_with_each_look(tmp_path: Path) -> None:
    """Goal: ``max_behind`` is exact: one millisecond less than the age is too old, with exit code 11's standing; more is
    in step. The date outlives a restart, and is never later than before."""
    async with services(tmp_path) as cluster:
        _, hub, c = await _chain(cluster)
        _silence(hub)
        before = (await _line_of_a(c))["as_of"]
        too_old = await _line_of_a(c, max_behind_ms=0)
        assert (too_old["standing"], too_old["code"], too_old["since"]) == ("behind", "stale", before), (
            too_old
        )
        assert (await _line_of_a(c, max_behind_ms=3_600_000))["standing"] == "in_step"
        cluster.cut("hub", "c")
        await c.stop()
        c.start()
        last: dict[str, Any] = {}

        async def has_date() -> bool:
            last.update(await _line_of_a(c))
            return last.get("as_of") is not None

        await reached(has_date, lambda: f"a date after a restart: {last}")
        assert last["as_of"] <= before


@in_virtual_time
async def test_a_word_of_another_node_counts_for_nothing(tmp_path: Path) -> None:
    """Goal: the hub cannot say a word for a home, nor an old one again: the date stays as it was."""
    async with services(tmp_path) as cluster:
        _, hub, c = await _chain(cluster)
        freshness = c.node.peers.freshness
        service = c.node.peers.lines[OF_A]
        at_hub = hub.node.peers.freshness
        old = at_hub.of_line(hub.node.peers.lines[OF_A])
        assert old is not None
        _silence(hub)
        before = freshness.as_of_ms(service)
        assert before is not None
        shift_wall_clock(60_000)
        try:
            raw = replace(old.word.body(), time_ms=old.word.body().time_ms + 50_000).encoded()
            forged = SignedWord(raw, hub.node.pki.sign(word_id(raw)))
            for each in (forged, SignedWord(raw, old.word.signature), old.word):
                freshness.heard(node_name("hub"), m.Fresh(OF_A, each), service)
                assert freshness.as_of_ms(service) == before
            assert any(row["what"] == "refused" for row in await c.events())
        finally:
            shift_wall_clock(-60_000)


@in_virtual_time
async def test_words_of_a_clock_that_is_ahead_date_from_their_arrival_and_are_named(tmp_path: Path) -> None:
    """Goal: a hub that sends such words by turns makes no line look fresh, also not over a restart."""
    async with services(tmp_path) as cluster:
        a, hub, c = await _chain(cluster)
        _silence(hub)
        first = a.node.peers.freshness.of_line(a.node.peers.lines[OF_A])
        assert first is not None

        def ahead(ms: int) -> SignedWord:
            raw = replace(first.word.body(), time_ms=first.word.body().time_ms + ms).encoded()
            return SignedWord(raw, a.node.pki.sign(word_id(raw)))

        words = [ahead(7_200_000), ahead(7_210_000)]

        def send() -> int | None:
            freshness, service = c.node.peers.freshness, c.node.peers.lines[OF_A]
            for each in (*words, first.word, *words):
                freshness.heard(node_name("hub"), m.Fresh(OF_A, each), service)
            return freshness.as_of_ms(service)

        arrived = send()
        assert arrived is not None and abs(arrived - wall_ms()) < 1_000
        shift_wall_clock(600_000)
        try:
            later = send()
            assert later is not None and later <= arrived
            (named,) = (row["text"] for row in await c.events() if row["what"] == "clock_ahead")
            assert named.startswith("a dates its words "), named
            rows = {row["name"]: row for row in (await c.call("check"))["checks"]}
            assert not rows["date of data of a"]["ok"], rows["date of data of a"]
            cluster.cut("hub", "c")
            await c.stop()
            c.start()

            async def has_line() -> bool:
                return OF_A in c.node.peers.lines

            await reached(has_line, lambda: "the line after a restart")
            again = send()
            assert again is not None and again <= arrived
        finally:
            shift_wall_clock(-600_000)
