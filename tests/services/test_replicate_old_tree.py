"""An old copy of a tree of many homes is put back with its control folder: it undoes nothing of other homes."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.replicas import alike, mesh, own_paths
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time

FILES = {f"{name}/{n}.xml": f"{name} {n}" for name in "abc" for n in range(4)}


class OldCopy:
    """The tree of a stopped node with its control folder, beside it; the state is no part of it."""

    def __init__(self, node: ServiceNode, to: Path) -> None:
        self._pairs = [(each, to / each.name) for each in (node.tree, node.control)]
        for each, copy in self._pairs:
            shutil.copytree(each, copy, symlinks=True)

    def put_back(self) -> None:
        for each, copy in self._pairs:
            shutil.rmtree(each)
            shutil.copytree(copy, each, symlinks=True)


@in_virtual_time
async def test_an_old_copy_of_the_tree_is_brought_forward_and_undoes_nothing(tmp_path: Path) -> None:
    """What homes changed, made and removed since the copy stays so, and none of it becomes the copy's own."""
    async with services(tmp_path) as cluster:
        nodes = a, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({path: text for path, text in FILES.items() if path.startswith(f"{node.name}/")})
            node.start()
        await alike(*nodes, holding=FILES)
        await b.stop()
        copy = OldCopy(b, tmp_path / "old")
        b.start()
        changed = dict(FILES)
        for node in (a, c):
            new = {f"{node.name}/1.xml": "changed", f"{node.name}/new.xml": "new"}
            node.write(new)
            (node.tree / f"{node.name}/2.xml").unlink()
            changed |= new
            del changed[f"{node.name}/2.xml"]
        await alike(*nodes, holding=changed)
        heads = {node.name: await node.head() for node in nodes}
        own = await own_paths(b)
        await b.stop()
        copy.put_back()
        b.start()
        await alike(*nodes, holding=changed)
        assert {node.name: await node.head() for node in nodes} == heads
        assert await own_paths(b) == own
        b.write({"a/1.xml": "edited at b", "b/new.xml": "new"})
        await alike(*nodes, holding=changed | {"a/1.xml": "edited at b", "b/new.xml": "new"})
