"""A node whose state is gone, and whose tree holds a generation of another home whose manifest no node has any more."""

from __future__ import annotations

from pathlib import Path

from instep.model.ids import fileset_name
from instep.store.memory import MemoryStore
from tests.support.replicas import alike, mesh, own_paths, texts
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time

FILES = {f"{name}/{n}.xml": f"{name} {n}" for name in "ab" for n in range(3)} | {"map.xml": "of a"}


async def _lost(cluster: Services) -> tuple[ServiceNode, ServiceNode]:
    """``b`` has no state, and holds a generation of ``a`` that ``a`` went on from while ``b`` was away."""
    nodes = a, b = mesh(cluster, "a", "b")
    for node in nodes:
        node.write({path: text for path, text in FILES.items() if path.startswith(f"{node.name}/")})
        node.start()
    a.write({"map.xml": "of a"})
    await alike(*nodes, holding=FILES)
    b.write({"map.xml.b": "of b"})
    await alike(*nodes, holding=FILES | {"map.xml.b": "of b"})
    head = a.node.services[fileset_name("data")].head
    assert head is not None
    await b.stop()
    b.store = MemoryStore()
    a.write({"a/1.xml": "newer", "a/new.xml": "new"})
    (a.tree / "a/2.xml").unlink()
    await a.publish()
    a.store.delete_pages([head.root])
    return a, b


NEWEST = {key: text for key, text in FILES.items() if key != "a/2.xml"} | {
    "a/1.xml": "newer", "a/new.xml": "new", "map.xml.b": "of b"
}  # fmt: skip


@in_virtual_time
async def test_the_next_generation_of_the_home_is_taken_on_an_operators_word(tmp_path: Path) -> None:
    """Goal: nothing moves before that; then the home's newest generation comes, no file of it becomes an own one or an
    edit, and the file that it removed is in the archive."""
    async with services(tmp_path) as cluster:
        a, b = await _lost(cluster)
        head = await a.head()
        b.start()
        standing = await b.stands("failing", code="union_unknown")
        assert any("instep retry data" in step for step in standing["next"]), standing
        assert texts(b.tree) == FILES | {"map.xml.b": "of b"}
        await b.call("retry", fileset="data")
        await alike(a, b, holding=NEWEST)
        assert await a.head() == head
        assert {path for path in await own_paths(b) if "." in path} == {f"b/{n}.xml" for n in range(3)} | {
            "map.xml.b"
        }
        assert "a/2.xml" in await b.archived()
        b.write({"a/1.xml": "edited at b", "b/1.xml": "newer"})
        await alike(a, b, holding=NEWEST | {"a/1.xml": "edited at b", "b/1.xml": "newer"})


@in_virtual_time
async def test_a_home_that_left_is_let_go_with_its_lost_manifest(tmp_path: Path) -> None:
    """Goal: `fileset forget-line` ends the wait: the home's files are in the archive, the own ones stay."""
    async with services(tmp_path) as cluster:
        a, b = await _lost(cluster)
        b.start()
        await b.stands("failing", code="union_unknown")
        await b.refuses("home_is_here", "fileset_forget_line", fileset="data", origin="a")
        await a.stop()
        done = await b.call("fileset_forget_line", fileset="data", origin="a")
        assert done["changed"]
        own = {path: text for path, text in FILES.items() if path.startswith("b/")} | {"map.xml.b": "of b"}
        assert texts(b.tree) == own
        assert {"a", "map.xml"} <= (await b.archived()).keys()
        b.write({"b/1.xml": "newer"})
        await b.publish()
        assert texts(b.tree) == own | {"b/1.xml": "newer"}


@in_virtual_time
async def test_a_home_that_left_is_let_go_where_no_node_has_the_own_manifest_either(tmp_path: Path) -> None:
    """Goal: the command that the error names has an end also where the other home of two is gone for ever: no file moves,
    and files that no manifest names are this node's own. Method: `a` never comes back, and the state of `b` is gone."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({path: text for path, text in FILES.items() if path.startswith(f"{node.name}/")})
            node.start()
        await alike(*nodes, holding={path: text for path, text in FILES.items() if "/" in path})
        before = texts(b.tree)
        await a.stop()
        await b.stop()
        b.store = MemoryStore()
        b.start()
        await b.refuses("union_unknown", "publish", fileset="data")
        done = await b.call("fileset_forget_line", fileset="data", origin="a", timeout_s=120.0)
        assert done["changed"]
        assert texts(b.tree) == before
        b.write({"b/1.xml": "newer"})
        await b.publish()
        assert texts(b.tree) == before | {"b/1.xml": "newer"}
        assert set(FILES) - {"map.xml"} <= set(await own_paths(b))
