"""Sync runs between homes that ignore different paths: what one home does not see is not removed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time


@pytest.mark.parametrize("at_left", [True, False], ids=["left", "right"])
@in_virtual_time
async def test_a_path_that_one_home_ignores_is_removed_nowhere(tmp_path: Path, at_left: bool) -> None:
    """Goal: the other side keeps it, also below a directory that is removed, the run names it, and the profile is not
    in sync; ignored at both homes, it is no difference. A first run removes none either."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        ignoring, other = (site.s1, site.p1) if at_left else (site.p1, site.s1)
        site.s1.write({"d/keep.log": "1", "e/f": "1"})
        assert (await site.run())["phase"] == "done"
        await ignoring.set(ignore="*.log")
        (ignoring.tree / "d/x").unlink()
        (ignoring.tree / "d/keep.log").unlink()
        (ignoring.tree / "d").rmdir()
        (ignoring.tree / "e/f").unlink()
        for initial in (None, "left", "right"):
            ran = await site.run(initial=initial)
            assert [(each["side"], each["path"]) for each in ran["left_out"]] == [
                ("left" if at_left else "right", "d/keep.log")
            ]
            assert (other.tree / "d/keep.log").read_text() == "1"
            assert not (other.tree / "d/x").exists() and not (other.tree / "e/f").exists()
        shown = await site.s1.call("sync_show", profile="site")
        assert not shown["in_sync"]
        assert f"1 path left out that {ignoring.name} alone ignores" in shown["why_not"]
        await other.set(ignore="*.log")
        assert (await site.run())["left_out"] == []
        assert (other.tree / "d/keep.log").read_text() == "1"
        assert (await site.s1.call("sync_show", profile="site"))["in_sync"]


@in_virtual_time
async def test_a_run_over_the_removal_guard_is_not_done(tmp_path: Path) -> None:
    """Goal: the run says which changes the other home refused, and so does the profile afterwards."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        site.s1.write({f"many/{number}": "1" for number in range(30)})
        await site.run()
        await site.p1.set(max_deletions="5")
        for path in (site.s1.tree / "many").iterdir():
            path.unlink()
        (site.s1.tree / "many").rmdir()
        await site.s1.publish(accept_deletions=True)
        ran = await site.run()
        assert (ran["phase"], ran["undone_total"]) == ("incomplete", 31)
        shown = await site.s1.call("sync_show", profile="site")
        assert (shown["in_sync"], shown["why_not"]) == (False, "the last run left 31 paths undone")
        assert (await site.run(accept_deletions=True))["phase"] == "done"
