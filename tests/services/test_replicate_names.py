"""A file that is not published yet, where another home made one of its name: both live, and neither goes to an archive."""

from __future__ import annotations

from pathlib import Path

from tests.support.replicas import alike, link_both, mesh, own_paths, standings, texts
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached


async def _line_of(node: ServiceNode, origin: str) -> dict[str, object]:
    lines = (await node.status())["filesets"][0]["lines"]
    return next((line for line in lines if line["origin"] == origin), {"standing": "", "code": ""})


@in_virtual_time
async def test_files_that_two_homes_made_while_one_was_down_collide(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        await b.stop()
        b.write({"map.xml": "of b"})
        a.write({"map.xml": "of a"})
        await a.publish()
        b.start()

        async def are_both() -> bool:
            return "of b" in texts(a.tree).values()

        await reached(are_both, lambda: f"both files are at a: {texts(a.tree)}")
        await alike(*nodes)
        assert sorted(texts(a.tree).values()) == ["1", "1", "of a", "of b"]
        assert not await b.archived("drift")


@in_virtual_time
async def test_what_is_not_published_keeps_its_name_until_it_is(tmp_path: Path) -> None:
    """Publishing is by hand. A file is in the way of a file, another one of a directory; all else of that home comes."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b", keys=('publish = "manual"',))
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
            await node.publish()
        await alike(*nodes)
        b.write({"map.xml": "of b", "site": "a file"})
        a.write({"map.xml": "of a", "site/1.xml": "below", "site/deep/2.xml": "below 2", "rest.xml": "rest"})
        await a.publish()
        await b.holds("rest.xml", "rest")

        async def is_named() -> bool:
            line = await _line_of(b, "a")
            return (line["standing"], line["code"]) == ("behind", "name_taken_here")

        await reached(is_named, lambda: "the names are said")
        line = await _line_of(b, "a")
        assert "map.xml" in str(line["reason"])
        assert "site" in str(line["reason"])
        assert line["next"] == ["publish it, then both are shown: instep publish data"]
        assert texts(b.tree) == {
            "a.xml": "1", "b.xml": "1", "map.xml": "of b", "rest.xml": "rest", "site": "a file"
        }  # fmt: skip
        await b.stop()
        b.start()
        await reached(is_named, lambda: "the names are said again after a start")
        await b.publish()

        async def took_names() -> bool:
            await b.publish()
            return "map.xml" not in await own_paths(b)

        await reached(took_names, lambda: f"b's file goes on under another name: {texts(b.tree)}")
        await alike(*nodes)
        found = texts(a.tree)
        assert sorted(found.values()) == ["1", "1", "a file", "below", "below 2", "of a", "of b", "rest"]
        assert found["map.xml"] == "of a"
        assert not await b.archived("drift")


@in_virtual_time
async def test_files_that_lay_in_a_tree_before_it_had_a_home_collide(tmp_path: Path) -> None:
    """The one of the node that comes later, which had no line yet."""
    async with services(tmp_path) as cluster:
        (a,) = mesh(cluster, "a")
        a.write({"map.xml": "of a", "a.xml": "1", "alike.xml": "the same"})
        a.start()
        await a.publish()
        b = cluster.add("b")
        b.writes('mode = "replicate"', 'publish = "manual"')
        link_both(cluster, "a", "b")
        await a.stop()
        a.directory.config.unlink()
        a.start()
        b.write({"map.xml": "of b"})
        b.start()
        await b.holds("a.xml", "1")
        assert texts(b.tree)["map.xml"] == "of b"
        assert (await standings(b))["a"] == "behind"
        await b.publish()

        async def are_both() -> bool:
            return {"of a", "of b"} <= set(texts(a.tree).values())

        await reached(are_both, lambda: f"both files are at a: {texts(a.tree)}")
        assert not await b.archived("drift")


@in_virtual_time
async def test_a_file_that_loses_its_name_after_a_user_renamed_it_holds_no_other_home_up(
    tmp_path: Path,
) -> None:
    """Publishing is by hand, and the rename is not published: the file's contents lie where no union shows them."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b", keys=('publish = "manual"',))
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
            await node.publish()
        await alike(*nodes)
        cluster.cut("a", "b")
        for node in (b, a):
            node.write({"map.xml": f"of {node.name}"})
            await node.publish()
        (a.tree / "map.xml").rename(a.tree / "moved.xml")
        b.write({"rest.xml": "rest"})
        await b.publish()
        cluster.heal("a", "b")
        await a.holds("rest.xml", "rest")
        await a.holds("map.xml", "of b")
        assert sorted(texts(a.tree).values()) == ["1", "1", "of a", "of a", "of b", "rest"]
        await a.publish()
        await alike(*nodes)
        assert sorted(texts(b.tree).values()) == ["1", "1", "of a", "of a", "of b", "rest"]
