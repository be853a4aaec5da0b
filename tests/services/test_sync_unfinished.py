"""The changes that homes made in a run that ended without its base are known to the next run, with real services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import instep.daemon.process  # noqa: F401  registers every failpoint
from instep.errors import InstepError
from instep.tree.root import failpoints
from tests.support.services import services
from tests.support.sync_site import Site
from tests.support.virtual_time import in_virtual_time


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm_all()


@in_virtual_time
async def test_an_edit_of_a_text_that_a_run_brought_is_no_collision(tmp_path: Path) -> None:
    """Goal: a run changes both sides and ends before the base is kept; people edit the texts that it brought, and the next
    run carries their edits over, with no copy; texts that both sides changed anew are a collision as ever. Method: the disk is
    full as the base is kept, in two runs one after the other."""
    async with services(tmp_path) as cluster:
        site = Site(cluster)
        await site.begin()
        s1, p1 = site.s1, site.p1
        s1.write({"a": "left", "both": "left"})
        p1.write({"d/x": "right"})
        for more in ({}, {"later": "left"}):
            s1.write(more)
            failpoints.arm("sync.base", "enospc")
            with pytest.raises((InstepError, OSError)):
                await site.run()
            failpoints.disarm_all()
        assert (p1.tree / "a").read_text() == "left"
        p1.write({"a": "right upon left", "later": "right upon left", "both": "right anew"})
        s1.write({"d/x": "left upon right", "both": "left anew"})
        ran = await site.run()
        same = site.same()
        assert (same["a"], same["later"], same["d/x"]) == ("right upon left",) * 2 + ("left upon right",)
        assert [each["path"] for each in ran["listed"]] == ["both"]
        assert len([name for name in same if "collision" in name]) == 1
