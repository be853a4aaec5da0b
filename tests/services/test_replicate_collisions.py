"""Collisions of a fileset of many homes: one set of names everywhere, a list for people on every node, a hook that hears."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.support.replicas import alike, mesh, own_paths, texts
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

NAMES = ("a", "b", "c", "d", "e")
HOOK = """
[filesets.data.hooks.on_collision]
run = ["/bin/sh", "-c", "echo $INSTEP_HOOK $INSTEP_FILESET $INSTEP_CODE $(tr '\\\\0' ' ' < $INSTEP_CHANGED) >> {file}"]
"""


def apart(cluster: Services, *names: str) -> None:
    for one, other in combinations(names, 2):
        cluster.cut(one, other)


async def listed(node: ServiceNode, **params: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await node.call("collisions_list", **params))["collisions"]
    return found


async def holding(node: ServiceNode, *wanted: str) -> None:
    """Wait until files with these texts are in the node's tree."""

    async def are_there() -> bool:
        return set(wanted) <= set(texts(node.tree).values())

    await reached(are_there, lambda: f"{node.name} has {wanted}: {texts(node.tree)}")


async def took_over(home: ServiceNode, name: str) -> None:
    """Wait until the loser's home has the name in its own line."""

    async def has_it() -> bool:
        return name in await own_paths(home)

    await reached(has_it, lambda: f"{home.name} takes {name} over")


async def has_listed(node: ServiceNode, phase: str) -> dict[str, Any]:
    """The only listed collision, once it is in this phase."""

    async def is_there() -> bool:
        last[:] = await listed(node)
        return [one["phase"] for one in last] == [phase]

    last: list[dict[str, Any]] = []
    await reached(is_there, lambda: f"{node.name} lists one collision that is {phase}: {last}")
    return (await listed(node))[0]


@in_virtual_time
async def test_five_homes_list_a_collision_until_it_is_reviewed(tmp_path: Path) -> None:
    """Goal: whichever head comes first to a node, all have one set of names; each node that saw the collision lists it
    by one id, its hook hears of it once, and a review is for the list of that node."""
    heard = tmp_path / "heard"
    heard.touch()
    async with services(tmp_path) as cluster:
        nodes = a, b, c, d, _ = mesh(cluster, *NAMES)
        c.tail += HOOK.format(file=heard)
        for node in nodes:
            node.write({f"of-{node.name}.xml": str(node.name)})
            node.start()
        await alike(*nodes)
        apart(cluster, *NAMES)
        a.write({"map.xml": "of a"})
        await a.publish()
        b.write({"map.xml": "of b"})
        await b.publish()
        for one, other, node, text in (
            ("a", "c", c, "of a"),
            ("b", "d", d, "of b"),
            ("a", "d", d, "of a"),
            ("b", "c", c, "of b"),
        ):
            cluster.heal(one, other)
            await holding(node, text)
        for pair in combinations(NAMES, 2):
            cluster.heal(*pair)
        await alike(*nodes)
        assert texts(a.tree)["map.xml"] == "of a"
        (loser,) = (path for path, text in texts(a.tree).items() if text == "of b")
        await took_over(b, loser)
        mine = await has_listed(b, "taken_over")
        there = await has_listed(c, "taken_over")
        assert mine | {"since": 0} == there | {"since": 0}
        assert (there["path"], there["copy"], there["winner"], there["loser"]) == ("map.xml", loser, "a", "b")
        assert loser == f"map.collision-b-{there['id']}.xml"
        shown = await c.call("collisions_show", id=there["id"])
        assert [(side["homes"], side["kind"], side["size"]) for side in shown["sides"]] == [
            (["a"], "file", 4), (["b"], "file", 4),
        ]  # fmt: skip
        assert (await c.status())["filesets"][0]["collisions"] == 1
        assert (await c.call("collisions_reviewed", id=there["id"]))["changed"]
        assert not (await c.call("collisions_reviewed", id=there["id"]))["changed"]
        assert await listed(c) == []
        assert (await listed(c, all=True))[0]["reviewed_by"]
        assert len(await listed(b)) == 1
        assert [event["text"] for event in await c.events() if event["what"] == "collision"] == [
            f"1 path of data made on two homes: map.xml stays that of a, and that of b is {loser}"
        ]
        await c.stop()
        c.start()
        await c.publish()
        assert await listed(c) == []
        assert heard.read_text() == "on_collision data collisions map.xml\n"


@pytest.mark.parametrize("when", ["before", "while", "after"])
@in_virtual_time
async def test_the_winner_is_deleted_around_the_rename_of_the_loser(tmp_path: Path, when: str) -> None:
    """Goal: all trees get alike, nothing of the loser is lost, and no node keeps the collision as open."""
    async with services(tmp_path) as cluster:
        nodes = a, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"of-{node.name}.xml": str(node.name)})
            node.start()
        await alike(*nodes)
        apart(cluster, "a", "b", "c")
        a.write({"map.xml": "of a"})
        await a.publish()
        b.write({"map.xml": "of b"})
        await b.publish()
        cluster.heal("a", "c")
        cluster.heal("b", "c")  # c has both, and b knows nothing of a
        await holding(c, "of a", "of b")
        (loser,) = (path for path, text in texts(c.tree).items() if text == "of b")
        if when == "before":
            (a.tree / "map.xml").unlink()
            await a.publish()
        cluster.heal("a", "b")
        if when == "while":
            await b.call("wait", fileset="data", timeout_s=0.0)
            (a.tree / "map.xml").unlink()
            await a.publish()
        elif when == "after":
            await took_over(b, loser)
            (a.tree / "map.xml").unlink()
            await a.publish()

        async def is_gone() -> bool:
            return "of a" not in texts(c.tree).values()

        await reached(is_gone, lambda: f"the winner is gone at c: {texts(c.tree)}")
        await alike(*nodes)
        (name,) = (path for path, text in texts(c.tree).items() if text == "of b")
        assert name in ("map.xml", loser)
        for node in nodes:
            assert all(one["phase"] in ("over", "taken_over") for one in await listed(node))


@in_virtual_time
async def test_an_older_file_against_two_thousand_files_below_its_name(tmp_path: Path) -> None:
    """Goal: one collision; everything below moves as one. A node that shows the 2,000 files asks an operator first."""
    many = {f"d/{number // 100}/{number}.xml": "below" for number in range(2_000)}
    async with services(tmp_path) as cluster:
        nodes = a, b, c = mesh(cluster, "a", "b", "c")
        for node in nodes:
            node.write({f"of-{node.name}.xml": str(node.name)})
            node.start()
        await alike(*nodes)
        apart(cluster, "a", "b", "c")
        a.write({"d": "a file"})
        await a.publish()
        b.write(many)
        await b.publish()
        for pair in combinations("abc", 2):
            cluster.heal(*pair)

        async def moved() -> bool:
            for node in nodes:
                lines = (await node.status())["filesets"][0]["lines"]
                if any(line["code"] == "takes_names" for line in lines):
                    await node.call("retry", fileset="data")
            return not any(path == "d" or path.startswith("d/") for path in await own_paths(b))

        await reached(moved, lambda: "b takes the new names over")
        await alike(*nodes)
        one = await has_listed(b, "taken_over")
        assert (one["path"], one["loser"], one["entries"]) == ("d", "b", 2_000)
        found = texts(c.tree)
        assert found["d"] == "a file"
        assert sum(path.startswith(f"{one['copy']}/") for path in found) == 2_000
