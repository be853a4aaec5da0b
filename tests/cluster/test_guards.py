"""A writer never publishes a disaster (P10): every guard refuses with its reason, and partners stay as they were."""

from __future__ import annotations

import os
from pathlib import Path

from instep.model.ids import FilesetName
from instep.store.sqlite import SqliteStore
from tests.support.fleet import Fleet, Node, tree_of
from tests.support.mounts import loop_ext4, mounted, need_root, rot, unmount
from tests.support.waiting import eventually


def _filled(tree: Path, count: int = 60) -> None:
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "sub").mkdir(exist_ok=True)
    for number in range(count):
        (tree / "sub" / f"f{number}").write_text(f"file {number}\n")


def _refused(fleet: Fleet, code: str, exit_code: int, *words: str) -> dict[str, object]:
    """``publish`` is refused so, the writer stands so, and the head stays."""
    head = fleet.main.line()["head"]
    error: dict[str, object] = fleet.main.run("publish", "data", *words, expect=exit_code).error
    assert error["code"] == code, error
    assert error["hint"], error
    line = fleet.main.await_standing("damaged" if exit_code == 10 else "blocked", code=code)
    assert line["reason"], line
    assert line["next"], line
    assert line["head"] == head
    assert fleet.main.run("status", "--exit-code", expect=None).code == exit_code
    return error


def test_a_root_that_is_unmounted(fleet: Fleet) -> None:
    """Goal: the mount goes away under a running writer. Method: a bind mount; refused until it is back."""
    real = fleet.base / "real"
    _filled(real)
    tree = fleet.tree("main")
    with mounted("none", tree, source=str(real), options="bind"):
        fleet.make(1)
        fleet.wait()
        before = tree_of(fleet.tree("s1"))
        unmount(tree)
        _refused(fleet, "marker_missing", 4)
        fleet.main.stop()
        fleet.main.start()
        fleet.main.await_standing("blocked", code="marker_missing")
        _refused(fleet, "marker_missing", 4, "--accept-deletions")
        assert tree_of(fleet.tree("s1")) == before
        with mounted("none", tree, source=str(real), options="bind"):
            (tree / "new").write_text("new")
            fleet.main.run("publish", "data", "--wait")
            fleet.assert_same()
            fleet.main.stop()


def test_a_file_that_cannot_be_read(fleet: Fleet) -> None:
    """Goal: an unreadable file keeps its last entry, is named by every command, and holds nothing else up; a strict
    fileset refuses instead. Method: a daemon without the right to read everything."""
    if os.geteuid() == 0:
        drop = "-dac_override,-dac_read_search"
        fleet.node("main").prefix = ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}")
    tree = fleet.tree("main")
    _filled(tree)
    fleet.make(1)
    fleet.wait()
    secret = tree / "sub" / "f1"
    secret.write_text("newer")
    secret.chmod(0)
    (tree / "new").write_text("new")
    told = fleet.main.run("publish", "data", "--wait", expect=20).json
    assert [(each["path"], each["keeps"]) for each in told["held"]] == [("sub/f1", 1)], told
    assert fleet.main.run("wait", "data", "--ok-set-aside").json["held_total"] == 1
    assert (fleet.tree("s1") / "new").read_text() == "new"
    assert (fleet.tree("s1") / "sub" / "f1").read_text() == "file 1\n"
    line = fleet.main.await_standing("held", code="paths_held")
    assert [each["path"] for each in line["held"]] == ["sub/f1"]
    assert line["next"], line
    assert fleet.main.run("status", "--exit-code", expect=None).code == 11

    fleet.main.run("fileset", "set", "data", "strict=true")
    (tree / "newer").write_text("newer")
    error = _refused(fleet, "unreadable", 4, "--accept-deletions")
    assert "sub/f1 is unreadable" in str(error["reason"])
    fleet.main.run("fileset", "set", "data", "strict=false")
    secret.chmod(0o644)
    fleet.main.run("publish", "data", "--wait")
    fleet.assert_same()
    fleet.main.await_standing("in_step")


def test_a_file_that_rots(fleet: Fleet) -> None:
    """Goal: the same stat, other bytes: found by a deep verify (exit 10), then nothing is published, across a restart
    too, until the file is taken back by the command that status names. Method: bytes flipped on the disk below the
    file system."""
    need_root("a file system of its own")
    image = fleet.base / "image"
    tree = fleet.tree("main")
    tree.parent.mkdir(parents=True)
    fleet.base.mkdir(exist_ok=True)
    with loop_ext4(image, tree.parent / "disk"):
        _rotting(fleet, image, tree.parent / "disk" / "tree")
        fleet.close()


def test_a_file_that_rots_on_a_partner_is_put_back(fleet: Fleet) -> None:
    """Goal: a deep verify on a partner finds rot under an unchanged stat, and the drift policy restores the file.
    Method: bytes flipped on the disk below the partner's file system."""
    need_root("a file system of its own")
    image = fleet.base / "image"
    at = fleet.base / "s1-disk"
    with loop_ext4(image, at):
        fleet.tree("main").mkdir(parents=True)
        (fleet.tree("main") / "rots").write_bytes(os.urandom(100_000))
        fleet.make(1, accept=False, add=("--settle", "20ms"))
        s1 = fleet["s1"]
        fleet.accept("s1", root=at / "tree")
        fleet.wait()
        # Each scan reads again what was younger than 2 s; then the stat is believed.
        eventually(
            lambda: s1.run("verify", "data").code == 0 and _is_settled(s1),
            15,
            "the stat cache to trust the file",
        )
        rot(image, at / "tree" / "rots")
        found = s1.run("verify", "data", "--deep", expect=10).json
        assert [d["path"] for d in found["nodes"][0]["differs"]] == ["rots"]
        eventually(
            lambda: tree_of(at / "tree") == tree_of(fleet.tree("main")), 15, "the rotten file to be put back"
        )
        s1.await_standing("in_step")
        assert s1.run("verify", "data", "--deep").json["identical"]
        fleet.close()


def _rotting(fleet: Fleet, image: Path, root: Path) -> None:
    _filled(root)
    fleet.tree("main").symlink_to(root)
    (root / "rots").write_bytes(os.urandom(100_000))
    main = fleet.node("main")
    main.init("--start")
    main.run("fileset", "add", "data", str(root), "--settle", "20ms", "--class", "data")
    fleet.set_poll(main, "1s")
    fleet.join("s1")
    fleet.wait()
    before = tree_of(fleet.tree("s1"))
    # Only a file that was read at rest, 2 s after its last change, can be distinguished from one that changed again.
    eventually(lambda: _is_settled(fleet.main), 15, "the stat cache to trust the file")
    rot(image, root / "rots")
    verified = main.run("verify", "data", "--deep", expect=10).json
    assert not verified["identical"]
    assert [(d["path"], d["why"]) for d in verified["nodes"][0]["differs"]] == [("rots", "damaged")]
    (root / "new").write_text("new")
    for is_restarted in (False, True):
        if is_restarted:
            main.stop()
            main.start()
        error = _refused(fleet, "damaged", 10, "--accept-deletions")
        assert "rots" in str(error["reason"])
    assert tree_of(fleet.tree("s1")) == before
    # The way back is printed, and its contents come from the partner.
    printed = next(step for step in main.line()["next"] if "instep restore" in step)
    main.run(*printed.partition("instep ")[2].split())
    assert (root / "rots").read_bytes() == (fleet.tree("s1") / "rots").read_bytes()
    main.run("publish", "data", "--wait")
    assert tree_of(fleet.tree("s1")) == tree_of(root)
    assert main.run("verify", "data", "--deep").json["identical"]


def _is_settled(node: Node) -> bool:
    store = SqliteStore(node.directory / "state" / "node.db", read_only=True)
    try:
        row = store.stat_row(FilesetName("data"), b"rots")
    finally:
        store.close()
    return row is not None and row.read_at_ns - row.ctime_ns >= 2_000_000_000
