"""Edits of paths that a sync profile locks at a home: named there and at staging, archived by the next run or at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time, reached


async def _shown(site: Site) -> dict[str, Any]:
    return await site.s1.call("sync_show", profile="site")


@in_virtual_time
async def test_an_edit_on_the_locked_side_is_named_at_once_and_put_back_by_the_next_run(
    tmp_path: Path,
) -> None:
    """Goal: named within five seconds on production and by ``sync show``, also after a restart; never on staging; what a
    run brings is no edit, and neither is a path that was changed back."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        s1, p1 = site.s1, site.p1
        await site.begin()
        s1.write({"templates/t": "2", "templates/new": "1"})
        await site.run()
        assert ((await p1.line())["standing"], (await _shown(site))["locked_edits"]) == ("in_step", [])
        p1.write({"templates/t": "mine", "templates/own": "mine", "a": "2"})

        async def is_named() -> bool:
            line = await p1.line()
            return (line["standing"], line["code"]) == ("drifted", "locked_edit")

        await reached(is_named, lambda: "the edit is named", within_s=5.0)
        assert (
            "templates/own and 1 other path changed here, where site locks templates"
            in (await p1.line())["reason"]
        )
        shown = await _shown(site)
        assert [(each["side"], each["path"]) for each in shown["locked_edits"]] == [
            ("right", "templates/own"), ("right", "templates/t"),
        ]  # fmt: skip
        assert "2 paths changed where the kind is locked" in shown["why_not"]
        assert "locked_edit" in {event["what"] for event in await p1.events()}
        await p1.stop()
        p1.write({"templates/new": "changed while it was down"})
        p1.start()

        async def are_three() -> bool:
            return len((await _shown(site))["locked_edits"]) == 3

        await reached(are_three, lambda: "the edit of before the start is named")
        p1.write({"templates/new": "1"})
        await p1.publish()
        # its time differs, and so the path: it stays until a run has put it back
        ran = await site.run()
        assert {each["why"] for each in ran["listed"]} == {"locked_edit"}
        assert (site.same()["templates/t"], "templates/own" in site.same()) == ("2", False)
        assert {"templates/t", "templates/own"} <= (await p1.archived()).keys()
        assert ((await p1.line())["standing"], (await _shown(site))["locked_edits"]) == ("in_step", [])


@in_virtual_time
async def test_an_edit_is_put_back_at_once_where_the_profile_says_so(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        site.profile = site.profile.replace('locked = "right"', 'locked = "right"\nlock_enforce = "revert"')
        p1 = site.p1
        await site.begin()
        (p1.tree / "templates/t").unlink()
        p1.write({"templates/own": "mine"})
        await p1.holds("templates/t", "1")

        async def is_gone() -> bool:
            return not (p1.tree / "templates/own").exists()

        await reached(is_gone, lambda: "the added path is put back")
        assert "templates/own" in await p1.archived()
        await p1.stands("in_step")
        assert (await _shown(site))["locked_edits"] == []
        assert (await site.run())["listed"] == []


@in_virtual_time
async def test_who_may_tell_a_home_of_locks(tmp_path: Path) -> None:
    """Goal: only a partner whose changes the home takes, and of runs that it carries out itself."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        p1 = site.p1
        p1.fileset = p1.fileset.replace('offers_from = ["s1"]', "offers_from = []")
        await p1.reload()
        shown = await _shown(site)
        assert "takes no changes of data from s1" in shown["locked_unknown"]
