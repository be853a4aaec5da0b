"""Going back whatever happened to the writer's tree: emptied, edited, half restored, put back to a snapshot."""

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


def without_times(tree: Path) -> dict[bytes, tuple[object, ...]]:
    return dict(tree_of(tree, with_times=False))


def test_a_rollback_brings_back_an_emptied_tree_and_publishes_exactly_its_target(fleet: Fleet) -> None:
    """Goal: the present files of the tree do not matter, but go to the archive; the guard counts against the head;
    nothing happens when all is there. Method: by hand published, so that nothing else makes generations."""
    tree = fleet.tree("main")
    write(tree, {f"sub/f{n}": f"one {n}" for n in range(40)})
    fleet.make(1, add=("--publish", "manual"))
    main, s1 = fleet.main, fleet["s1"]
    first = main.run("publish", "data").json["generation"]
    one = without_times(tree)
    write(tree, {f"more/g{n}": "two" for n in range(60)} | {"sub/f0": "two"})
    second = main.run("publish", "data", "--wait").json["generation"]
    shutil.rmtree(tree / "sub")
    shutil.rmtree(tree / "more")
    write(tree, {"unpublished": "typed by people"})
    for words in (("--dry-run",), ()):
        error = main.run("rollback", "data", str(first["number"]), *words, expect=4).error
        assert error["code"] == "max_deletions", error
        assert "--accept-deletions" in error["hint"], error
    assert sorted(p.name for p in tree.iterdir() if not p.name.startswith(".instep")) == ["unpublished"]
    done = main.run("rollback", "data", str(first["number"]), "--accept-deletions").json
    assert done["changed"] and done["generation"]["root"] == first["root"], done
    assert without_times(tree) == one
    assert "unpublished" in {item["path"] for item in main.run("archive", "list", "data").json["items"]}
    again = main.run("rollback", "data", str(first["number"])).json
    assert (again["changed"], again["generation"]["number"]) == (False, done["generation"]["number"]), again
    fleet.wait()
    assert s1.line()["live"]["root"] == first["root"] != second["root"]


def test_edits_beside_a_rollback_are_not_published_as_rolled_back(fleet: Fleet) -> None:
    """Goal: with ``publish = manual`` an unpublished edit is archived by the rollback, and is in no generation."""
    tree = fleet.tree("main")
    write(tree, {"a": "one", "b": "one"})
    fleet.make(0, add=("--publish", "manual"))
    main = fleet.main
    first = main.run("publish", "data").json["generation"]
    write(tree, {"a": "two"})
    main.run("publish", "data")
    write(tree, {"b": "half an idea", "c": "new"})
    done = main.run("rollback", "data", str(first["number"])).json
    assert done["generation"]["root"] == first["root"], done
    items = {item["path"] for item in main.run("archive", "list", "data").json["items"]}
    assert {"b", "c"} <= items, items


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


def test_contents_that_only_a_partners_archive_has_come_back(fleet: Fleet) -> None:
    """Goal: a rollback whose contents are in no history and in one partner's archive only. Method: no history at the
    writer (class data, history off), a large file among them, and a partner at an address that no node can dial."""
    tree = fleet.tree("main")
    (tree / "large").parent.mkdir(parents=True, exist_ok=True)
    (tree / "large").write_bytes(bytes(range(256)) * 12_000)
    write(tree, {"small": "one", "sub/same": "same"})
    os.symlink("small", tree / "link")
    fleet.make(1, add=("--publish", "manual"))
    main = fleet.main
    main.run("fileset", "set", "data", "history=off")
    main.run("publish", "data", "--wait")
    first, one = head(main), tree_of(tree, with_times=False)
    with (tree / "large").open("r+b") as file:
        file.write(b"overwritten in place")
    with (tree / "small").open("r+") as small:
        small.write("TWO")
    (tree / "link").unlink()
    main.run("publish", "data", "--wait")
    shutil.rmtree(main.directory.parent / ".instep-tree" / "history", ignore_errors=True)
    row = {g["number"]: g for g in main.run("log", "data").json["generations"]}[first]
    assert (row["contents"], row["restorable"]) == (["s1"], True), row
    assert main.run("rollback", "data", str(first), "--dry-run").json["changed"]
    done = main.run("rollback", "data", str(first)).json
    assert done["generation"]["root"] == root_of(main, first)
    assert tree_of(tree, with_times=False) == one
    fleet["s1"].stop()


def test_contents_that_nobody_has_are_told_by_dry_run_and_act_alike(fleet: Fleet) -> None:
    """Goal: refused before anything moves, with the path, in the same words."""
    tree = fleet.tree("main")
    (tree / "large").parent.mkdir(parents=True, exist_ok=True)
    (tree / "large").write_bytes(b"1" * 100_000)
    fleet.make(0, add=("--publish", "manual", "--class", "data"))
    main = fleet.main
    main.run("publish", "data")
    with (tree / "large").open("r+b") as file:
        file.write(b"2")
    main.run("publish", "data")
    before = tree_of(tree)
    errors = [main.run("rollback", "data", "1", *words, expect=7).error for words in (("--dry-run",), ())]
    assert errors[0] == errors[1]
    assert errors[0]["code"] == "contents_missing"
    assert errors[0]["facts"]["paths"] == ["large"]
    assert tree_of(tree) == before
    row = main.run("log", "data").json["generations"][1]
    assert (row["contents"], row["restorable"]) == ([], False)


def test_paths_of_a_generation_come_back_alone(fleet: Fleet) -> None:
    """Goal: ``restore PATH`` touches nothing else, archives what it replaces, and is published as usual."""
    tree = fleet.tree("main")
    write(tree, {"dir/a": "one", "dir/b": "one", "other": "one"})
    fleet.make(1)
    fleet.wait()
    main = fleet.main
    first = head(main)
    write(tree, {"dir/a": "two", "dir/new": "two", "other": "two"})
    fleet.wait()
    done = main.run("restore", "data", "dir", "--generation", str(first)).json
    assert done["changed"] and done["generation"]["number"] > first, done
    assert {p.name: p.read_text() for p in (tree / "dir").iterdir()} == {"a": "one", "b": "one"}
    assert (tree / "other").read_text() == "two"
    fleet.wait()
    fleet.assert_same(with_times=False)
    assert main.run("restore", "data", "dir", "--generation", str(first)).json["changed"] is False
    error = fleet["s1"].run("restore", "data", expect=4).error
    assert error["facts"]["writer"] == "main", error


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
