"""Homes of one fileset: a file that is made, changed or removed on any is so on all, and belongs to its home."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.node.replica import own_scan
from instep.store.memory import MemoryStore
from tests.support.replicas import MODE, alike, link_both, mesh, own_paths, texts
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

LARGE = 200_000


@in_virtual_time
async def test_an_insert_an_update_and_a_delete_on_each_of_three_homes_arrive_at_the_others(
    tmp_path: Path,
) -> None:
    async with services(tmp_path) as cluster:
        nodes = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write(
                {f"{node.name}/kept.xml": "1", f"{node.name}/gone.xml": "1", f"of-{node.name}.xml": node.name}
            )
            node.start()
        own = {f"of-{name}.xml": name for name in "abc"}
        await alike(
            *nodes, holding=own | {f"{n}/{file}.xml": "1" for n in "abc" for file in ("kept", "gone")}
        )
        for node in nodes:
            node.write({f"{node.name}/kept.xml": "2", f"{node.name}/new/deep.xml": "3"})
            (node.tree / f"{node.name}/gone.xml").unlink()
        changed = {f"{n}/kept.xml": "2" for n in "abc"} | {f"{n}/new/deep.xml": "3" for n in "abc"}
        await alike(*nodes, holding=own | changed)


@in_virtual_time
async def test_two_homes_that_make_one_path_get_one_set_of_names_everywhere(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = a, b, c = mesh(cluster, "a", "b", "c")
        c.write({"c.xml": "of c"})
        for node in nodes:
            node.start()
        for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
            cluster.cut(one, other)
        a.write({"site/map.xml": "of a", "list": "a file"})
        await a.publish()
        b.write({"site/map.xml": "of b", "list/of/b.txt": "below"})
        await b.publish()
        for one, other in (("a", "b"), ("a", "c"), ("b", "c")):
            cluster.heal(one, other)

        async def named() -> bool:
            return len(texts(c.tree)) == 5

        await reached(named, lambda: f"both homes' files are at c: {texts(c.tree)}")
        await alike(*nodes)
        found = texts(a.tree)
        assert sorted(found.values()) == ["a file", "below", "of a", "of b", "of c"]
        assert found["site/map.xml"] == "of a"
        (loser,) = (path for path, text in found.items() if text == "of b")
        assert loser.startswith("site/map.collision-b-") and loser.endswith(".xml")

        async def took_the_name() -> bool:
            return loser in await own_paths(b)

        await reached(took_the_name, lambda: f"b takes {loser} over as its own")
        heads = {str(node.name): await own_paths(node) for node in nodes}
        assert "site/map.xml" not in heads["b"]
        assert loser not in heads["a"]
        (a.tree / "site/map.xml").unlink()
        await a.publish()
        await alike(*nodes)
        assert texts(c.tree)[loser] == "of b"


@in_virtual_time
async def test_a_node_that_lost_its_state_publishes_nothing_of_others(tmp_path: Path) -> None:
    """Also while no other node can be reached; and nothing new anywhere once they can."""
    async with services(tmp_path) as cluster:
        nodes = a, _, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"{node.name}/{n}.xml": f"{node.name} {n}" for n in range(20)})
            node.start()
        everything = {f"{name}/{n}.xml": f"{name} {n}" for name in "abc" for n in range(20)}
        await alike(*nodes, holding=everything)
        heads = {node.name: await node.head() for node in nodes}
        await c.stop()
        c.store = MemoryStore()
        cluster.cut("a", "c")
        cluster.cut("b", "c")
        c.start()
        await c.refuses("union_unknown", "publish", fileset="data")
        assert (await c.line())["head"] is None
        cluster.heal("a", "c")
        cluster.heal("b", "c")
        await alike(*nodes, holding=everything)
        assert {node.name: await node.head() for node in nodes} == heads
        (a.tree / "a/1.xml").unlink()
        c.write({"c/1.xml": "new"})
        changed = everything | {"c/1.xml": "new"}
        del changed["a/1.xml"]
        await alike(*nodes, holding=changed)


@in_virtual_time
async def test_a_restart_publishes_nothing(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1"})
        heads = {node.name: await node.head() for node in nodes}
        for node in nodes:
            await node.stop()
        for node in nodes:
            node.start()
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1"})
        assert {node.name: await node.head() for node in nodes} == heads


@in_virtual_time
async def test_an_edit_of_another_home_s_file_is_offered_to_it_and_arrives_everywhere(tmp_path: Path) -> None:
    """Changed and removed at a node that does not own it; nothing of it is in that node's line, nor in an archive."""
    async with services(tmp_path) as cluster:
        nodes = _, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"{node.name}/{n}.xml": f"{node.name} {n}" for n in range(5)})
            node.start()
        everything = {f"{name}/{n}.xml": f"{name} {n}" for name in "abc" for n in range(5)}
        await alike(*nodes, holding=everything)
        b.write({"a/1.xml": "edited at b"})
        (b.tree / "a/2.xml").unlink()
        c.write({"b/3.xml": "edited at c"})
        everything |= {"a/1.xml": "edited at b", "b/3.xml": "edited at c"}
        del everything["a/2.xml"]
        await alike(*nodes, holding=everything)
        for node in nodes:
            assert {path.split("/")[0] for path in await own_paths(node)} == {node.name}
            assert not await node.archived("drift")


@in_virtual_time
async def test_an_edit_that_the_home_refuses_is_archived_and_put_back(tmp_path: Path) -> None:
    """The home changed the file meanwhile: its contents stay, and those written here are kept in the archive."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1"})
        cluster.cut("a", "b")
        a.write({"a.xml": "of its home"})
        await a.publish()
        b.write({"a.xml": "of elsewhere"})
        await b.publish()
        cluster.heal("a", "b")
        await alike(*nodes, holding={"a.xml": "of its home", "b.xml": "1"})
        assert await b.taken_out("a.xml", tmp_path / "out", set_aside=True) == ["of elsewhere"]


@in_virtual_time
async def test_an_edit_that_was_put_back_can_be_had_after_the_next_generation(tmp_path: Path) -> None:
    """The file that was laid in its place is in the archive, too, later and of the same generation."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        a.writes(MODE, 'publish = "manual"')
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await a.publish()
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1"})
        a.write({"a.xml": "of its home"})
        b.write({"a.xml": "of elsewhere"})
        await reached(lambda: _is_set_aside(b), lambda: "the home takes no edit of a file that it changed")
        await b.holds("a.xml", "1")
        await a.publish()
        await b.holds("a.xml", "of its home")
        await alike(*nodes, holding={"a.xml": "of its home", "b.xml": "1"})
        assert await b.taken_out("a.xml", tmp_path / "newest") == ["1"]
        assert await b.taken_out("a.xml", tmp_path / "aside", set_aside=True) == ["of elsewhere"]


async def _is_set_aside(node: ServiceNode) -> bool:
    return "a.xml" in await node.archived("drift")


@in_virtual_time
async def test_one_file_that_cannot_be_had_keeps_nothing_else_back(tmp_path: Path) -> None:
    """It was taken away at its home, which keeps no history and is paused: all else of that head is live elsewhere, the file
    is named, and comes once it is there again."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b", keys=('history = "off"',))
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        cluster.cut("a", "b")
        files = {f"docs/{n}.xml": f"{n}" for n in range(50)}
        a.write(files | {"docs/large.bin": "x" * LARGE})
        await a.publish()
        await a.call("pause", fileset="data")
        (a.tree / "docs/large.bin").rename(tmp_path / "away")
        cluster.heal("a", "b")

        async def rest_is_live() -> bool:
            return files.items() <= texts(b.tree).items()

        await reached(rest_is_live, lambda: f"the other 50 files: {texts(b.tree).keys()}")
        assert not (b.tree / "docs/large.bin").exists()

        async def is_named() -> bool:
            lines = (await b.status())["filesets"][0]["lines"]
            (line,) = (line for line in lines if line["origin"] == "a")
            return line["code"] == "withheld" and "docs/large.bin" in line["reason"]

        await reached(is_named, lambda: "the file is named")
        (tmp_path / "away").rename(a.tree / "docs/large.bin")
        await a.call("resume", fileset="data")
        await alike(*nodes)
        assert (b.tree / "docs/large.bin").exists()


@in_virtual_time
async def test_a_home_that_cannot_be_reached_keeps_no_other_one_back(tmp_path: Path) -> None:
    """Its manifest came over a hub that has not the contents yet: the heads of others go live meanwhile."""
    async with services(tmp_path) as cluster:
        nodes = a, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        cluster.net.hung.add((c.name, a.name))
        a.write({"large": "x" * LARGE})
        await a.publish()
        b.write({"b.xml": "2"})
        await c.holds("b.xml", "2")
        cluster.net.hung.clear()
        await alike(*nodes)


@in_virtual_time
async def test_a_home_that_takes_many_names_is_stopped_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clock was years behind when it made files under the names of another home."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        cluster.cut("a", "b")
        for node in nodes:
            node.write({f"{n}.xml": f"of {node.name}" for n in range(30)})
        a.start()
        await a.publish()
        with monkeypatch.context() as behind:
            behind.setattr(own_scan, "wall_ms", lambda: 1)
            b.start()
            await b.publish()
        cluster.heal("a", "b")

        async def is_stopped() -> bool:
            lines = (await a.status())["filesets"][0]["lines"]
            found = [line for line in lines if line["origin"] == "b"]
            return [(line["standing"], line["code"]) for line in found] == [("blocked", "takes_names")]

        await reached(is_stopped, lambda: f"the head is refused: {texts(a.tree)}")
        assert texts(a.tree)["0.xml"] == "of a"
        await a.call("retry", fileset="data")
        await alike(*nodes)
        assert texts(a.tree)["0.xml"] == "of b"


@in_virtual_time
async def test_homes_in_a_row_get_each_other_s_files_over_hubs(tmp_path: Path) -> None:
    """The two at the ends know no address of each other, and the hub between them is down for a while."""
    async with services(tmp_path) as cluster:
        nodes = tuple(cluster.add(name) for name in "abcd")
        for node in nodes:
            node.writes(MODE)
        for one, other in ("ab", "bc", "cd"):
            link_both(cluster, one, other, hub=True)
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes, holding={f"{name}.xml": "1" for name in "abcd"})
        await nodes[1].stop()
        nodes[0].write({"a.xml": "2"})
        nodes[3].write({"d.xml": "2"})
        nodes[1].start()
        await alike(*nodes, holding={"a.xml": "2", "b.xml": "1", "c.xml": "1", "d.xml": "2"})


@in_virtual_time
async def test_a_winner_that_its_home_removes_takes_nothing_of_the_loser_along(tmp_path: Path) -> None:
    """Its removal gives the name to the other home's file, in the tree of the home that removed it too."""
    async with services(tmp_path) as cluster:
        a, b = nodes = mesh(cluster, "a", "b")
        b.writes(MODE, 'publish = "manual"')
        for node in nodes:
            node.start()
        cluster.cut("a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "kept", "p.xml": f"of {node.name}"})
            await node.publish()
        cluster.heal("a", "b")
        kept = {"a.xml": "kept", "b.xml": "kept"}
        (lost,) = [path for path in await _shown_at(a) if ".collision-b-" in path]
        (a.tree / "p.xml").unlink()
        await alike(*nodes, holding={**kept, "p.xml": "of b"})
        assert await own_paths(a) == {"a.xml"}, lost
        assert await own_paths(b) == {"b.xml", "p.xml"}


async def _shown_at(node: ServiceNode) -> dict[str, str]:
    """The files of a node, once another home's loser is among them."""
    found: dict[str, str] = {}

    async def is_there() -> bool:
        found.clear()
        found.update(texts(node.tree))
        return any(".collision-" in path for path in found)

    await reached(is_there, lambda: f"{node.name} shows a collision: {sorted(found)}")
    return found
