"""Writer and followers in one process: what is published arrives."""

from __future__ import annotations

from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_a_generation_arrives_at_two_followers(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        cluster.make(2)
        cluster["main"].write({"a.txt": "one", "b/c.txt": "two"})
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        await cluster["s1"].stands("in_step")
