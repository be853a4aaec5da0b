"""A disk that changes bits of instep's own records: named, and mended from the node's other copies."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.store.sqlite import SqliteStore
from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def flip(path: Path, needle: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(needle)] ^= 1
    path.write_bytes(raw)


def stored(node: Node, key: str) -> bytes | None:
    """A value of the node's state while its daemon runs."""
    store = SqliteStore.open(node.directory / "state" / "node.db", read_only=True)
    try:
        return store.get(key)
    finally:
        store.close()


def kinds(node: Node) -> set[str]:
    return {event["what"] for event in node.run("events").json["events"]}


@pytest.mark.timeout(120)
def test_lost_contents_and_lines_come_back(fleet: Fleet) -> None:
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    for number in range(20):
        (tree / f"file-{number}").write_text(f"first content of {number}")
    fleet.make(1)
    fleet.wait()
    first = fleet.main.line()["head"]["number"]
    (tree / "file-3").write_text("second content")
    eventually(lambda: fleet.main.line()["head"]["number"] > first, 20, "the change is published")
    fleet.wait()
    s1 = fleet["s1"]
    fleet.main.stop()
    s1.stop()
    history = next(tree.parent.glob(".instep-*/history"))
    flip(history / "pack-00000001", b"first content of 7")  # which the tree still has
    (index,) = fleet.tree("s1").parent.glob(".instep-*/archive/*/index")
    flip(index, b"file-3")
    fleet.main.start()
    s1.start()
    eventually(lambda: "history_mended" in kinds(fleet.main), 30, "the history is mended")
    eventually(lambda: "archive_index_mended" in kinds(s1), 30, "the index is mended")
    assert "history_damaged" in kinds(fleet.main)
    assert [item["path"] for item in s1.run("archive", "list", "data").json["items"]] == ["file-3"]
    (tree / "file-7").write_text("overwritten")
    eventually(lambda: list(history.glob("pack-00000001.damaged-1")), 30, "the damaged pack is kept aside")
    rows = fleet.main.run("check", expect=None).json
    assert not [row for row in rows["checks"] if row["name"].startswith("records of") and not row["ok"]]


@pytest.mark.timeout(180)
def test_contents_that_only_a_partner_still_has_come_back_by_themselves(fleet: Fleet) -> None:
    """Goal: rot in the history of contents that no tree has any more, small, large and a link's target, is mended
    from a partner's archive while the daemon runs; ``log`` says so, and a rollback works with the partner down."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "small").write_text("first content of the small one")
    (tree / "large").write_bytes(b"first content of the large one" * 60_000)
    (tree / "link").symlink_to("first content of the link")
    fleet.make(1, add=("--publish", "manual"))
    main, s1 = fleet.main, fleet["s1"]
    number = main.run("publish", "data", "--wait").json["generation"]["number"]
    wanted = tree_of(tree, with_times=False)
    with fleet.together():
        (tree / "small").write_text("second")
        (tree / "large").write_text("second")
        (tree / "link").unlink()
        (tree / "link").symlink_to("second")
    main.run("publish", "data", "--wait")
    history = next(tree.parent.glob(".instep-*/history"))
    flip(history / "pack-00000001", b"first content of the small one")
    flip(history / "pack-00000001", b"first content of the link")
    (large,) = (file for file in history.glob("??/*") if file.stat().st_size == 30 * 60_000)
    flip(large, b"first content of the large one")

    def places() -> list[str]:
        rows = {row["number"]: row for row in main.run("log", "data").json["generations"]}
        found: list[str] = rows[number]["contents"]
        return found

    assert places() == ["s1"]
    eventually(lambda: places() == ["here", "s1"], 60, main.log)
    (event,) = (e for e in main.run("events").json["events"] if e["what"] == "history_mended")
    assert (event["contents"], event["nodes"]) == (3, ["s1"]), event
    s1.stop()
    main.run("rollback", "data", str(number))
    assert tree_of(tree, with_times=False) == wanted
    rows = main.run("check", expect=None).json
    assert not [row for row in rows["checks"] if row["name"].startswith("records of") and not row["ok"]]


@pytest.mark.timeout(180)
def test_files_that_were_removed_from_history_and_archive_are_noticed(fleet: Fleet) -> None:
    """Goal: a large content and a pack that are simply not there any more are named and come back from a partner; an
    archived object that is gone is named. Method: removed while the daemons do not run."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "small").write_text("first content of the small one")
    (tree / "large").write_bytes(b"first content of the large one" * 60_000)
    fleet.make(1, add=("--publish", "manual"))
    main, s1 = fleet.main, fleet["s1"]
    number = main.run("publish", "data", "--wait").json["generation"]["number"]
    (tree / "small").write_text("second")
    (tree / "large").write_text("second")
    main.run("publish", "data", "--wait")
    main.stop()
    main.start()  # knows from now on which files there are

    def records() -> list[str]:
        rows = main.run("check", expect=None).json["checks"]
        return [row["ours"] for row in rows if row["name"].startswith("records of") and not row["ok"]]

    history = next(tree.parent.glob(".instep-*/history"))
    (large,) = (file for file in history.glob("??/*") if file.stat().st_size == 30 * 60_000)
    known = os.fsencode(large.relative_to(history))
    eventually(lambda: known in (stored(main, "history/data") or b""), 60, main.log)
    main.stop()
    s1.stop()
    large.unlink()
    (history / "pack-00000001").unlink()
    main.start()
    eventually(lambda: "history_damaged" in kinds(main), 30, main.log)
    eventually(
        lambda: any("2 contents of older generations are lost" in row for row in records()), 30, main.log
    )
    s1.start()
    eventually(lambda: "history_mended" in kinds(main), 60, main.log)
    eventually(lambda: not records(), 60, lambda: str(records()))
    rows = {row["number"]: row for row in main.run("log", "data").json["generations"]}
    assert rows[number]["contents"] == ["here", "s1"]
    s1.stop()
    (archived, *_) = fleet.tree("s1").parent.glob(".instep-*/archive/*/o/*")
    archived.unlink()
    s1.start()
    eventually(lambda: "archive_objects_gone" in kinds(s1), 30, s1.log)
