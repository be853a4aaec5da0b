"""Mounts below a root are reported as they come and go, and read from the kernel's list as it writes them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from instep.node.trees.scanning.watching import MountWatch, mounts_below
from tests.support.mounts import mounted, need_root, unmount


def test_mount_points_are_read_from_the_list() -> None:
    line = b"29 1 0:26 / %s rw,relatime shared:1 - tmpfs tmpfs rw"
    places = (b"/srv/site", b"/srv/site/a\\040b", b"/srv/site/a/b", b"/srv/sites/c", b"/")
    table = b"\n".join(line % place for place in places)
    assert mounts_below(b"/srv/site", table) == {b"a b", b"a/b"}


def test_a_mount_and_an_umount_are_told(tmp_path: Path) -> None:
    need_root("mounts a file system")
    told: asyncio.Queue[tuple[frozenset[bytes], frozenset[bytes]]] = asyncio.Queue()

    async def look() -> None:
        watch = MountWatch(tmp_path, lambda *change: told.put_nowait(change))
        try:
            async with asyncio.timeout(10):
                with mounted("tmpfs", tmp_path / "d"):
                    assert await told.get() == (frozenset((b"d",)), frozenset())
                    unmount(tmp_path / "d")
                assert await told.get() == (frozenset(), frozenset((b"d",)))
        finally:
            watch.close()

    asyncio.run(look())
