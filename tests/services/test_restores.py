"""A writer whose tree and state went back gets its contents from its partners, between services."""

from __future__ import annotations

import shutil
from pathlib import Path

from instep.store.memory import MemoryStore
from tests.support.fleet import tree_of
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_writer_without_state_and_contents_restores_from_a_partner(tmp_path: Path) -> None:
    """Goal: a writer that lost its state learns its head from a partner and publishes nothing over it; ``restore``
    takes every file from the partner's tree, large ones too."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"a": "one", "sub/large": "0123456789abcdef" * 100_000})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        wanted, head = tree_of(s1.tree, with_times=False), await main.head()
        await main.stop()
        for name in ("a", "sub"):
            path = main.tree / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        main.store = MemoryStore()
        main.start()

        async def knows_its_head() -> bool:
            known = (await main.line())["head"]
            return bool(known is not None and known["number"] >= head)

        await reached(knows_its_head, lambda: "the writer learns its head from its partner")
        assert tree_of(s1.tree, with_times=False) == wanted, "nothing is published over the newer head"
        done = await main.call("restore", fileset="data", accept_deletions=True)
        assert done["changed"], done
        assert tree_of(main.tree, with_times=False) == wanted
        await cluster.in_step("s1")
        assert tree_of(s1.tree, with_times=False) == wanted


@in_virtual_time
async def test_nothing_is_taken_out_into_a_fileset_below_the_directory(tmp_path: Path) -> None:
    """Goal: a path that begins with the root's own name is refused where the directory above the root is named, for there
    it would be published; any other path may go there."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        inside = f"{main.tree.name}/x"
        for text in ("1", "2"):
            main.write({inside: text, "b": text})
            await main.publish()
            await s1.holds(inside, text)
        above, raw = str(s1.tree.parent), inside.encode()
        await s1.refuses("inside_a_fileset", "archive_restore", fileset="data", path=inside, to=above)
        await s1.refuses("inside_a_fileset", "restore", fileset="data", paths_b64=[raw], to=above)
        assert not (s1.tree / "x").exists()
        await s1.call("archive_restore", fileset="data", path="b", to=above)
        assert (s1.tree.parent / "b").read_text() == "1"
