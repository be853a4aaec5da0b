"""What stops the flow over a link and what lets it go on, seen at both ends through the commands."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instep.api.looking import StatusDocument
from instep.cli.filesets.status_text import status_lines
from instep.errors import InstepError
from instep.net.messages import messages as m
from instep.net.task_group import TaskGroup
from tests.support.fleet import tree_of
from tests.support.memory_net import Calls
from tests.support.services import Services, services
from tests.support.virtual_time import in_virtual_time, reached


async def _in_step(cluster: Services, partners: int = 2) -> None:
    cluster.make(partners)
    names = [f"s{number}" for number in range(1, partners + 1)]
    cluster["main"].write({"file": "1"})
    await cluster.followed(*names)
    await cluster.in_step(*names)


@in_virtual_time
async def test_pause_retry_and_wait(tmp_path: Path) -> None:
    """Goal: a paused partner stays, a paused writer publishes nothing, both say so and resume, also by themselves and
    over a restart; ``wait`` answers on the writer and on a partner, and names the nodes that it waits for."""
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main, s1, s2 = cluster["main"], cluster["s1"], cluster["s2"]
        await s1.call("pause", fileset="data", reason="kernel update")
        main.write({"file": "2"})
        found = await main.call("wait", fileset="data", nodes=["s2"], timeout_s=60)
        assert found["reached"], found
        second = found["generation"]["number"]
        late = await main.call("wait", fileset="data", timeout_s=1)
        assert not late["reached"], late
        assert [row["node"] for row in late["waiting_for"]] == ["s1"], late
        line = await s1.stands("paused")
        assert "kernel update" in line["reason"] and "resume" in str(line["next"]), line
        assert ((s1.tree / "file").read_text(), (s2.tree / "file").read_text()) == ("1", "2")
        assert (await s2.call("wait", fileset="data", generation=second, timeout_s=60))["reached"]
        assert not (await s1.call("wait", fileset="data", timeout_s=0.5))["reached"]
        await s1.stop()
        s1.start()
        await s1.stands("paused")
        await s1.call("resume", fileset="data")
        assert (await s1.call("wait", fileset="data", timeout_s=60))["reached"]
        assert tree_of(s1.tree) == tree_of(main.tree)
        await main.refuses("no_generation", "wait", fileset="data", generation=99)
        await main.call("pause", fileset="data")
        await main.refuses("paused", "publish", fileset="data")
        main.write({"file": "3"})
        assert await main.head() == second
        await main.call("pause", fileset="data", for_s=1)  # from now on, instead of without an end

        async def goes_on() -> bool:
            return bool(await main.head() > second)

        await reached(goes_on, lambda: "the pause of the writer ends")
        await cluster.in_step("s1", "s2")
        told = await main.call("retry", fileset="data", node="s1")
        assert not told["changed"] and "nothing failed on s1" in told["why"], told
        await main.refuses("not_connected", "retry", fileset="data", node="nobody")
        found = await main.call("explain", fileset="data", path="file")
        assert all(row["gets"] for row in found["to"] if row["node"] in ("s1", "s2")), found


@in_virtual_time
async def test_a_lost_partner_is_named_and_catches_up(tmp_path: Path) -> None:
    """Goal: with the link cut both ends say so, the other partner goes on, and the lost one has the newest generation
    once the link is back."""
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main, s1 = cluster["main"], cluster["s1"]
        cluster.cut("main", "s1")
        line = await s1.stands("unreachable")
        assert "the contact was lost" in line["reason"], line
        main.write({"file": "2"})
        assert (await main.call("wait", fileset="data", nodes=["s2"], timeout_s=60))["reached"]
        late = await main.call("wait", fileset="data", timeout_s=1)
        assert [row["node"] for row in late["waiting_for"]] == ["s1"], late
        main.write({"file": "3"})
        cluster.heal("main", "s1")
        await cluster.in_step("s1", "s2")
        assert (s1.tree / "file").read_text() == "3"


@in_virtual_time
async def test_the_first_step_without_a_source_is_the_one_that_brings_its_link_back(tmp_path: Path) -> None:
    """Goal: with the writer's daemon stopped, a partner names its start before what is for good, in the document and
    once in the text."""
    async with services(tmp_path) as cluster:
        await _in_step(cluster, 1)
        await cluster["main"].stop()
        line = await cluster["s1"].stands("unreachable", code="no_source")
        assert line["next"][0].startswith("on main: instep start; or, "), line
        assert "promote data --home-is-dead --dry-run" in str(line["next"][1:]), line
        document = msgspec.convert(await cluster["s1"].call("status"), StatusDocument)
        told = list(status_lines(document))
        steps = [text.strip() for text in told if "next:" in text]
        assert steps[0].startswith("next: on main: instep start; or, "), told
        assert sum("instep start" in text for text in told) == 1, told


@in_virtual_time
async def test_replicate_off_and_a_removed_partner_stop_the_flow(tmp_path: Path) -> None:
    """Goal: ``replicate`` off and removing the partner each stop the flow, with the reason on both sides; the live
    generation stays; turning it on again heals."""
    async with services(tmp_path) as cluster:
        await _in_step(cluster)
        main, s1 = cluster["main"], cluster["s1"]
        kept = main.partners["s1"]
        main.partners["s1"] = "replicate = false"
        await main.reload()
        main.write({"file": "2"})
        await cluster.in_step("s2")
        assert (s1.tree / "file").read_text() == "1"
        found = await main.call("explain", fileset="data", path="file")
        why = {row["node"]: row for row in found["to"]}["s1"]
        assert not why["gets"] and "replicate" in why["why"], why
        line = await s1.stands("unreachable", "blocked", "behind", "failing")
        assert line["reason"] and line["next"], line
        main.partners["s1"] = kept
        await main.reload()
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        del main.partners["s1"]
        await main.reload()
        main.write({"file": "3"})
        await cluster.in_step("s2")
        await s1.stands("unreachable", "blocked", "failing")

        async def is_told() -> bool:
            links = (await s1.status())["links"]
            return any(not link["up"] and "partner" in f"{link['reason']} {link['next']}" for link in links)

        await reached(is_told, lambda: "the link says that it is not listed")
        assert (s1.tree / "file").read_text() == "2"


@in_virtual_time
async def test_a_chain_over_a_hub(tmp_path: Path) -> None:
    """Goal: a node that lists the hub alone is offered the fileset and gets every change; ``wait`` with ``fleet``
    includes it, the writer sees its standing; with a reload hook it gets its permit from the hub; while the hub is down
    it says so, and with the hub flag off nothing flows."""
    reloaded = tmp_path / "reloaded"
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes()
        cluster.add("s1").follows(main)
        cluster.add("s2")
        cluster.link("main", "s1")
        cluster.link("s1", "s2", hub=True)
        s1, s2 = cluster["s1"], cluster["s2"]
        main.write({"file": "1", "large": "0123456789abcdef" * 200_000})
        for node in (main, s1, s2):
            node.start()
        await cluster.followed("s1")
        await cluster.in_step("s1")

        async def is_offered() -> bool:
            return [row["name"] for row in (await s2.call("fileset_offers"))["offers"]] == ["data"]

        await reached(is_offered, lambda: "the hub offers the fileset")
        await s2.call("fileset_accept", name="data", path=str(s2.tree))
        await s2.stands("in_step")
        main.write({"file": "2"})
        found = await main.call("wait", fileset="data", fleet=True, timeout_s=60)
        assert found["reached"], found
        assert tree_of(s2.tree) == tree_of(main.tree)

        async def is_seen() -> bool:
            rows = (await main.line())["partners"]
            return {row["name"]: row["standing"] for row in rows}.get("s2") == "in_step"

        await reached(is_seen, lambda: "the writer sees the node behind the hub")
        explained = await main.call("explain", fileset="data", path="file")
        why = {row["node"]: row for row in explained["to"]}["s2"]
        assert why["gets"] and "s1" in why["via"], why
        listed = (await s2.call("partner_list"))["partners"]
        assert [one["name"] for one in listed] == ["s1"], "the hub is enough"
        s2.follows(main, f'[filesets.data.hooks]\nreload = {{ touch = "{reloaded}" }}')
        await s2.reload()
        await s1.stop()
        main.write({"file": "3"})
        await main.publish()
        line = await s2.stands("unreachable")
        assert line["live"]["number"] == found["generation"]["number"], line
        s1.start()
        assert (await main.call("wait", fileset="data", fleet=True, timeout_s=60))["reached"]
        assert (s2.tree / "file").read_text() == "3"
        assert reloaded.exists()
        kept, s1.partners["s2"] = s1.partners["s2"], "replicate = true\ndata = true"
        await s1.reload()
        main.write({"file": "4"})
        await cluster.in_step("s1")
        await s2.stands("unreachable", "blocked", "behind", "failing")
        assert (s2.tree / "file").read_text() == "3"
        s1.partners["s2"] = kept
        await s1.reload()

        async def arrives() -> bool:
            return (s2.tree / "file").read_text() == "4"

        await reached(arrives, lambda: "the change arrives behind the hub")


@in_virtual_time
async def test_a_leaf_is_not_in_step_while_its_hub_holds_back(tmp_path: Path) -> None:
    """Goal: a node behind a paused hub knows that there is more, and one behind a hub that lost the writer that it may
    be behind; both name the hub. The writer, which lists that node too, has a row for it."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes()
        cluster.add("hub").follows(main)
        cluster.add("leaf").follows(main)
        cluster.link("main", "hub")
        cluster.link("hub", "leaf", hub=True)
        main.partners["leaf"] = "replicate = true\ndata = true"
        hub, leaf = cluster["hub"], cluster["leaf"]
        main.write({"file": "1"})
        for node in (main, hub, leaf):
            node.start()
        await cluster.followed("hub", "leaf")
        assert (await main.call("wait", fileset="data", fleet=True, timeout_s=60))["reached"]
        await leaf.stands("in_step")
        await hub.call("pause", fileset="data")
        main.write({"file": "2"})
        number = (await main.publish())["generation"]["number"]
        line = await leaf.stands("behind", code="source_behind")
        assert f"generation {number} " in line["reason"] and "hub" in line["next"][0], line
        rows = {row["name"]: row["standing"] for row in (await main.line())["partners"]}
        assert rows == {"hub": "paused", "leaf": "behind"}, rows
        assert not (await leaf.call("wait", fileset="data", timeout_s=0.5))["reached"]
        await hub.call("resume", fileset="data")
        await leaf.stands("in_step")
        cluster.cut("main", "hub")
        line = await leaf.stands("unreachable")
        assert "hub" in line["reason"] and "lost its own contact" in line["reason"], line
        assert any("instep promote data --home-is-dead" in step for step in line["next"]), line
        cluster.heal("main", "hub")
        await leaf.stands("in_step")


@in_virtual_time
async def test_the_writer_names_what_hides_behind_a_connected_partner(tmp_path: Path) -> None:
    """Goal: a partner whose ``instep.toml`` is refused, one that accepted nothing, and a second node with a partner's
    keys are all in the writer's status."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.partners["s2"] = "replicate = true\ndata = true"
        await main.reload()
        main.write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        assert (await main.line())["not_accepted"] == ["s2"]
        right = s1.tail
        s1.tail = "[filesets.data.hooks]\nreload = 7"
        s1.configure()
        await s1.refuses("bad_configuration", "reload_config")
        await s1.refuses("no_balancer", "balancer_reload")

        async def row() -> dict[str, Any]:
            (found,) = (await main.line())["partners"]
            return dict(found)

        async def is_named() -> bool:
            return bool((await row())["code"] == "config_refused")

        await reached(is_named, lambda: "the writer names the refused file")
        assert "on s1: instep config check" in (await row())["next"]
        s1.tail = right
        await s1.reload()

        async def is_well() -> bool:
            return (await row())["code"] is None

        await reached(is_well, lambda: "the refused file is forgotten")
        copy = m.Hello(versions=m.VERSIONS, name=s1.name, session=b"another process")
        with pytest.raises(InstepError, match="two nodes use one identity"):
            async with Calls(cluster.net, s1.name, main.name, main.address).stream(copy):
                pass
        assert "two nodes use the identity of s1" in str((await main.status())["warnings"])
        events = (await main.call("events"))["events"]
        assert any(event["what"] == "identity_in_use" for event in events)


@in_virtual_time
async def test_a_report_ends_with_what_it_is_about(tmp_path: Path) -> None:
    """Goal: a partner that removed the fileset is not counted any more, directly or behind a hub; a node behind a hub
    that is gone is named at the writer."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes()
        for name in ("hub", "leaf", "s1"):
            cluster.add(name).follows(main)
        cluster.link("main", "hub")
        cluster.link("main", "s1")
        cluster.link("hub", "leaf", hub=True)
        main.write({"file": "1"})
        for node in cluster.nodes.values():
            node.start()
        await cluster.followed("hub", "s1", "leaf")

        async def rows() -> dict[str, str]:
            return {row["name"]: row["standing"] for row in (await main.line())["partners"]}

        async def becomes(wanted: dict[str, str]) -> None:
            last: dict[str, str] = {}

            async def is_so() -> bool:
                last.clear()
                last.update(await rows())
                return last == wanted

            await reached(is_so, lambda: f"{wanted}: {last}")

        await becomes({"hub": "in_step", "leaf": "in_step", "s1": "in_step"})
        await cluster["s1"].forget()
        await becomes({"hub": "in_step", "leaf": "in_step"})
        found = await main.call("verify", fileset="data", fleet=True)
        assert [node["name"] for node in found["nodes"]] == ["main", "hub"], found
        links = (await main.call("node_map"))["links"]
        assert "s1" not in {link["to"] for link in links}, links
        cluster.cut("hub", "leaf")
        await becomes({"hub": "in_step", "leaf": "unreachable"})
        cluster.heal("hub", "leaf")
        await becomes({"hub": "in_step", "leaf": "in_step"})
        await cluster["leaf"].forget()
        await becomes({"hub": "in_step"})
        assert (await main.line())["not_accepted"] == ["s1"]


@in_virtual_time
async def test_last_heard_of_is_when_it_was_last_heard(tmp_path: Path) -> None:
    """Goal: a partner that had nothing to report was heard of until its connection ended, and is said to have been, after
    a restart too."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main = cluster["main"]
        main.write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")

        async def row() -> dict[str, Any]:
            found: dict[str, Any] = (await main.line())["partners"][0]
            return found

        reported = (await row())["last_checked"]

        async def is_heard_since() -> bool:
            (partner,) = (await main.call("partner_list"))["partners"]
            return bool(partner["last_checked"] > reported)

        await reached(is_heard_since, lambda: "s1 is heard of after its report", 600)
        cluster.cut("main", "s1")

        async def is_lost() -> bool:
            return bool((await row())["code"] == "not_connected")

        await reached(is_lost, lambda: "s1 is lost")
        for _ in range(2):
            lost = await row()
            assert lost["since"] > reported, lost
            assert f"last heard of at {lost['since']}" in lost["reason"], lost
            await main.stop()
            main.start()


@in_virtual_time
async def test_status_waits_for_no_worker_and_no_peer(tmp_path: Path) -> None:
    """Goal: with the thread of each tree at work and the links cut, status is answered before either comes back."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        cluster["main"].write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        over = threading.Event()
        cluster.cut("main", "s1")
        async with TaskGroup() as at_work:
            trees = [service for node in cluster.nodes.values() for service in node.node.services.values()]
            busy = [at_work.create_task(service.worker.run(over.wait, 60)) for service in trees]
            try:
                for node in cluster.nodes.values():
                    assert (await node.line())["head"] is not None
                assert not any(task.done() for task in busy)
            finally:
                over.set()
