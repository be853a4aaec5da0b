"""A home behind a balancer: out of it while changes from elsewhere go live and its application reloads, and back by
itself, while a follower serves in its place."""

from __future__ import annotations

import asyncio
from pathlib import Path

from instep.model.change import ChangeAnswer
from instep.node.runtime.draining import changes_key
from tests.support.offered import Offerer
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

RELOADS = '[filesets.data.hooks]\nreload = {{ touch = "{}" }}'


class Balanced:
    """The home ``main`` and its follower ``s1``, which reload an application, behind one balancer that asks both."""

    def __init__(self, cluster: Services, base: Path) -> None:
        self.nodes = {name: cluster.add(name) for name in ("main", "s1")}
        self.main, self.s1 = self.nodes.values()
        self.done = {name: base / f"reloaded-{name}" for name in self.nodes}
        self.main.writes('offers_from = ["s1"]', RELOADS.format(self.done["main"]))
        self.s1.follows(self.main, RELOADS.format(self.done["s1"]))
        cluster.link("main", "s1")
        self.cluster = cluster
        self.offerer = Offerer(self.main)
        self.asked = 0
        self.ready: dict[str, bool] = {}
        self.served: list[dict[str, str]] = []
        """At each question of the balancer the text of ``a`` on the nodes that it sends users to, marked where the
        application has not reloaded since."""

    async def begin(self) -> None:
        self.main.start()
        self.main.write({"a": "one"})
        self.s1.start()
        await self.cluster.followed("s1")
        assert (await self.main.call("wait", fileset="data", timeout_s=600))["reached"]
        self.offerer.see()

    async def ask(self) -> None:
        """The balancer asks one node, in turn."""
        self.asked += 1
        name, node = list(self.nodes.items())[self.asked % len(self.nodes)]
        self.ready[name] = (await node.fitness()).is_ready
        node.node.runtime.draining.answered("balancer", is_ready=self.ready[name], is_certain=True)
        found = {}
        for name, node in self.nodes.items():
            if self.ready.get(name, True):
                text, done = (node.tree / "a").read_text(), self.done[name]
                is_fresh = done.exists() and done.stat().st_mtime_ns >= (node.tree / "a").stat().st_ctime_ns
                found[name] = text if text == "one" or is_fresh else f"{text}, not reloaded"
        self.served.append(found)

    async def until(self, work: asyncio.Task[ChangeAnswer]) -> ChangeAnswer:
        async def is_done() -> bool:
            await self.ask()
            return work.done()

        await reached(is_done, lambda: str(self.served[-5:]), 600)
        return work.result()

    def offer(self, text: str) -> asyncio.Task[ChangeAnswer]:
        return asyncio.get_running_loop().create_task(self.offerer.offer({"a": text}))

    def is_drained(self, node: ServiceNode) -> bool:
        return node.node.runtime.draining.get(changes_key("data")) is not None


@in_virtual_time
async def test_a_home_is_drained_until_its_application_has_reloaded(tmp_path: Path) -> None:
    """Goal: users are sent to no node whose application has not reloaded, at each moment to one at least, and to both
    in the end."""
    async with services(tmp_path) as cluster:
        site = Balanced(cluster, tmp_path)
        await site.begin()
        await site.ask()
        await site.ask()
        answer = await site.until(site.offer("two"))
        assert answer.head is not None

        async def are_both_back() -> bool:
            await site.ask()
            return site.served[-1] == {"main": "two", "s1": "two"}

        await reached(are_both_back, lambda: str(site.served[-5:]), 600)
        assert all(site.served), "a moment without any node"
        assert not [one for one in site.served if "not reloaded" in str(one)], site.served
        assert {"s1": "one"} in site.served, "the home was not drained"


@in_virtual_time
async def test_a_home_that_no_follower_replaces_is_not_drained(tmp_path: Path) -> None:
    """Goal: one server that reloads is better than none; the log has the reason."""
    async with services(tmp_path) as cluster:
        site = Balanced(cluster, tmp_path)
        await site.begin()
        await site.s1.stop()
        del site.nodes["s1"]
        await site.ask()
        await site.until(site.offer("two"))
        assert all(site.served)
        assert "not_drained" in {event["what"] for event in await site.main.events()}


@in_virtual_time
async def test_a_drain_for_changes_ends_with_them_also_after_a_stop(tmp_path: Path) -> None:
    """Goal: a home that stops while it waits for its balancer is back in it after the start, and the changes are not
    half made."""
    async with services(tmp_path) as cluster:
        site = Balanced(cluster, tmp_path)
        await site.begin()
        await site.ask()
        await site.ask()
        offered = site.offer("two")

        async def is_drained() -> bool:
            return site.is_drained(site.main)

        await reached(is_drained, lambda: "not drained")
        await site.main.stop()
        await asyncio.gather(offered, return_exceptions=True)
        site.main.start()

        async def is_back() -> bool:
            await site.ask()
            return not site.is_drained(site.main) and len(site.served[-1]) == 2

        await reached(is_back, lambda: str(site.served[-5:]), 600)
        assert (site.main.tree / "a").read_text() in ("one", "two")
