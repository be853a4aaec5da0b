"""Contents come from every source that a partner has."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.node.following.pulling import STALL_S
from tests.support.fleet import tree_of
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached

LARGE = "0123456789abcdef" * 200_000


@pytest.mark.parametrize("files", [{f"small{n}": f"{n}" * 90_000 for n in range(9)}, {"large": LARGE}])
@in_virtual_time
async def test_a_first_source_that_hangs_or_goes_costs_a_pause_and_nothing_else(
    tmp_path: Path, files: dict[str, str]
) -> None:
    """Goal: the writer sends heads and no contents, a hub has them: the partner behind both takes them there."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes()
        for name in ("s1", "s2"):
            cluster.add(name).follows(main)
            cluster.link("main", name)
        s1, s2 = cluster["s1"], cluster["s2"]
        s1.partners["s2"] = "replicate = true\ndata = true\nhub = true"
        s2.partners["s1"] = f'address = "{s1.address}"'
        for node in (main, s1, s2):
            node.start()
        main.write({"file": "1"})
        await cluster.followed("s1", "s2")
        await cluster.in_step("s1", "s2")
        cluster.net.hung.add((s2.name, main.name))
        main.write(files)
        await main.publish()

        async def arrived() -> bool:
            return tree_of(s2.tree) == tree_of(main.tree)

        await reached(arrived, lambda: "s2 has the contents from the hub", within_s=STALL_S + 5)
