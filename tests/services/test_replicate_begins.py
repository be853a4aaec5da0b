"""How a home of a fileset of many begins: the next file is published when it is saved, and not at the next poll."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.replicas import MODE, link_both
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


@in_virtual_time
async def test_the_first_file_of_an_empty_home_does_not_wait_for_a_poll(tmp_path: Path) -> None:
    """With nothing to bring into the tree, the machine of the union ends its recovery without an effect."""
    async with services(tmp_path) as cluster:
        nodes = a, b = tuple(cluster.add(name) for name in ("a", "b"))
        link_both(cluster, "a", "b")
        for node in nodes:
            node.top[-1] = 'poll = "1h"'
            node.writes(MODE)
            node.start()
        now = asyncio.get_running_loop().time
        began = now()
        a.write({"a.xml": "1"})
        await b.holds("a.xml", "1")
        assert now() - began < 10
