"""Going back with real daemons: half restored, put back to a snapshot, paths that had to be left."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def head(node: Node) -> int:
    return int(node.line()["head"]["number"])


def root_of(node: Node, number: int) -> str:
    rows = {g["number"]: g["root"] for g in node.run("log", "data").json["generations"]}
    return str(rows[number])


def write(tree: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        beside = tree.parent / "beside"
        beside.write_text(text)
        beside.rename(tree / name)


@pytest.mark.timeout(180)
def test_a_writer_from_a_snapshot_waits_for_a_word_and_takes_contents_from_partners(fleet: Fleet) -> None:
    """Goal: nothing of the old tree is published over the newer head, not after a restart either; the way back takes
    files from a partner's tree, and from a partner's archive alone; the dry run and ``log`` say the same as the act."""
    tree = fleet.tree("main")
    write(tree, {f"f{n}": "monday" for n in range(30)})
    fleet.make(2)
    fleet.wait()
    main, s1 = fleet.main, fleet["s1"]
    main.stop()
    home, snapshot = fleet.base / "main", fleet.base / "snapshot"
    subprocess.run(["cp", "-a", str(home), str(snapshot)], check=True, timeout=60)
    main.start()
    write(tree, {"f1": "tuesday"})
    os.symlink("f1", tree / "link")
    (tree / "large").write_bytes(os.urandom(3 << 20))
    fleet.wait()
    tuesday, number = tree_of(tree, with_times=False), head(main)
    write(tree, {"f1": "friday"})
    (tree / "large").unlink()
    (tree / "link").unlink()
    main.run("publish", "data", "--accept-deletions", "--wait")
    friday, newest = tree_of(tree, with_times=False), head(main)
    wanted = root_of(main, number)
    main.stop()
    shutil.rmtree(home)
    snapshot.rename(home)
    main.start()
    for _ in range(2):
        line = main.await_standing("held", code="restored")
        assert line["head"]["number"] == newest
        assert "1 differ" in line["reason"], line
        error = main.run("publish", "data", expect=4).error
        assert error["code"] == "restored", error
        assert (tree / "f1").read_text() == "monday"
        main.stop()
        main.start()
    main.await_standing("held", code="restored")
    eventually(
        lambda: (
            {g["number"]: g for g in main.run("log", "data").json["generations"]}[newest]["contents"]
            == ["s1", "s2"]
        ),
        30,
        main.log,
    )
    assert main.run("restore", "data", "--dry-run").json["changed_paths"] == 1
    taken = main.run("restore", "data").json
    assert taken["changed"] and taken["generation"]["number"] == newest, taken
    assert tree_of(tree, with_times=False) == friday
    main.await_standing("in_step")
    assert s1.line()["live"]["number"] == newest
    # Generation of tuesday: its record is known to the partners alone, its contents lie in their archives alone.
    assert number not in [g["number"] for g in main.run("log", "data").json["generations"]]
    out = fleet.base / "out"
    s1.run("restore", "data", "--generation", str(number), "--to", str(out))
    assert tree_of(out, with_times=False) == tuesday
    assert wanted


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a directory immutable")
@pytest.mark.timeout(120)
def test_a_restore_that_stops_half_way_is_never_published(fleet: Fleet) -> None:
    """Goal: A3. While it is neither old nor new nothing is scanned; it heals without a restart; edits are kept."""
    tree = fleet.tree("main")
    write(tree, {"a": "one", "z/f": "one", "z/g": "one"})
    fleet.make(1)
    main, there = fleet.main, fleet.tree("s1")
    fleet.wait()
    first = head(main)
    write(tree, {"a": "two", "z/f": "two", "z/g": "two"})
    fleet.wait()
    second = head(main)
    try:
        subprocess.run(["chattr", "+i", str(tree / "z")], check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this file system has no immutable directories")
    try:
        failed = main.run("rollback", "data", str(first), expect=None)
        assert failed.code != 0, failed
        assert "z" in str(failed.error), failed.error
        texts = {(there / name).read_text() for name in ("a", "z/f", "z/g")}
        assert texts == {"two"}, "a mixture was published"
        published = {g["root"] for g in main.run("log", "data").json["generations"]}
        assert len(published) == second
    finally:
        subprocess.run(["chattr", "-i", str(tree / "z")], check=True)
    main.run("retry", "data")
    main.await_standing("in_step")
    fleet.wait()
    texts = {(tree / name).read_text() for name in ("a", "z/f", "z/g")}
    assert len(texts) == 1, "all old or all new"
    write(tree, {"a": "three", "z/f": "three", "z/g": "three"})
    fleet.wait()
    main.stop()
    main.start()
    main.await_standing("in_step")
    assert {(tree / name).read_text() for name in ("a", "z/f", "z/g")} == {"three"}
    fleet.assert_same()


def test_what_a_rollback_had_to_leave_is_named(fleet: Fleet) -> None:
    """Goal: a directory with ignored paths in it cannot become the link that it was; the answer names it with what to
    do, exits 20, and the same command is clean once the ignored paths are gone."""
    tree = fleet.tree("main")
    write(tree, {"current/page": "one", "other": "one"})
    (tree / "data").symlink_to("current")
    fleet.make(0, add=("--publish", "manual"))
    main = fleet.main
    main.run("fileset", "set", "data", "ignore=*.tmp")
    first = main.run("publish", "data").json["generation"]
    (tree / "data").unlink()
    write(tree, {"data/page": "two", "data/scratch.tmp": "mine", "other": "two"})
    main.run("publish", "data")
    for words in (("rollback", "data", str(first["number"])), ("restore", "data")):
        done = main.run(*words, expect=20).json
        assert done["generation"]["root"] == first["root"], done
        (left,) = done["held"]
        assert (left["path"], done["held_total"]) == ("data", 1), done
        assert "ignored paths lie in it" in left["why"], left
        assert str(tree / "data") in left["next"][0], left
        assert (tree / "data/scratch.tmp").read_text() == "mine"
        assert (tree / "other").read_text() == "one"
    (tree / "data/scratch.tmp").unlink()
    main.run("restore", "data")
    assert os.readlink(tree / "data") == "current"
