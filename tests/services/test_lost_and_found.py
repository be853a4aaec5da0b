"""The ``lost+found`` of mkfs is no content: neither published, nor removed, nor counted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from instep.node.facts.daemon_rights import owners_in
from tests.support.apply_world import Dir, World
from tests.support.mounts import need_root
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


def make(tree: Path) -> Path:
    at = tree / "lost+found"
    at.mkdir(parents=True, mode=0o700)
    (at / "#1234").write_text("saved by fsck")
    return at / "#1234"


@in_virtual_time
async def test_neither_side_takes_it_for_content(tmp_path: Path) -> None:
    """Goal: a root that is a file system of its own held a path that a daemon may not read, published it where the
    daemon may, and removed the partner's. A directory of that name that a person made is content as ever."""
    need_root("a directory of root's")
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a": "a"})
        kept = [make(node.tree) for node in (main, s1)]
        await cluster.followed("s1")
        assert (await main.publish(wait=True))["wait"]["reached"]
        head = await main.head()
        kept[0].write_text("saved again")
        assert not (await main.publish())["changed"], "what fsck saves is no change"
        main.write({"a": "b"})
        assert (await main.publish(wait=True))["wait"]["reached"]
        await s1.holds("a", "b")
        assert await main.head() == head + 1
        assert (await s1.call("verify", fileset="data", deep=True))["identical"]
        assert [path.read_text() for path in kept] == ["saved again", "saved by fsck"]
        assert (await s1.archived()).keys() == {"a"}

        await s1.forget()
        (s1.tree / "a").unlink()
        assert (await s1.call("fileset_check", name="data", path=str(s1.tree)))["empty"]

        shutil.rmtree(kept[0].parent)
        main.write({"lost+found/of-mine": "1"})
        assert (await main.publish())["added"] == 2


def test_one_that_an_earlier_version_published_stays_where_it_goes(tmp_path: Path) -> None:
    need_root("a directory of root's")
    world = World.make(tmp_path)
    world.apply({b"a": b"a", b"lost+found": Dir(0o700)})
    world.apply({b"b": b"b"})
    assert sorted(path.name for path in world.root.iterdir()) == [".instep", "b", "lost+found"]


def test_its_owner_asks_for_no_right(tmp_path: Path) -> None:
    need_root("a directory of root's")
    make(tmp_path)
    (tmp_path / "a").write_text("a")
    for path in (tmp_path, tmp_path / "a"):
        os.chown(path, 33, 33)
    assert owners_in(tmp_path) == {33}
