"""A command that finds nothing to do says so and why; a dry run says what the command itself would be refused for."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached

FILES = {f"d/file{number}": str(number) for number in range(5)}


@in_virtual_time
async def test_commands_that_do_nothing_say_so_and_why(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write(FILES)
        await cluster.followed("s1")
        await cluster.in_step("s1")

        for node, asked in ((s1, {}), (main, {}), (main, {"node": "s1"})):
            told = await node.call("retry", fileset="data", **asked)
            assert not told["changed"] and "nothing failed" in told["why"], told
        assert not (await main.call("resume", fileset="data"))["changed"]
        assert (await main.call("reload", fileset="data"))["without_hook"]

        again = await s1.accepts()
        assert not again["changed"] and again["why"] == "it is in step", again

        assert (await s1.call("pause", fileset="data", reason="migration"))["changed"]
        line = await s1.stands("paused")
        again = await s1.accepts()
        assert "migration" in again["why"] and again["next"] == line["next"], again
        assert not (await s1.call("pause", fileset="data", reason="migration"))["changed"]
        error = await s1.refuses("paused", "retry", fileset="data")
        assert error.hint == "instep resume data" and "migration" in error.reason

        async def known_paused() -> bool:
            return bool((await main.line())["partners"][0]["standing"] == "paused")

        await reached(known_paused, lambda: "the report of the pause")
        error = await main.refuses("paused", "retry", fileset="data", node="s1")
        assert error.hint == "on s1: instep resume data"
        assert (await s1.call("resume", fileset="data"))["changed"]
        await s1.stands("in_step")


@in_virtual_time
async def test_a_dry_run_names_what_the_command_is_refused_for(tmp_path: Path) -> None:
    """Goal: the dry run of an accept and of an adopt looked fine where the command was refused."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write(FILES)
        await cluster.followed("s1")
        await cluster.in_step("s1")
        asked = {"fileset": "data", "path": str(s1.tree)}
        there = await s1.call("fileset_adopt", **asked, dry_run=True)
        assert there["why"] == "it has its marker already" and not there["changed"]
        shutil.rmtree(s1.tree / ".instep")
        shutil.rmtree(s1.tree / "d")
        dry = await s1.call("fileset_adopt", **asked, dry_run=True)
        error = await s1.refuses("nothing_of_it", "fileset_adopt", **asked)
        assert (dry["why"], dry["next"]) == (error.reason, [error.hint])

        await s1.forget()
        s1.write({"d/file1": "mine", "of-mine": "1"})
        asked = {"name": "data", "path": str(s1.tree)}
        dry = await s1.call("fileset_check", **asked)
        error = await s1.refuses("not_empty", "fileset_accept", **asked)
        assert (dry["why"], dry["next"]) == (error.reason, [error.hint])
        assert "why" not in await s1.call("fileset_check", **asked, mode="seed")
        elsewhere = {"name": "data", "path": str(main.tree)}
        for command in ("fileset_check", "fileset_accept"):
            await main.refuses("written_here", command, **elsewhere)
