"""A node that lost its memory, in part or wholly: a writer goes on above what its partners hold, a partner waits for its
own past."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest

from instep.store.memory import MemoryStore
from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached


class Pair:
    """A writer and its partner; no number may ever have two ids."""

    def __init__(self, cluster: Services, writer: tuple[str, ...] = ()) -> None:
        cluster.make(1, writer=writer)
        self.cluster, self.main, self.s1 = cluster, cluster["main"], cluster["s1"]
        self._ids: dict[int, str] = {}

    async def settled(self) -> int:
        """Wait until the writer's tree is live on the partner; the number of the generation."""
        await self.cluster.followed("s1")
        found = await self.main.call("wait", fileset="data", timeout_s=600)
        assert found["reached"], found
        number: int = found["generation"]["number"]
        await self.s1.stands("in_step")
        assert tree_of(self.s1.tree) == tree_of(self.main.tree)
        await self.no_number_is_used_twice()
        return number

    async def no_number_is_used_twice(self) -> None:
        for node in (self.main, self.s1):
            for number, row in (await node.log()).items():
                assert self._ids.setdefault(number, row["id"]) == row["id"], f"{node.name}: {number}"

    async def said_to_be_right(self) -> int:
        """The writer's tree is not its newest generation: it stands held until an operator decides."""
        held = await self.main.stands("held", code="restored")
        assert any("--over" in step for step in held["next"]), held
        await self.main.publish(over=True)
        return await self.settled()

    async def woken(self, newest: int) -> int:
        """The writer, started without its memory, knows its head again; a change becomes a higher one."""
        before = tree_of(self.main.tree)
        self.main.start()

        async def knows() -> bool:
            head = (await self.main.line())["head"]
            return bool(head is not None and head["number"] >= newest)

        await reached(knows, lambda: "the writer learns its head")
        again = await self.settled()
        assert tree_of(self.main.tree) == before, "the writer's tree is its own"
        self.main.write({"sub/f9": f"after {again}"})
        higher = await self.settled()
        assert higher > newest
        return higher


def _memory(node: ServiceNode) -> MemoryStore:
    """A copy of what it has stored."""
    twin = MemoryStore()
    twin._tables = copy.copy(node.store._tables.copied())
    return twin


@in_virtual_time
async def test_a_writer_with_amnesia_goes_on_above_its_own_heads(tmp_path: Path) -> None:
    """Goal: design section 5 "A writer with amnesia". Method: yesterday's state, then an empty one, then an empty one
    and a changed tree, then an empty one while no partner answers."""
    async with services(tmp_path) as cluster:
        pair = Pair(cluster)
        main, s1 = pair.main, pair.s1
        main.write({f"sub/f{number}": f"file {number}" for number in range(20)})
        newest = await pair.settled()
        yesterday = _memory(main)
        for turn in range(3):
            main.write({f"sub/f{turn}": f"of today {turn}", f"today-{turn}": "today"})
            newest = await pair.settled()
        for memory in (yesterday, MemoryStore()):
            await main.stop()
            main.store = memory
            newest = await pair.woken(newest)
        # Changed while the state is lost: only an operator can distinguish that from an older tree.
        await main.stop()
        main.store = MemoryStore()
        main.write({"while-away": "written while the writer was down"})
        (main.tree / "today-0").unlink()
        main.start()
        newer = await pair.said_to_be_right()
        assert newer > newest
        # No partner answers: nothing is published by itself.
        await s1.stop()
        await main.stop()
        main.store = MemoryStore()
        main.write({"alone": "written while no partner could be asked"})
        main.start()
        held = await main.stands("held")
        assert held["code"] and held["next"], held
        assert held["head"] is None, "published without knowing its past"
        s1.start()
        assert await pair.said_to_be_right() > newer
        assert (s1.tree / "alone").exists()


@in_virtual_time
async def test_a_writer_from_a_snapshot_goes_past_no_partners_generation_unasked(tmp_path: Path) -> None:
    """Goal: a writer that was put back publishes beyond the partner's number before it hears of that one; the partner
    keeps what it has, also across restarts of both, until an operator decides."""
    async with services(tmp_path) as cluster:
        pair = Pair(cluster)
        main, s1 = pair.main, pair.s1
        main.write({"f": "of yesterday"})
        await pair.settled()
        await main.stop()
        memory, copied = _memory(main), tmp_path / "copy"
        shutil.copytree(main.tree.parent, copied, symlinks=True)
        main.start()
        main.write({"lost": "published, and lost by the writer"})
        lost = await pair.settled()
        await s1.stop()
        await main.stop()
        shutil.rmtree(main.tree.parent)
        copied.rename(main.tree.parent)
        main.store = memory
        main.start()
        for turn in range(3):
            main.write({"f": f"written after the snapshot {turn}"})
            await main.publish()
        beyond = await main.head()
        assert beyond > lost
        kept = tree_of(s1.tree)
        s1.start()
        await main.stands("held", code="generation_twice")
        await main.stop()
        await s1.stop()
        main.start()
        held = await main.stands("held", code="generation_twice")
        assert any("--over" in step for step in held["next"]), held
        s1.start()

        async def is_told() -> bool:
            return bool((await s1.line())["code"] == "reused_number")

        await reached(is_told, lambda: "the partner names the number that was used twice")
        assert tree_of(s1.tree) == kept
        await main.publish(over=True)
        found = await main.call("wait", fileset="data", timeout_s=600)
        assert found["reached"] and found["generation"]["number"] > beyond, found
        assert tree_of(s1.tree) == tree_of(main.tree)


async def _with_an_older_memory(pair: Pair) -> tuple[MemoryStore, dict[bytes, tuple[Any, ...]]]:
    """The partner's state from before the newest generation, and the tree of that generation."""
    main, s1 = pair.main, pair.s1
    main.write({"a": "one", "gone": "one"})
    first = await pair.settled()
    older = _memory(s1)
    main.write({"a": "two", "new": "two"})
    (main.tree / "gone").unlink()
    assert await pair.settled() > first
    return older, tree_of(main.tree)


@pytest.mark.parametrize("is_lost", [False, True], ids=["older", "lost"])
@in_virtual_time
async def test_a_partner_whose_tree_outlives_its_state_takes_nothing_back(
    tmp_path: Path, is_lost: bool
) -> None:
    """Goal: with an older state, or none, it waits for its own past, also across a restart, and follows on (P4)."""
    async with services(tmp_path) as cluster:
        pair = Pair(cluster)
        main, s1 = pair.main, pair.s1
        older, newest = await _with_an_older_memory(pair)
        await main.stop()
        await s1.stop()
        s1.store = MemoryStore() if is_lost else older
        for _ in range(2):
            s1.start()
            held = await s1.stands("held", code="state_older_than_tree")
            assert "generation" in held["reason"] and held["next"], held
            await s1.stop()
        assert tree_of(s1.tree) == newest, "nothing was taken back"
        s1.start()
        main.start()
        await s1.stands("in_step")
        assert tree_of(s1.tree) == newest
        main.write({"a": "three"})
        await s1.holds("a", "three")


@in_virtual_time
async def test_a_damaged_record_of_what_the_tree_holds_takes_nothing_back(tmp_path: Path) -> None:
    """Goal: the state is older than the tree, and the record that would say so cannot be read: the node waits for an
    operator, with the commands in its standing."""
    async with services(tmp_path) as cluster:
        pair = Pair(cluster)
        main, s1 = pair.main, pair.s1
        older, newest = await _with_an_older_memory(pair)
        await main.stop()
        await s1.stop()
        s1.store = older
        record = s1.control / "holds"
        record.write_bytes(bytes(record.stat().st_size))
        s1.start()
        line = await s1.stands("damaged", code="holds_damaged")
        assert str(record) in line["reason"], line
        main.start()
        head = await main.head()

        async def hears() -> bool:
            known = (await s1.line())["head"]
            return bool(known is not None and known["number"] == head)

        await reached(hears, lambda: "the partner hears of the newest generation")
        line = await s1.stands("damaged")
        assert tree_of(s1.tree) == newest, "nothing was taken back"
        (step,) = line["next"]
        remove, retry = step.partition("then: ")[2].split(" && ")
        assert (remove, retry) == (f"rm {record}", "instep retry data"), step
        record.unlink()
        await s1.call("retry", fileset="data")
        await s1.stands("in_step")
        assert tree_of(s1.tree) == newest
