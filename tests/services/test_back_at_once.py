"""A sender that restarts, and the pauses of those that dial it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_writer_that_restarts_is_dialled_again_at_once(tmp_path: Path) -> None:
    """Goal: after three seconds without a writer its partners are back within a second, not after another pause as
    long."""
    clock = asyncio.get_running_loop().time
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main = cluster["main"]
        main.write({"file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")

        async def is_heard() -> bool:
            line = (await main.call("status"))["filesets"][0]["lines"][0]
            return bool(line["partners"][0]["standing"] == "in_step")

        async def passed(seconds: float) -> None:
            end = clock() + seconds

            async def is_over() -> bool:
                return clock() >= end

            await reached(is_over, lambda: f"{seconds} s pass")

        async def back_after(away_s: float) -> float:
            await passed(30)
            await main.stop()
            await passed(away_s)
            began = clock()
            main.start()
            await reached(is_heard, lambda: "the writer hears from its partner")
            return clock() - began

        assert max([await back_after(3) for _ in range(5)]) < 1
