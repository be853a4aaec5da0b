"""A partner's own ignored files lie where a generation has no directory any more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.fleet import tree_of
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


@pytest.mark.parametrize("was", ["a directory of the generation", "a directory of the partner alone"])
@in_virtual_time
async def test_a_generation_that_ignored_paths_keep_out_is_not_switched_to_in_part(
    tmp_path: Path, was: str
) -> None:
    """Goal: the partner stays on the whole generation that it has, and says which path is in the way; the printed
    step brings the newer one, as a newer generation without that path does."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('ignore = ["*.local"]',))
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"d/x": "1", "e": "1"} if was == "a directory of the generation" else {"e": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        s1.write({"d/own.local": "only copy"})
        before, first = tree_of(s1.tree), await main.head()
        await main.call("pause", fileset="data")
        shutil.rmtree(main.tree / "d", ignore_errors=True)
        (main.tree / "d").symlink_to("e")
        main.write({"e": "2"})
        await main.call("resume", fileset="data")

        line = await s1.stands("blocked", code="ignored_in_the_way")
        assert tree_of(s1.tree) == before
        assert line["live"]["number"] == first
        assert line["next"] == [f"move the ignored paths out of {s1.tree}/d, then: instep retry data"]

        (main.tree / "d").unlink()
        await s1.holds("e", "2")
        await s1.stands("in_step")
        assert (s1.tree / "d/own.local").read_text() == "only copy"

        (main.tree / "d").symlink_to("e")
        await s1.stands("blocked", code="ignored_in_the_way")
        (s1.tree / "d/own.local").rename(tmp_path / "own.local")
        await s1.call("retry", fileset="data")
        await s1.stands("in_step")
        assert tree_of(s1.tree) == tree_of(main.tree)
