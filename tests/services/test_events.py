"""Every trouble and its end are events of the node where the operator looks, each once, and lines of its log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from instep.errors import ResourceError
from instep.net.task_group import TaskGroup
from tests.support.services import ServiceNode, Services, Speaker, services
from tests.support.virtual_time import in_virtual_time, reached


async def _in_step(cluster: Services, *partner: str) -> None:
    cluster.make(1, partner=partner)
    cluster["main"].write({f"f{number}": "1" for number in range(60)})
    await cluster.followed("s1")
    await cluster.in_step("s1")


async def _noted(at: ServiceNode, *wanted: str, **facts: object) -> list[dict[str, Any]]:
    """Wait until these kinds of event are there, in this order; those events. ``facts`` hold of each."""
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = [one for one in await at.events() if one["what"] in wanted]
        found[:] = [one for one in found if all(one.get(key) == value for key, value in facts.items())]
        return [one["what"] for one in found] == list(wanted)

    await reached(are_there, lambda: f"{wanted} at {at.name}: {found}")
    return found


@in_virtual_time
async def test_a_guard_and_a_pause_and_their_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main, s1 = cluster["main"], cluster["s1"]
        with caplog.at_level(logging.INFO, "instep"):
            for number in range(50):
                (main.tree / f"f{number}").unlink()
            await main.stands("blocked")
            (held,) = await _noted(main, "trouble", code="max_deletions")
        assert held["level"] == "warning" and "50 of 60" in held["text"], held
        assert "--accept-deletions" in str(held["next"]), held
        (logged,) = [
            one for one in caplog.records if one.__dict__.get("about", {}).get("code") == "max_deletions"
        ]
        assert logged.levelno == logging.WARNING and logged.getMessage() == held["text"]
        await main.publish(accept_deletions=True, wait=True)
        last = [one for one in await main.events() if one["what"] in ("trouble", "in_step")][-1]
        assert last["what"] == "in_step", last
        await s1.call("pause", fileset="data", reason="kernel update")
        (paused,) = await _noted(s1, "paused")
        assert paused["level"] == "info" and "kernel update" in paused["text"], paused
        await _noted(main, "paused", node="s1")
        await s1.call("resume", fileset="data")
        await _noted(main, "paused", "in_step", node="s1")


@in_virtual_time
async def test_a_lost_link_and_a_lost_partner(tmp_path: Path) -> None:
    """Goal: both ends note that the connection is lost and that it is back."""
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main, s1 = cluster["main"], cluster["s1"]
        cluster.cut("main", "s1")
        await s1.stands("unreachable")
        for one, other in ((main, "s1"), (s1, "main")):
            (down, *_) = [event for event in await one.events() if event["what"] == "link_down"]
            assert down["level"] == "warning" and down["node"] == other and "broke" in down["text"], down
        cluster.heal("main", "s1")
        await s1.stands("in_step")
        await _noted(s1, "trouble", "in_step")
        await _noted(main, "link_up", "link_down", "link_up", node="s1")
        await s1.stop()
        s1.start()
        await s1.stands("in_step")
        await _noted(main, *("link_up", "link_down") * 2, "link_up", node="s1")


@in_virtual_time
async def test_a_refused_file_is_noted_at_both_ends(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main, s1 = cluster["main"], cluster["s1"]
        good = s1.directory.config.read_text()
        s1.directory.config.write_text(good + "\n[nonsense]\n")
        (here,) = await _noted(s1, "config_refused")
        (there,) = await _noted(main, "config_refused")
        assert here["level"] == there["level"] == "warning" and there["node"] == "s1", there
        s1.directory.config.write_text(good)
        await _noted(s1, "config_refused", "config_taken")
        await _noted(main, "config_refused", "config_taken")


@in_virtual_time
async def test_a_drain_whose_time_has_passed(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main = cluster["main"]
        assert (await main.call("drain", for_s=20, reason="new disk"))["changed"]

        async def is_over() -> bool:
            return not main.node.runtime.draining.is_drained

        await reached(is_over, lambda: "the drain ends")
        (_, ended) = await _noted(main, "drained", "undrained")
        assert "the time has passed" in ended["text"] and ended["reason"] == "new disk", ended


@in_virtual_time
async def test_a_state_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: once there is room again, the events of the time without it are there, and say how long it was."""
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main = cluster["main"]
        append, is_full = main.store.append_event, True

        def appended(*row: Any) -> int:
            if is_full:
                raise ResourceError("no space is left", code="store_full")
            return append(*row)

        monkeypatch.setattr(main.store, "append_event", appended)
        await main.call("drain")
        is_full = False
        found = await _noted(main, "state_unwritable", "drained", "state_writable")
        assert "no space is left" in found[0]["text"], found


@in_virtual_time
async def test_events_are_followed(tmp_path: Path) -> None:
    """Goal: the events until now come first, then each new event once, until the daemon stops."""
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main, speaker = cluster["main"], Speaker()
        before = await main.events()
        async with TaskGroup() as group:
            group.create_task(main.followed("events", speaker, follow=True))
            await reached(_is_said(speaker, before[-1]["number"]), lambda: str(speaker.items))
            await main.call("drain", reason="new disk")
            drained = (await main.events())[-1]
            await reached(_is_said(speaker, drained["number"]), lambda: str(speaker.items))
            main.node.stopping.set()
        said = [one["number"] for item in speaker.items for one in item["events"]]
        assert said == sorted(set(said)) and len(said) >= len(before)


def _is_said(speaker: Speaker, number: int) -> Any:
    async def is_so() -> bool:
        return any(one["number"] == number for item in speaker.items for one in item["events"])

    return is_so
