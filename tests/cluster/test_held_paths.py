"""Paths that cannot be carried, through the commands: named everywhere, nothing removed, ended by themselves."""

from __future__ import annotations

import os

from tests.support.fleet import Fleet, tree_of
from tests.support.mounts import mounted, unmount
from tests.support.waiting import eventually


def test_a_pipe_in_place_of_a_file(fleet: Fleet) -> None:
    """Goal: the file stays at the partner, every command names the pipe, and the operator can let go of the file."""
    tree = fleet.tree("main")
    (tree / "d").mkdir(parents=True)
    for number in range(3):
        (tree / "d" / f"f{number}").write_text(f"file {number}\n")
    (tree / "a b").write_text("a")
    fleet.make(1)
    fleet.wait()
    (tree / "a b").unlink()
    os.mkfifo(tree / "a b")
    os.mkfifo(tree / "new")
    (tree / "d" / "f0").write_text("newer")
    told = fleet.main.run("publish", "data", "--wait", expect=20).json
    assert [(each["path"], each["what"]) for each in told["held"]] == [("a b", "pipe")]
    assert "instep publish data --accept-held 'a b'" in told["held"][0]["next"]
    assert (fleet.tree("s1") / "a b").read_text() == "a"
    assert (fleet.tree("s1") / "d" / "f0").read_text() == "newer"
    line = fleet.main.await_standing("held", code="paths_held")
    assert [each["path"] for each in line["reported"]] == ["new"]
    for words in (("diff", "data"), ("explain", "data", "a b")):
        assert [each["path"] for each in fleet.main.run(*words).json["held"]] == ["a b"], words
    checks = {each["name"]: each for each in fleet.main.run("check", expect=4).json["checks"]}
    assert "a b is a named pipe" in checks["paths of data"]["ours"]

    error = fleet.main.run("publish", "data", "--accept-held", "d/f0", expect=4).error
    assert (error["code"], error["facts"]) == ("not_held", {"path": "d/f0"})
    fleet.main.stop()
    fleet.main.start()
    fleet.main.await_standing("held", code="paths_held")
    assert fleet.main.run("publish", "data", "--accept-held", "a b", "--wait").json["removed"] == 1
    assert not (fleet.tree("s1") / "a b").exists()
    line = fleet.main.await_standing("in_step")
    assert sorted(each["path"] for each in line["reported"]) == ["a b", "new"]
    assert fleet.main.run("check").json["ok"]


def test_a_mount_inside_the_root(fleet: Fleet) -> None:
    """Goal: a file system that is mounted over published files is named at once, removes nothing at the partner, and
    after the umount everything is in step with nothing else touched."""
    tree = fleet.tree("main")
    (tree / "archive").mkdir(parents=True)
    for number in range(5):
        (tree / "archive" / f"f{number}").write_text(f"file {number}\n")
    (tree / "top").write_text("top")
    fleet.make(1)
    fleet.wait()
    before = tree_of(fleet.tree("s1"))
    with mounted("tmpfs", tree / "archive"):
        line = fleet.main.await_standing("held", code="paths_held")
        assert [(each["path"], each["what"], each["keeps"]) for each in line["held"]] == [
            ("archive", "mount", 6)
        ]
        (tree / "archive" / "foreign").write_text("foreign")
        (tree / "top").write_text("newer")
        assert fleet.main.run("wait", "data", expect=20).json["reached"]
        assert tree_of(fleet.tree("s1")).keys() == before.keys()
        unmount(tree / "archive")
    fleet.main.await_standing("in_step")
    fleet.assert_same()


def test_a_mount_inside_a_partners_root(fleet: Fleet) -> None:
    """Goal: at a partner nothing is written into what another file system hides, the mount is named and nothing is
    said to be restored; after the umount the partner catches up."""
    tree = fleet.tree("main")
    (tree / "archive").mkdir(parents=True)
    (tree / "archive" / "f").write_text("f")
    (tree / "top").write_text("top")
    fleet.make(1)
    fleet.wait()
    s1 = fleet["s1"]
    with mounted("tmpfs", fleet.tree("s1") / "archive"):
        line = s1.await_standing("failing", code="mount_in_the_way")
        assert "umount" in line["next"][0]
        (tree / "archive" / "f").write_text("newer")
        (tree / "top").write_text("newer")
        line = s1.await_standing("failing", code="mount_in_the_way")
        assert os.listdir(fleet.tree("s1") / "archive") == []
        assert "drift_reverted" not in {each["what"] for each in s1.run("events").json["events"]}
        unmount(fleet.tree("s1") / "archive")
    eventually(lambda: tree_of(fleet.tree("s1")) == tree_of(tree), 40, "s1 to catch up after the umount")
    s1.await_standing("in_step")
