"""A disk that changes or loses instep's own records: named, and mended from the node's other copies or a partner's."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

SMALL = "first content of the small one"
LARGE = "first content of the large one" * 60_000


def flip(path: Path, needle: str) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(needle.encode())] ^= 1
    path.write_bytes(raw)


def large_file(history: Path) -> Path:
    (found,) = (file for file in history.glob("??/*") if file.stat().st_size == len(LARGE))
    return found


async def noted(node: ServiceNode, what: str) -> dict[str, object]:
    """Wait until an event of that kind is there; the event."""
    found: list[dict[str, object]] = []

    async def is_there() -> bool:
        found[:] = [event for event in await node.events() if event["what"] == what]
        return bool(found)

    await reached(is_there, lambda: f"{what} at {node.name}", 3600)
    return found[0]


async def complaints(node: ServiceNode) -> list[str]:
    """What ``check`` says about records."""
    rows = (await node.call("check"))["checks"]
    return [row["ours"] for row in rows if row["name"].startswith("records of") and not row["ok"]]


async def mended(node: ServiceNode) -> None:
    async def is_well() -> bool:
        return not await complaints(node)

    await reached(is_well, lambda: "no complaint about records", 3600)


@in_virtual_time
async def test_contents_and_lines_that_rotted_come_back_from_the_node_itself(tmp_path: Path) -> None:
    """Goal: a content of the history that the tree still has, and a line of the archive's index, are mended at the next
    start and noted; the damaged pack is kept aside."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, s1 = cluster["main"], cluster["s1"]
        main.write({f"file-{number}": f"first content of {number}" for number in range(20)})
        await cluster.followed("s1")
        await cluster.in_step("s1")
        main.write({"file-3": "second content"})
        await cluster.in_step("s1")
        await main.stop()
        await s1.stop()
        history = main.control / "history"
        flip(history / "pack-00000001", "first content of 7")
        (index,) = s1.control.glob("archive/*/index")
        flip(index, "file-3")
        main.start()
        s1.start()
        await noted(main, "history_damaged")
        await noted(main, "history_mended")
        await noted(s1, "archive_index_mended")
        assert list(await s1.archived()) == ["file-3"]
        main.write({"file-7": "overwritten"})
        await main.publish()

        async def is_aside() -> bool:
            return (history / "pack-00000001.damaged-1").exists()

        await reached(is_aside, lambda: "the damaged pack is kept aside", 3600)
        await mended(main)


@in_virtual_time
async def test_contents_that_only_a_partner_still_has_come_back_by_themselves(tmp_path: Path) -> None:
    """Goal: rot in the history of contents that no tree has any more, small, large and a link's target, is mended from a
    partner's archive while the node runs; ``log`` says so, and a rollback works with the partner down."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('publish = "manual"',))
        main, s1, tree = cluster["main"], cluster["s1"], cluster["main"].tree
        await cluster.followed("s1")
        main.write({"small": SMALL, "large": LARGE})
        (tree / "link").symlink_to("first content of the link")
        number = (await main.publish(wait=True))["generation"]["number"]
        wanted = tree_of(tree, with_times=False)
        main.write({"small": "second", "large": "second"})
        (tree / "link").unlink()
        (tree / "link").symlink_to("second")
        await main.publish(wait=True)
        history = main.control / "history"
        flip(history / "pack-00000001", SMALL)
        flip(history / "pack-00000001", "first content of the link")
        flip(large_file(history), LARGE[:30])
        assert (await main.log())[number]["contents"] == ["s1"]

        async def is_here() -> bool:
            return bool((await main.log())[number]["contents"] == ["here", "s1"])

        await reached(is_here, lambda: "the contents are back", 3600)
        event = await noted(main, "history_mended")
        assert (event["contents"], event["nodes"]) == (3, ["s1"]), event
        await s1.stop()
        await main.call("rollback", fileset="data", generation=number)
        assert tree_of(tree, with_times=False) == wanted
        assert not await complaints(main)


@in_virtual_time
async def test_files_that_were_removed_from_history_and_archive_are_noticed(tmp_path: Path) -> None:
    """Goal: a large content and a pack that are simply not there any more are named and come back from a partner; an
    archived object that is gone is named. Method: removed while the nodes do not run."""
    async with services(tmp_path) as cluster:
        cluster.make(1, writer=('publish = "manual"',))
        main, s1 = cluster["main"], cluster["s1"]
        await cluster.followed("s1")
        main.write({"small": SMALL, "large": LARGE})
        number = (await main.publish(wait=True))["generation"]["number"]
        main.write({"small": "second", "large": "second"})
        await main.publish(wait=True)
        history = main.control / "history"
        large = large_file(history)
        known = os.fsencode(large.relative_to(history))
        await main.stop()
        main.start()  # notes which files there are

        async def is_noted() -> bool:
            return known in (main.store.get("history/data") or b"")

        await reached(is_noted, lambda: "the names of the history's files are noted", 3600)
        await main.stop()
        await s1.stop()
        large.unlink()
        (history / "pack-00000001").unlink()
        main.start()
        await noted(main, "history_damaged")

        async def are_counted() -> bool:
            return any("2 contents of older generations are lost" in row for row in await complaints(main))

        await reached(are_counted, lambda: "both contents are named", 3600)
        s1.start()
        await noted(main, "history_mended")
        await mended(main)
        assert (await main.log())[number]["contents"] == ["here", "s1"]
        await s1.stop()
        next(s1.control.glob("archive/*/o/*")).unlink()
        s1.start()
        await noted(s1, "archive_objects_gone")
