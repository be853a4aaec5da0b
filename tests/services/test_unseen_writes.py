"""Writes that no watch reports: commands that promise to publish every write of before publish them all the same."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.services import services
from tests.support.sync_site import Site, files
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_write_through_another_name_goes_along_with_one_that_the_watch_saw(tmp_path: Path) -> None:
    """Goal: ``wait``, a sync run and ``publish`` look at every path, also where the watch has named others."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        s1, p1 = site.s1, site.p1
        await s1.set(settle="1h", settle_max="1h")
        names = {name: tmp_path / name for name in ("first", "second", "third")}
        s1.write(dict.fromkeys(names, "old"))
        for name, outside in names.items():
            os.link(s1.tree / name, outside)
        await s1.call("wait", fileset="data")

        def write(name: str) -> None:
            s1.write({f"seen-{name}": "new"})
            names[name].write_text("new")

        write("first")
        await s1.call("wait", fileset="data", nodes=["s2"])
        assert files(s1.tree) == files(site.s2.tree)
        write("second")
        await site.run()
        assert (p1.tree / "seen-second").read_text() == "new"
        assert (p1.tree / "second").read_text() == "new"
        write("third")
        await s1.publish(wait=True)
        assert files(s1.tree) == files(site.s2.tree)
