"""Rollouts between services: waves in virtual time, a hook that fails, the way back, and what an operator does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instep.store.memory import MemoryStore
from tests.support.services import Services, services
from tests.support.virtual_time import in_virtual_time, reached

NAMES = ("s1", "s2", "s3")


class _Hooked:
    """Three partners whose hook touches a file in a folder of their own; without the folder it fails."""

    def __init__(self, cluster: Services, base: Path, slot: str = "reload") -> None:
        self.cluster = cluster
        self._base = base
        self._slot = slot
        for name in NAMES:
            self.repair(name)

    def folder(self, name: str) -> Path:
        return self._base / f"reloads-{name}"

    def sicken(self, name: str) -> None:
        self.folder(name).rename(self._base / f"gone-{name}")

    def repair(self, name: str) -> None:
        gone = self._base / f"gone-{name}"
        if gone.exists():
            gone.rename(self.folder(name))
        self.folder(name).mkdir(exist_ok=True)

    async def begin(self, *policy: str) -> None:
        """All three serve ``first``."""
        main = self.cluster.add("main")
        main.writes()
        main.tail = "\n".join(("[filesets.data.rollout]", *policy))
        for name in NAMES:
            self.cluster.add(name).follows(
                main, f'[filesets.data.hooks]\n{self._slot} = {{ touch = "{self.folder(name)}/done" }}'
            )
            self.cluster.link("main", name)
        main.write({"file": "first"})
        for node in self.cluster.nodes.values():
            node.start()
        await self.cluster.followed(*NAMES)
        assert (await main.call("wait", fileset="data", timeout_s=3600))["reached"]

    def words(self) -> list[str]:
        return [(self.cluster[name].tree / "file").read_text() for name in NAMES]

    async def rollout(self) -> dict[str, Any]:
        found = await self.cluster["main"].call("rollout_show", fileset="data")
        shown: dict[str, Any] = found["rollout"] or (found["past"][0] if found["past"] else {})
        return shown

    async def await_state(self, *states: str) -> dict[str, Any]:
        last: dict[str, Any] = {}

        async def is_so() -> bool:
            last.clear()
            last.update(await self.rollout())
            return last.get("state") in states

        await reached(is_so, lambda: f"{states}: {last}", 3600)
        return last


@in_virtual_time
async def test_a_canary_whose_probe_fails_goes_back_and_no_other_node_switches(tmp_path: Path) -> None:
    """Goal: ``publish`` that waits names the canary's reason; the others keep their tree; after the repair one
    ``retry`` brings the generation to all."""
    async with services(tmp_path) as cluster:
        hooked = _Hooked(cluster, tmp_path, "probe")
        await hooked.begin('strategy = "canary"', 'canary_for = "1m"')
        main = cluster["main"]
        hooked.sicken("s1")
        main.write({"file": "bad"})
        told = await main.publish(wait=True)
        failed = told["wait"]["failed"]
        assert (failed["node"], failed["code"]) == ("s1", "probe_failed"), told
        assert not told["wait"]["reached"]
        hooked.repair("s1")  # the probe also looks at the generation before
        await hooked.await_state("put_back")
        assert hooked.words() == ["first"] * 3
        await cluster["s2"].stands("failing", code="put_back_ordered")
        await main.call("retry", fileset="data")
        await hooked.await_state("done")
        assert hooked.words() == ["bad"] * 3


@in_virtual_time
async def test_a_reload_that_fails_holds_the_others_and_goes_on_once_it_works(tmp_path: Path) -> None:
    """Goal: the canary says that its reload failed and stays; the others keep their tree until it works."""
    async with services(tmp_path) as cluster:
        hooked = _Hooked(cluster, tmp_path)
        await hooked.begin('strategy = "rolling"')
        main = cluster["main"]
        hooked.sicken("s1")
        main.write({"file": "second"})
        await main.publish()
        line = await cluster["s1"].stands("failing", code="reload_failed")
        assert "cannot be touched" in line["reason"], line
        late = await main.call("wait", fileset="data", timeout_s=1)
        assert not late["reached"] and hooked.words()[1:] == ["first"] * 2, late
        hooked.repair("s1")
        await hooked.await_state("done")
        assert hooked.words() == ["second"] * 3


@in_virtual_time
async def test_a_canary_is_watched_paused_aborted_and_goes_back(tmp_path: Path) -> None:
    """Goal: the next wave begins only after the canary's time; a pause stops it beyond that time, and ``abort`` takes
    the canary back to the generation that it replaced."""
    async with services(tmp_path) as cluster:
        hooked = _Hooked(cluster, tmp_path)
        await hooked.begin('strategy = "canary"', 'canary_for = "1m"')
        main = cluster["main"]
        main.write({"file": "second"})
        await main.publish()

        async def is_canary_live() -> bool:
            return hooked.words() == ["second", "first", "first"]

        await reached(is_canary_live, lambda: str(hooked.words()))
        await cluster["s2"].stands("held", code="awaiting_permit")
        assert (await main.call("rollout_pause", fileset="data"))["changed"]
        assert not (await main.call("rollout_pause", fileset="data"))["changed"]
        late = await main.call("wait", fileset="data", timeout_s=180)
        assert {row["node"] for row in late["waiting_for"]} == {"s2", "s3"}, late
        assert (await hooked.rollout())["permitted"] == ["s1"]
        planned = await main.call("rollout_abort", fileset="data", dry_run=True)
        assert (planned["changed"], planned["going_back"]) == (True, ["s1"])
        assert (await hooked.rollout())["permitted"] == ["s1"], "a dry run changes nothing"
        await main.call("rollout_abort", fileset="data")
        await hooked.await_state("aborted")
        assert not (await main.call("rollout_abort", fileset="data", dry_run=True))["changed"]
        assert hooked.words() == ["first"] * 3
        refused = await main.refuses("no_rollout", "rollout_pause", fileset="data")
        assert "aborted" in refused.reason


@in_virtual_time
async def test_unconfirmed_goes_back_by_itself_and_confirmed_stays(tmp_path: Path) -> None:
    """Goal: without ``confirm`` within the time every node serves the generation before; with it no node goes back."""
    async with services(tmp_path) as cluster:
        hooked = _Hooked(cluster, tmp_path)
        await hooked.begin('strategy = "together"')
        main = cluster["main"]
        main.tail += '\nconfirm_within = "2m"'
        await main.reload()
        main.write({"file": "second"})
        await main.publish()
        shown = await hooked.await_state("confirming")
        assert "rollout confirm" in str(shown["next"]), shown
        assert hooked.words() == ["second"] * 3
        await hooked.await_state("put_back")
        assert hooked.words() == ["first"] * 3
        main.write({"file": "third"})
        await main.publish()
        await hooked.await_state("confirming")
        answer = await main.call("rollout_confirm", fileset="data")
        assert (answer["changed"], answer["state"]) == (True, "done"), answer
        late = await main.call("wait", fileset="data", timeout_s=3600)
        assert late["reached"] and hooked.words() == ["third"] * 3


@in_virtual_time
async def test_no_partner_switches_before_an_approval(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        hooked = _Hooked(cluster, tmp_path)
        await hooked.begin('strategy = "together"')
        main = cluster["main"]
        main.tail += '\napprove = "one"'
        await main.reload()
        main.write({"file": "second"})
        await main.publish()
        shown = await hooked.await_state("barrier")
        assert shown["next"][0] == "instep rollout approve data --generation 2", shown
        main.write({"file": "third"})
        await main.publish()
        unseen = await main.refuses("other_generation", "rollout_approve", fileset="data", generation=2)
        assert "--generation 3" in str(unseen.hint), unseen.hint
        late = await main.call("wait", fileset="data", timeout_s=60)
        assert not late["reached"] and hooked.words() == ["first"] * 3, late
        s1 = cluster["s1"]
        await s1.stop()
        s1.store = MemoryStore()
        s1.start()
        late = await main.call("wait", fileset="data", timeout_s=120)
        assert not late["reached"] and hooked.words() == ["first"] * 3, (
            "a node that lost its state waits, too"
        )
        answer = await main.call("rollout_approve", fileset="data", generation=3)
        assert answer["changed"], answer
        assert not (await main.call("rollout_approve", fileset="data"))["changed"]
        await main.refuses("other_generation", "rollout_approve", fileset="data", generation=2)
        assert (await main.call("wait", fileset="data", timeout_s=3600))["reached"]
        assert hooked.words() == ["third"] * 3
        assert (await main.call("rollout_show", fileset="data"))["rollout"]["approved_by"]
        await main.refuses("no_rollout", "rollout_approve", fileset="data")
