"""The newest generation of the own line is taken back into a tree of many homes; each line says how it stands meanwhile."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from instep.node.replica.union_tree import UnionTree
from instep.node.trees.fileset_tree import FilesetTree
from instep.store.memory import MemoryStore
from instep.tree.journal.journal import Journal
from instep.tree.root.place import Place
from instep.tree.switch.step_work import Switched
from tests.services.test_replicate_old_tree import OldCopy
from tests.support.replicas import alike, mesh, own_paths, standings, texts
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

NEWEST = {"a/1.xml": "newer", "a/2.xml": "2", "b/1.xml": "newer", "b/3.xml": "3" * 200_000}


async def _comes_back_old(cluster: Services, tmp_path: Path) -> tuple[ServiceNode, ServiceNode]:
    """``b`` gets its state and its tree of before the newest changes back; ``a`` has all."""
    nodes = a, b = mesh(cluster, "a", "b")
    for node in nodes:
        node.write({f"{node.name}/1.xml": "1", f"{node.name}/2.xml": "2"})
        node.start()
    await alike(*nodes)
    await b.stop()
    copy, yesterday = OldCopy(b, tmp_path / "old"), MemoryStore()
    yesterday._tables = b.store._tables.copied()
    b.start()
    a.write({"a/1.xml": "newer"})
    b.write({path: text for path, text in NEWEST.items() if path.startswith("b/")})
    (b.tree / "b/2.xml").unlink()
    await alike(*nodes, holding=NEWEST)
    await b.stop()
    copy.put_back()
    b.store = yesterday
    b.start()
    await b.stands("held", code="restored")
    return a, b


@in_virtual_time
async def test_the_newest_generation_is_taken_back_as_the_status_says(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        a, b = await _comes_back_old(cluster, tmp_path)
        steps = (await b.line())["next"]
        assert any(step.endswith("instep restore data") for step in steps), steps
        would = await b.call("restore", fileset="data", dry_run=True)
        assert (would["added"], would["changed_paths"], would["removed"]) == (1, 1, 1)
        assert texts(b.tree)["b/1.xml"] == "1"
        await b.call("restore", fileset="data")
        await alike(a, b, holding=NEWEST)
        assert await b.taken_out("b/2.xml", tmp_path / "out") == ["2"]
        await b.refuses("not_in_replicate", "restore", fileset="data", generation=1)


@in_virtual_time
async def test_a_restore_that_is_interrupted_is_brought_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails before the journal is closed; the same generation is the newest before and after."""
    async with services(tmp_path) as cluster:
        a, b = await _comes_back_old(cluster, tmp_path)
        switch = FilesetTree.switch
        failed: list[Place] = []

        def interrupted(tree: FilesetTree, place: Place, journal: Journal) -> Switched:
            switched = switch(tree, place, journal)
            if not isinstance(tree, UnionTree) and not failed:
                failed.append(place)
                raise OSError(errno.EIO, "the disk went")
            return switched

        monkeypatch.setattr(FilesetTree, "switch", interrupted)
        with pytest.raises(Exception, match="the disk went"):
            await b.call("restore", fileset="data")
        assert failed
        await alike(a, b, holding=NEWEST)
        assert await own_paths(b) == {"b", "b/1.xml", "b/3.xml"}


@in_virtual_time
async def test_an_emptied_tree_is_said_by_every_line_and_is_restored(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}/{n}.xml": f"{node.name} {n}" for n in range(30)})
            node.start()
        await alike(*nodes)
        everything = texts(b.tree)
        for folder in "ab":
            shutil.rmtree(b.tree / folder)

        lines: dict[str, Any] = {}

        async def are_said() -> bool:
            lines.update((line["origin"], line) for line in (await b.status())["filesets"][0]["lines"])
            found = {origin: (line["standing"], line["code"]) for origin, line in lines.items()}
            return found == {"a": ("drifted", "removals_blocked"), "b": ("blocked", "max_deletions")}

        await reached(are_said, lambda: f"both lines say it: {lines}")
        assert "of a were changed or removed here" in lines["a"]["reason"]
        await b.call("restore", fileset="data")
        await alike(*nodes, holding=everything)
        await a.stop()
        for folder in "ab":
            shutil.rmtree(b.tree / folder)
        await b.stands("blocked", code="max_deletions")
        await b.call("restore", fileset="data")

        async def is_own_back() -> bool:
            return len(texts(b.tree)) == len(everything) // 2

        await reached(is_own_back, lambda: "own files come from the history here")
        assert (await standings(b))["a"] == "drifted"
        a.start()
        await alike(*nodes, holding=everything)


@in_virtual_time
async def test_a_root_that_is_gone_is_said_by_every_line(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = _, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        b.tree.rename(tmp_path / "away")

        async def are_blocked() -> bool:
            return await standings(b) == {"a": "blocked", "b": "blocked"}

        await reached(are_blocked, lambda: "both lines are blocked")
        await b.stop()
        b.start()
        await reached(are_blocked, lambda: "both lines are blocked after a start")
        (tmp_path / "away").rename(b.tree)
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1"})
