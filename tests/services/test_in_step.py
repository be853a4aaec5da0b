"""Writer and followers in one process: what is published arrives."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_generation_arrives_at_two_followers(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        cluster.make(2)
        cluster["main"].write({"a.txt": "one", "b/c.txt": "two"})
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        await cluster["s1"].stands("in_step")


@in_virtual_time
async def test_a_writer_that_is_back_says_nothing_by_reports_of_before(tmp_path: Path) -> None:
    """Goal: the partner stood in step when the writer ended, and its tree may be anything by now. Until a report comes, its
    standing is unknown, with what it was and when, and ``wait`` waits for it."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a.txt": "one"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        await main.stop()
        await s1.stop()
        main.start()
        (row,) = (await main.line())["partners"]
        assert (row["standing"], row["code"]) == ("unknown", "no_report"), row
        assert "in_step" in row["reason"] and row["last_checked"] in row["reason"]
        waited = await main.call("wait", fileset="data", timeout_s=1.0)
        assert not waited["reached"]
        assert waited["waiting_for"] == [{"node": "s1", "standing": "unknown"}]
        s1.start()
        assert (await main.call("wait", fileset="data"))["reached"]
        (row,) = (await main.line())["partners"]
        assert row["standing"] == "in_step"


@in_virtual_time
async def test_a_writer_that_is_back_hears_of_nodes_behind_a_hub_at_once(tmp_path: Path) -> None:
    """Goal: the hub passes on what it heard while the writer was away, and of a node that left, that it is not there."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        for name in ("s2", "s3"):
            cluster.add(name).follows(main)
            cluster[name].top[-1] = 'poll = "1h"'  # it reports when its standing changes, and once an hour
            cluster.link("s1", name, hub=True)
        await s1.reload()
        for name in ("s2", "s3"):
            cluster[name].start()
        main.write({"a.txt": "one"})

        async def standings(*wanted: str) -> bool:
            rows = {row["name"]: row["standing"] for row in (await main.line())["partners"]}
            return tuple(rows.get(name) for name in ("s1", "s2", "s3")) == wanted

        await reached(lambda: standings("in_step", "in_step", "in_step"), lambda: "all are in step")
        await main.stop()
        await cluster["s3"].stop()
        main.start()
        assert not (await main.call("wait", fileset="data", fleet=True, timeout_s=0.1))["reached"]
        await reached(
            lambda: standings("in_step", "in_step", "unreachable"), lambda: "the hub told all it knows"
        )
