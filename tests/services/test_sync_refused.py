"""Sync runs whose changes the partners of a home refuse: the base does not follow, and nothing is brought there again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time


@pytest.mark.parametrize("way", ["retry", "corrected", "rollback", "once more"])
@in_virtual_time
async def test_what_production_refused_is_held_until_something_changes(tmp_path: Path, way: str) -> None:
    """Goal: the probe of production's mirror fails, and it goes back. The run is held and names it, and so is the next
    one. After a rollback no run brings the same there again by itself: staging changes it, or an operator says so."""
    folder = tmp_path / "reloads"
    folder.mkdir()
    async with services(tmp_path) as cluster:
        site = Site(cluster, has_p2=True)
        s1, p1, p2 = site.s1, site.p1, site.production[1]
        p2.tail += f'[filesets.data.hooks]\nprobe = {{ touch = "{folder}/done" }}\n'
        await site.begin()
        good = await p1.head()
        folder.rename(tmp_path / "gone")
        s1.write({"a": "2"})
        for _ in range(2):
            error = await s1.refuses("sync_held", "sync_run", profile="site")
            assert f"the partners of p1 refused generation {good + 1} of data: p2: " in error.reason
            await p2.holds("a", "1")
            assert (p1.tree / "a").read_text() == "2"
        assert await p1.head() == good + 1
        shown = await s1.call("sync_show", profile="site")
        assert not shown["in_sync"] and "refused its newest generation: p2: " in shown["why_not"]
        if way in ("rollback", "once more"):
            await p1.call("rollback", fileset="data", generation=good)
            for _ in range(2):
                error = await s1.refuses("sync_held", "sync_run", profile="site")
                assert "p1 gets nothing: its partners refused the same changes before: p2: " in error.reason
            p1.write({"uploads/u": "2"})
            await s1.refuses("sync_held", "sync_run", profile="site")
            assert ((s1.tree / "a").read_text(), (s1.tree / "uploads/u").read_text()) == ("2", "2")
            assert (p1.tree / "a").read_text() == "1"
        (tmp_path / "gone").rename(folder)
        if way == "retry":
            await p2.call("retry", fileset="data")
            await p2.holds("a", "2")
        elif way != "once more":
            s1.write({"a": "3"})
        ran = await site.run(retry_refused=way == "once more")
        assert (ran["phase"], ran["listed"]) == ("done", [])
        whole = site.same()
        assert whole["a"] == (p2.tree / "a").read_text() == ("2" if way in ("retry", "once more") else "3")
        assert (await s1.call("sync_show", profile="site"))["in_sync"]
