"""``instep.toml`` edited while the services run: the bad file is not in use, the mended one is taken live."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_bad_file_changes_nothing_and_a_right_one_is_live_by_itself(tmp_path: Path) -> None:
    """Goal: the command names every problem, the old settings go on, a restart that is needed is said; a right file is
    taken without a command."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        path = main.directory.config
        good, running = path.read_text(), (await main.status())["config"]["running"]
        path.write_text(good.replace('settle = "20ms"', 'settle = "soon"\npolll = 1'))
        refused = await main.refuses("bad_configuration", "reload_config")
        problems = refused.facts["problems"]
        assert isinstance(problems, list) and len(problems) == 2, problems
        told = (await main.status())["config"]
        assert (told["state"], told["running"]) == ("refused", running), told
        main.write({"file": "2"})
        await cluster.in_step("s1")

        async def is_told() -> bool:
            return "restart" in str((await main.status())["config"])

        path.write_text(good.replace('"main"', '"other"'))
        await reached(is_told, lambda: "a restart is needed")
        path.write_text(good.replace('settle = "20ms"', 'settle = "30ms"\nignore = ["*.tmp"]'))

        async def is_live() -> bool:
            found = (await main.status())["config"]
            return bool(found["state"] == "current" and found["running"] != running)

        await reached(is_live, lambda: "the right file is live")
        main.write({"ignored.tmp": "x", "file": "3"})
        assert (await main.publish(wait=True))["wait"]["reached"]
        assert (s1.tree / "file").read_text() == "3"
        assert not (s1.tree / "ignored.tmp").exists()


@in_virtual_time
async def test_a_name_has_one_writer(tmp_path: Path) -> None:
    """Goal: neither a follower's file nor a new row makes a second writer of a name (E11); the followed line goes on."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        path = s1.directory.config
        good = path.read_text()
        path.write_text(good.replace('writer = "main"', 'writer = "s1"'))
        refused = await s1.refuses("two_writers", "reload_config")
        assert "data is written on main" in str(refused.facts["problems"])
        main.write({"file": "2"})
        await s1.holds("file", "2")
        path.write_text(good[: good.index("[filesets.data]")])
        await s1.call("reload_config")

        async def is_offered() -> bool:
            return bool((await s1.call("fileset_offers"))["offers"])

        await reached(is_offered, lambda: "the offer")
        path.write_text(good.replace('writer = "main"', 'writer = "s1"'))
        await s1.refuses("two_writers", "reload_config")
        path.write_text(good)
        await s1.call("reload_config")
        await cluster.in_step("s1")
