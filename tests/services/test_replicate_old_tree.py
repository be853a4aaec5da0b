"""An old copy of a tree of many homes is put back with its control folder: it undoes nothing of other homes."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from instep.model.ids import fileset_name
from instep.model.replication.union import decode_union
from instep.node.replica.union_service import UnionApplying
from instep.node.replica.union_tree import UnionTree
from instep.node.trees.fileset_tree import FilesetTree
from instep.store.memory import MemoryStore
from instep.tree.journal.journal import Journal
from instep.tree.root.place import Place
from instep.tree.switch.step_work import Switched
from tests.support.replicas import alike, mesh, own_paths, texts
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

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


@in_virtual_time
async def test_own_files_of_an_old_copy_are_held_until_an_operator_says_which_are_right(
    tmp_path: Path,
) -> None:
    """Files of other homes are brought forward all the same."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}/1.xml": "1", f"{node.name}/2.xml": "2"})
            node.start()
        await alike(*nodes)
        await b.stop()
        copy = OldCopy(b, tmp_path / "old")
        b.start()
        both = {"a/1.xml": "newer", "a/2.xml": "2", "b/1.xml": "newer", "b/2.xml": "2"}
        a.write({"a/1.xml": "newer"})
        b.write({"b/1.xml": "newer", "b/3.xml": "3"})
        await alike(*nodes, holding=both | {"b/3.xml": "3"})
        await b.stop()
        copy.put_back()
        head = await a.head()
        for _ in range(2):
            b.start()
            held = await b.stands("held", code="restored")
            assert any("--over" in step for step in held["next"]), held
            await b.holds("a/1.xml", "newer")
            await b.stop()
        b.start()
        await b.stands("held", code="restored")
        assert await a.head() == head
        assert texts(a.tree) == both | {"b/3.xml": "3"}
        b.write({"b/1.xml": "newer"})
        await b.publish(over=True)
        await alike(*nodes, holding=both)


@in_virtual_time
async def test_own_commits_alone_make_an_old_copy_of_the_tree_too(tmp_path: Path) -> None:
    """No file of another home was changed since the copy: else its own files would be published as edits."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}/1.xml": "1", f"{node.name}/2.xml": "2"})
            node.start()
        await alike(*nodes)
        await b.stop()
        copy = OldCopy(b, tmp_path / "old")
        b.start()
        b.write({"b/1.xml": "newer"})
        newest = {"a/1.xml": "1", "a/2.xml": "2", "b/1.xml": "newer", "b/2.xml": "2"}
        await alike(*nodes, holding=newest)
        await b.stop()
        copy.put_back()
        b.start()
        await b.stands("held", code="restored")
        assert texts(a.tree) == newest
        b.write({"b/1.xml": "newer"})
        shutil.copystat(a.tree / "b/1.xml", b.tree / "b/1.xml")
        await alike(*nodes, holding=newest)


@in_virtual_time
async def test_a_node_and_its_tree_of_yesterday_take_nothing_of_another_home(tmp_path: Path) -> None:
    """It removed a file since, and another home made one there: both have a name then, whatever the operator says."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
        b.write({"map.xml": "of b"})
        for node in nodes:
            node.start()
        await alike(*nodes)
        await b.stop()
        copy, yesterday = OldCopy(b, tmp_path / "old"), MemoryStore()
        yesterday._tables = b.store._tables.copied()
        b.start()
        (b.tree / "map.xml").unlink()
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1"})
        a.write({"map.xml": "of a"})
        await alike(*nodes, holding={"a.xml": "1", "b.xml": "1", "map.xml": "of a"})
        await b.stop()
        copy.put_back()
        b.store = yesterday
        b.start()
        await b.stands("held", code="restored")

        async def is_beside() -> bool:
            return len(texts(b.tree)) == 4

        await reached(is_beside, lambda: f"both files are in the old tree: {texts(b.tree)}")
        diff = (await b.call("diff", fileset="data"))["changes"]
        assert "map.xml" in {change["path"] for change in diff}
        await b.publish(over=True)

        async def is_renamed() -> bool:
            return "map.xml" not in await own_paths(a)

        await reached(is_renamed, lambda: f"a takes the other name over: {texts(a.tree)}")
        await alike(*nodes)
        assert sorted(texts(a.tree).values()) == ["1", "1", "of a", "of b"]
        assert await own_paths(b) == {"b.xml", "map.xml"}


@in_virtual_time
async def test_a_lost_state_comes_back_where_nobody_has_the_own_manifest_any_more(tmp_path: Path) -> None:
    """The tree's record names it; the newest one, which partners have, says the same of the tree."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        old, record = b.node.services[fileset_name("data")].head, (b.control / "holds").read_bytes()
        assert old is not None
        b.write({"b.xml": "2", "b/new.xml": "new"})
        everything = {"a.xml": "1", "b.xml": "2", "b/new.xml": "new"}
        await alike(*nodes, holding=everything)
        heads, own = [await node.head() for node in nodes], await own_paths(b)
        await b.stop()
        b.store = MemoryStore()
        (b.control / "holds").write_bytes(record)  # as a version wrote it that recorded switches alone
        a.store.delete_pages([old.root])
        b.start()
        await alike(*nodes, holding=everything)
        assert ([await node.head() for node in nodes], await own_paths(b)) == (heads, own)


@in_virtual_time
async def test_an_old_copy_whose_manifest_no_node_has_holds_and_its_hint_works(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}/1.xml": "1", f"{node.name}/2.xml": "2"})
            node.start()
        await alike(*nodes)
        await b.stop()
        copy = OldCopy(b, tmp_path / "old")
        b.start()
        head = a.node.services[fileset_name("data")].head
        assert head is not None
        (a.tree / "a/2.xml").unlink()
        newest = {"a/1.xml": "newer", "b/1.xml": "1", "b/2.xml": "2"}
        a.write({"a/1.xml": "newer"})
        await alike(*nodes, holding=newest)
        await b.stop()
        copy.put_back()
        for node in nodes:
            node.store.delete_pages([head.root])
        heads = await a.head()
        b.start()
        error = await b.refuses("union_unknown", "publish", fileset="data")
        await b.stands("failing", code="union_unknown")
        assert error.hint is not None
        assert f"rm {b.control}/holds" in error.hint
        assert (texts(a.tree), await a.head()) == (newest, heads)
        for path in ("a/1.xml", "a/2.xml"):
            (b.tree / path).unlink()
        shutil.copy2(a.tree / "a/1.xml", b.tree / "a/1.xml")
        (b.control / "holds").unlink()
        await alike(*nodes, holding=newest)
        assert await a.head() == heads


@in_virtual_time
async def test_a_put_back_that_was_undone_leaves_no_record_of_an_older_union(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused union is what the tree holds then: a record of the one before would make its files edits."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}/{n}.xml": f"{node.name} {n}" for n in range(3)})
        well = tmp_path / "well"
        well.mkdir()
        b.tail = f'[filesets.data.hooks]\nprobe = {{ touch = "{well}/probed" }}'
        for node in nodes:
            node.start()
        await alike(*nodes)
        switch, is_sick = FilesetTree.switch, False
        records: list[tuple[int, int]] = []

        def interrupted(tree: FilesetTree, place: Place, journal: Journal) -> Switched:
            if tree.name == "data" and isinstance(tree, UnionTree) and is_sick:
                held = decode_union(tree.held_record())
                records.append((held.number, journal.header.target.number))
                if len(records) == 2:
                    raise OSError(errno.EIO, "the disk went")
            return switch(tree, place, journal)

        is_sick = True
        well.rename(tmp_path / "gone")
        monkeypatch.setattr(FilesetTree, "switch", interrupted)
        own, head = await own_paths(b), await b.head()
        a.write({"a/1.xml": "newer", "a/new.xml": "new"})
        (a.tree / "a/2.xml").unlink()

        async def was_interrupted() -> bool:
            return len(records) >= 2

        await reached(was_interrupted, lambda: f"the put-back: {records}")
        (_, refused), (held, base) = records[:2]
        assert held == refused > base
        (tmp_path / "gone").rename(well)
        await b.call("retry", fileset="data")
        newest = {"a/0.xml": "a 0", "a/1.xml": "newer", "a/new.xml": "new"}
        await alike(*nodes, holding=newest | {f"b/{n}.xml": f"b {n}" for n in range(3)})
        assert (await own_paths(b), await b.head()) == (own, head)


@in_virtual_time
async def test_a_switch_that_ends_after_the_state_was_lost_keeps_no_publish_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal of a switch is brought to its end by a node whose state knows nothing of it."""
    async with services(tmp_path) as cluster:
        a, b = nodes = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)

        def fails(applying: UnionApplying) -> None:
            raise OSError(errno.EIO, "the disk does not answer")

        with monkeypatch.context() as patch:
            patch.setattr(UnionApplying, "record_now", fails)
            a.write({"late.xml": "1"})
            await b.holds("late.xml", "1")
            await b.stop()
        b.store = MemoryStore()
        b.start()
        await alike(*nodes)
        b.write({"new.xml": "1"})
        await a.holds("new.xml", "1")


@in_virtual_time
async def test_a_generation_that_no_node_has_any_more_is_held_and_other_homes_come(tmp_path: Path) -> None:
    """A state of before that generation beside the tree that holds it. An operator's word ends it, over a restart too."""
    async with services(tmp_path) as cluster:
        nodes = a, b = mesh(cluster, "a", "b")
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        await a.stop()
        await b.stop()
        yesterday = MemoryStore()
        yesterday._tables = a.store._tables.copied()
        a.start()
        a.write({"a.xml": "2", "a/new.xml": "new"})
        await a.publish()
        await a.stop()
        a.store = yesterday
        b.write({"b.xml": "2"})
        for _ in range(2):
            a.start()
            b.start()
            await a.holds("b.xml", "2")
            held = await a.stands("held", code="restored")
            assert any("--over" in step for step in held["next"]), held
            assert texts(b.tree) == {"a.xml": "1", "b.xml": "2"}
            await a.stop()
            await b.stop()
        a.start()
        b.start()
        await a.stands("held", code="restored")
        await a.publish(over=True)
        await alike(*nodes, holding={"a.xml": "2", "a/new.xml": "new", "b.xml": "2"})
        assert await own_paths(a) == {"a", "a.xml", "a/new.xml"}
