"""Versions of a large file share their equal parts where the file system lets files share blocks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.support.mounts import loop_xfs
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time

SIZE = 16 << 20
CHANGED = 64 << 10
VERSIONS = 4


@in_virtual_time
async def test_versions_cost_what_changed(tmp_path: Path) -> None:
    """Goal: a file that is changed in place costs its changed blocks in the writer's history and the partner's archive,
    not its whole size each time: the copies are clones, and the stage writes only what differs into one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with loop_xfs(tmp_path / "image", disk):
        async with services(disk) as cluster:
            cluster.make(1, writer=('publish = "manual"', 'history = "on"'))
            main, s1 = cluster["main"], cluster["s1"]
            (main.tree / "large").write_bytes(os.urandom(SIZE))
            await cluster.followed("s1")
            await cluster.in_step("s1")
            os.sync()
            before = shutil.disk_usage(disk).used
            for number in range(VERSIONS):
                with (main.tree / "large").open("r+b") as file:
                    file.seek(number * (SIZE // VERSIONS))
                    file.write(os.urandom(CHANGED))
                await cluster.in_step("s1")
            os.sync()
            cost = shutil.disk_usage(disk).used - before
            kept = await s1.archived()
            assert (
                "large" in kept
                and (await s1.call("archive_list", fileset="data"))["bytes"] >= VERSIONS * SIZE
            )
            assert cost < SIZE // 2, (
                f"{VERSIONS} versions of {SIZE} bytes cost {cost} bytes on both nodes together"
            )
