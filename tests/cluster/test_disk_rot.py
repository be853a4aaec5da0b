"""A disk that changes bits of what instep itself keeps: named, and mended from what the node still has."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.waiting import eventually


def flip(path: Path, needle: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(needle)] ^= 1
    path.write_bytes(raw)


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
    assert list(history.glob("pack-00000001.damaged-1"))
    rows = fleet.main.run("check", expect=None).json
    assert not [row for row in rows["checks"] if row["name"].startswith("records of") and not row["ok"]]
