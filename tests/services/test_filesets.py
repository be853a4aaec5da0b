"""Filesets that are taken over, narrowed and left, with their classes and what travels with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.errors import InstepError
from tests.support.fleet import tree_of
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time, reached


@in_virtual_time
async def test_a_key_that_travels_and_a_path_that_is_released(tmp_path: Path) -> None:
    """Goal: a key that travels is an error where the fileset is followed; a path that becomes ignored is released,
    untouched; a fileset that is removed keeps its files, and is followed again once a mode is said."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({"logs/app.log": "log", "file": "1"})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        for key, value in (("ignore", "*.tmp"), ("class", "data"), ("preserve", "xattr")):
            with pytest.raises(InstepError) as caught:
                await s1.set(**{key: value})
            assert "main" in str(caught.value.facts["problems"]), caught.value.as_json()
        await main.set(ignore="logs/")

        assert (await main.publish(wait=True))["wait"]["reached"]
        assert (s1.tree / "logs/app.log").read_text() == "log", "released, not removed"
        main.write({"logs/app.log": "theirs"})
        s1.write({"logs/app.log": "ours"})
        main.write({"file": "2"})
        assert (await main.publish(wait=True))["wait"]["reached"]
        await s1.holds("file", "2")
        assert (s1.tree / "logs/app.log").read_text() == "ours"
        await s1.stands("in_step")
        before = tree_of(s1.tree)
        await s1.forget()
        assert tree_of(s1.tree) == before
        assert (await s1.status())["filesets"] == []
        main.write({"file": "3"})
        await main.publish()
        assert (s1.tree / "file").read_text() == "2"
        await s1.refuses("not_empty", "fileset_accept", name="data", path=str(s1.tree))
        await s1.accepts("seed")
        assert (await main.call("wait", fileset="data", timeout_s=60))["reached"]
        assert (s1.tree / "file").read_text() == "3"
        assert (s1.tree / "logs/app.log").read_text() == "ours"


@in_virtual_time
async def test_class_data_and_a_link_without_it(tmp_path: Path) -> None:
    """Goal: over a link without ``data`` a fileset of class data is not offered and not had, with the reason at both
    ends; once the link has it, the fileset is offered and arrives."""
    async with services(tmp_path) as cluster:
        main, s1 = cluster.add("main"), cluster.add("s1")
        main.writes('class = "data"')
        main.write({"image": "i" * 5_000})
        cluster.link("main", "s1")
        allowed, main.partners["s1"] = main.partners["s1"], "replicate = true\ndata = false"
        for node in (main, s1):
            node.start()
        await main.publish()

        async def is_up() -> bool:
            return any(link["up"] for link in (await s1.status())["links"])

        await reached(is_up, lambda: "the link")
        assert not (await s1.status()).get("offers")
        error = await s1.refuses(
            "not_offered", "fileset_accept", name="data", path=str(s1.tree), timeout_s=30
        )
        assert "--data" in str(error.hint), error.as_json()
        found = await main.call("explain", fileset="data", path="image")
        why = {row["node"]: row for row in found["to"]}["s1"]
        assert not why["gets"] and "data" in why["why"], why
        main.partners["s1"] = allowed
        await main.reload()

        async def is_offered() -> bool:
            return [offer["name"] for offer in (await s1.status()).get("offers", [])] == ["data"]

        await reached(is_offered, lambda: "the offer")
        await s1.accepts()
        await cluster.followed("s1")
        await cluster.in_step("s1")


@in_virtual_time
async def test_a_root_inside_the_root_of_another_node_is_refused(tmp_path: Path) -> None:
    """Goal: no node archives the files of another one away. Method: a neighbour's root, in a folder of it and in one
    that is to be made."""
    async with services(tmp_path) as cluster:
        main, s1 = cluster.add("main"), cluster.add("s1")
        main.writes()
        main.write({"below/file": "1"})
        cluster.link("main", "s1")
        for node in (main, s1):
            node.start()
        await main.publish()
        for inside in (main.tree / "below", main.tree / "new"):
            refused = await s1.refuses(
                "root_of_other_node", "fileset_accept", name="data", path=str(inside), timeout_s=30
            )
            assert refused.facts["other"] == str(main.tree)
        assert not (main.tree / "new").exists()
        await s1.accepts(timeout_s=30)
