"""A disk that runs short: older versions in the archive go before it is full, and an apply stops before its last bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instep.node.runtime.driver import skip_time
from tests.support.mounts import mounted
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached

MIB = 1 << 20


@in_virtual_time
async def test_an_archive_is_thinned_while_its_disk_runs_short(tmp_path: Path) -> None:
    """Goal: long before the next tidying, and though the archive is within its share; status and events say so. The
    generation that then finds too little room is not begun, with both values. Method: six versions of one file within
    minutes, more than an hour ago, on a small file system with ballast."""
    with mounted("tmpfs", tmp_path / "s1", options="size=80m"):
        async with services(tmp_path) as cluster:
            cluster.make(1, partner=('archive = { keep_last = 1, max_share = "100%" }',))
            main, s1 = cluster["main"], cluster["s1"]
            for number in range(6):
                main.write({"file": str(number) * (5 * MIB)})
                await cluster.followed("s1")
                await cluster.in_step("s1")
                skip_time(4_000 if number == 4 else 10)
            before = (await s1.call("archive_list", fileset="data"))["bytes"]
            assert before == 25 * MIB
            ballast = tmp_path / "s1" / "ballast"
            ballast.write_bytes(bytes(47 * MIB))
            pruned: list[dict[str, Any]] = []

            async def is_thinned() -> bool:
                pruned[:] = [each for each in await s1.events() if each["what"] == "archive_pruned"]
                return bool(pruned)

            await reached(is_thinned, lambda: f"thinned: {pruned}")
            assert "from running full" in pruned[0]["text"]
            assert (await s1.call("archive_list", fileset="data"))["bytes"] < before
            warned = (await s1.status())["warnings"]
            assert any("was thinned" in str(each) for each in warned), warned
            with ballast.open("ab") as file:
                while True:
                    try:
                        file.write(bytes(MIB // 8))
                        file.flush()
                    except OSError:
                        break
            ballast.write_bytes(bytes(ballast.stat().st_size - MIB // 4))
            main.write({"file": "7" * (5 * MIB)})
            await main.publish()
            line = await s1.stands("blocked", code="no_space")
            assert "kept free" in line["reason"], line
            assert (s1.tree / "file").read_text()[:1] == "5"
            ballast.unlink()
            await cluster.in_step("s1")

            async def is_said_no_more() -> bool:
                return not (await s1.status())["warnings"]

            await reached(is_said_no_more, lambda: "no warning of a shortage that is over")
