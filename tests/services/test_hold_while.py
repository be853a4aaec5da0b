"""Publishing waits while a path of ``hold_while`` exists, as git's lock does during a pull."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached

HOLDS = 'hold_while = [".git/index.lock", "deploy/*.running"]'


@in_virtual_time
async def test_nothing_is_published_while_the_path_is_there_and_all_of_it_afterwards(tmp_path: Path) -> None:
    """Goal: a pull arrives as one generation. The lock lies in a directory that is ignored, so no watch sees it go."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=(HOLDS, 'ignore = [".git/"]'))
        await cluster.followed("s1")
        main = cluster["main"]
        main.write({".git/HEAD": "ref", "page": "old"})
        assert (await main.publish(wait=True))["wait"]["reached"]
        head = await main.head()
        main.write({".git/index.lock": ""})
        main.write({"page": "half"})
        line = await main.stands("held", code="hold_while")
        assert ".git/index.lock" in line["reason"], line
        main.write({"page": "new", "other": "new"})
        await main.refuses("hold_while", "wait", fileset="data", timeout_s=60)
        assert await main.head() == head
        (main.tree / ".git/index.lock").unlink()
        await cluster["s1"].holds("other", "new")
        await main.stands("in_step")
        assert await main.head() == head + 1
        assert (cluster["s1"].tree / "page").read_text() == "new"


@in_virtual_time
async def test_a_lock_that_stays_is_named_and_waited_for_ten_minutes_once(tmp_path: Path) -> None:
    """Goal: a lock that a crash left behind stops nothing for ever, and does not delay each later change anew; an
    operator who publishes by hand waits for none."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=(HOLDS,))
        await cluster.followed("s1")
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"page": "old"})
        await cluster.in_step("s1")
        main.write({"deploy/now.running": "", "page": "by hand"})
        await main.stands("held", code="hold_while")
        await cluster.in_step("s1")
        main.write({"page": "new"})
        await main.stands("held", code="hold_while")

        async def is_told() -> bool:
            return "hold_expired" in str((await main.line())["code"])

        await reached(is_told, lambda: "the end of the wait", 3600)
        await s1.holds("page", "new")
        assert any(event["what"] == "hold_expired" for event in await main.events())
        main.write({"page": "newer"})
        await s1.holds("page", "newer")
        assert (await main.line())["standing"] == "in_step"
        (main.tree / "deploy/now.running").unlink()
        await s1.holds("page", "newer")

        async def is_over() -> bool:
            return (await main.line())["code"] is None

        await reached(is_over, lambda: "the path is gone")
        main.write({"deploy/next.running": "", "page": "newest"})
        await main.stands("held", code="hold_while")
