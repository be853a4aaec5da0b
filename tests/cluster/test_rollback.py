"""Going back: on a node alone, from its own history, and for single files from the archive."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually


def test_a_single_node_goes_back_after_files_were_overwritten_in_place(fleet: Fleet) -> None:
    """Goal: history alone brings back what an application overwrote in place, removed and retyped; ``log`` shows
    which contents can be had from where; replaced files are kept. Method: one node, no partners, and a partner
    later."""
    tree = fleet.tree("main")
    (tree / "sub").mkdir(parents=True)
    for number in range(30):
        (tree / "sub" / f"f{number}").write_text(f"file {number}\n")
    os.symlink("sub/f1", tree / "link")
    (tree / "mode").write_text("mode")
    (tree / "mode").chmod(0o640)
    fleet.make(0, add=("--publish", "manual"))
    main = fleet.main
    main.run("publish", "data")
    first = tree_of(tree)
    for number in range(30):
        with (tree / "sub" / f"f{number}").open("r+") as file:
            file.write("OVERWRITTEN IN PLACE")
    (tree / "sub" / "f29").unlink()
    (tree / "sub" / "f28").unlink()
    (tree / "sub" / "f28").mkdir()
    (tree / "sub" / "f28" / "inner").write_text("inner")
    (tree / "link").unlink()
    (tree / "link").symlink_to("elsewhere")
    (tree / "mode").chmod(0o600)
    (tree / "added").write_text("added")
    main.run("publish", "data", "-m", "the accident")
    accident = tree_of(tree)
    log = main.run("log", "data").json["generations"]
    assert [(g["number"], g["contents"], g["message"]) for g in log] == [
        (2, ["here"], "the accident"),
        (1, ["here"], ""),
    ]
    dry = main.run("rollback", "data", "1", "--dry-run").json
    assert dry["changed"] and tree_of(tree) == accident
    assert dry["removed"] >= 2 and dry["added"] >= 1 and dry["changed_paths"] >= 29, dry
    done = main.run("rollback", "data", "1", "-m", "undo").json
    assert done["generation"]["number"] == 3
    assert tree_of(tree, with_times=False) == {path: what[:-1] for path, what in first.items()}
    assert {p: w for p, w in tree_of(tree).items() if w[0] != "dir"} == {
        p: w for p, w in first.items() if w[0] != "dir"
    }
    assert done["generation"]["root"] == log[1]["root"]
    assert main.standing() == "in_step"
    # And forward again; and a file that was never published, overwritten by the way back, is in the archive.
    (tree / "sub" / "f0").write_text("unpublished work")
    main.run("pause", "data")
    assert main.run("rollback", "data", "2", expect=4).error["code"] == "paused"
    main.run("resume", "data")
    main.run("rollback", "data", "2")
    assert {p: w for p, w in tree_of(tree).items() if w[0] != "dir"} == {
        p: w for p, w in accident.items() if w[0] != "dir"
    }
    out = fleet.base / "out"
    assert main.run("rollback", "data", "99", expect=2).error["code"] == "no_generation"
    numbers = [g["number"] for g in main.run("log", "data").json["generations"]]
    assert numbers == sorted(numbers, reverse=True)
    main.run("archive", "restore", "data", "sub/f0", "--to", str(out))
    # A partner that comes later gets the newest; the writer's log then names it as a place.
    fleet.join("s1")
    fleet.wait()
    fleet.assert_same()
    newest = main.run("log", "data").json["generations"][0]
    assert newest["contents"] == ["here", "s1"], newest


def test_what_is_too_large_for_history_is_told(fleet: Fleet) -> None:
    """Goal: class ``data`` keeps no history: ``log`` says that no node has the old contents and a rollback
    refuses, naming the missing files, with the tree as it was."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "large").write_bytes(b"1" * 100_000)
    fleet.make(0, add=("--publish", "manual", "--class", "data"))
    main = fleet.main
    first = fleet.publish()
    with (tree / "large").open("r+b") as file:
        file.write(b"2")
    (tree / "other").write_text("other")
    second = fleet.publish()
    before = tree_of(tree)
    log = main.run("log", "data").json["generations"]
    assert [(g["number"], g["contents"]) for g in log] == [(second, ["here"]), (first, [])]
    error = main.run("rollback", "data", str(first), expect=None)
    assert error.code not in (0, 1), error
    assert "large" in error.error["reason"], error.error
    assert tree_of(tree) == before
    assert fleet.head() == second


def test_the_archive_gives_back_a_drifted_and_a_removed_file(fleet: Fleet) -> None:
    """Goal: at a partner, each replaced, removed and drifted content by path and generation; pruning keeps the
    batches that the retention holds and shows what it would do."""
    tree = fleet.tree("main")
    (tree / "dir").mkdir(parents=True)
    for name in ("drifts", "removed", "replaced", "dir/inside"):
        (tree / name).write_text(f"{name} 1")
    fleet.make(1)
    fleet.wait()
    s1, there = fleet["s1"], fleet.tree("s1")
    (there / "drifts").write_text("local")
    eventually(lambda: (there / "drifts").read_text() == "drifts 1", 20, s1.log)
    (tree / "removed").unlink()
    (tree / "replaced").write_text("replaced 2")
    (tree / "dir" / "inside").unlink()
    (tree / "dir").rmdir()
    fleet.wait()
    fleet.assert_same()
    items = {(i["path"], i["why"]): i for i in s1.run("archive", "list", "data").json["items"]}
    assert {("removed", "removed"), ("replaced", "replaced"), ("drifts", "drift")} <= set(items), items
    for name, text in (
        ("drifts", "local"),
        ("removed", "removed 1"),
        ("replaced", "replaced 1"),
        ("dir/inside", "dir/inside 1"),
    ):
        out = fleet.base / f"out-{Path(name).name}"
        s1.run("archive", "restore", "data", name, "--to", str(out))
        found = [p for p in out.rglob("*") if p.is_file()]
        assert [p.read_text() for p in found] == [text], (name, found)
    error = s1.run("archive", "restore", "data", "nowhere", "--to", str(fleet.base / "out"), expect=None)
    assert error.code not in (0, 1), error
    dry = s1.run(
        "archive", "prune", "data", "--keep-last", "0", "--keep-within", "0s", "--dry-run", expect=None
    )
    assert s1.run("archive", "list", "data").json["items"], dry
    assert dry.code in (0, 2), dry
