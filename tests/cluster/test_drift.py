"""Local edits on a partner: archived, named, and put back, left, or fought over no longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def _filled(tree: Path, count: int = 20) -> Path:
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "sub").mkdir(exist_ok=True)
    for number in range(count):
        (tree / "sub" / f"f{number}").write_text(f"file {number}\n")
    os.symlink("sub/f1", tree / "link")
    return tree


def _archived(node: Node, why: str = "drift") -> dict[str, dict[str, Any]]:
    return {
        item["path"]: item for item in node.run("archive", "list", "data").json["items"] if item["why"] == why
    }


def _drift_events(node: Node) -> str:
    return "\n".join(
        f"{e['what']}: {e['text']}" for e in node.run("events").json["events"] if "drift" in e["what"]
    )


def test_edits_on_a_partner_are_put_back_and_kept(fleet: Fleet) -> None:
    """Goal: changed, added, removed, retyped and re-moded paths are archived, reported by path and put back; the
    archive gives the local work back; the writer sees it."""
    tree = _filled(fleet.tree("main"))
    fleet.make(1)
    fleet.wait()
    s1, there = fleet["s1"], fleet.tree("s1")
    (there / "sub" / "f1").write_text("local work")
    (there / "extra").write_text("precious")
    (there / "newdir" / "deep").mkdir(parents=True)
    (there / "newdir" / "deep" / "file").write_text("deep")
    (there / "sub" / "f2").unlink()
    (there / "sub" / "f3").unlink()
    (there / "sub" / "f3").mkdir()
    (there / "sub" / "f3" / "inside").write_text("inside")
    (there / "sub" / "f4").chmod(0o600)
    (there / "link").unlink()
    (there / "link").symlink_to("/etc/passwd")
    os.utime(there / "sub" / "f5", ns=(1, 1))
    os.rename(there / "sub" / "f6", there / "renamed")
    eventually(lambda: tree_of(there) == tree_of(tree), 20, lambda: f"{s1.line()}\n{s1.log()}")
    s1.await_standing("in_step")
    kept = _archived(s1)
    assert {"sub/f1", "extra"} <= set(kept), kept
    said = _drift_events(s1)
    assert "sub/f1" in said, said
    out = fleet.base / "out"
    for path, text in (
        ("sub/f1", "local work"),
        ("extra", "precious"),
        ("newdir/deep/file", "deep"),
        ("sub/f3/inside", "inside"),
    ):
        s1.run("archive", "restore", "data", path, "--to", str(out))
        found = next(p for p in out.rglob(Path(path).name) if p.is_file() and p.read_text() == text)
        found.unlink()
    # A whole directory away, and everything at once while the daemon is down.
    os.rename(there / "sub", fleet.base / "gone")
    eventually(lambda: tree_of(there) == tree_of(tree), 20, lambda: f"{s1.line()}\n{s1.log()}")
    s1.stop()
    (there / "sub" / "f7").write_text("written while it slept")
    (there / "sub" / "f8").unlink()
    (tree / "sub" / "f9").write_text("published meanwhile")
    s1.start()
    fleet.wait()
    eventually(lambda: tree_of(there) == tree_of(tree), 20, lambda: f"{s1.line()}\n{s1.log()}")
    assert "sub/f7" in _archived(s1)
    assert fleet.main.run("verify", "--fleet", "--deep").json["identical"]


def test_drift_that_is_kept_is_reported_only(fleet: Fleet) -> None:
    """Goal: with ``keep`` the standing names the path here and at the writer, nothing is touched, a newer
    generation of that path sets the local work aside in the archive, and ``revert`` puts back what is left."""
    tree = _filled(fleet.tree("main"))
    fleet.make(0)
    s1 = fleet.join("s1", accept=False)
    fleet.accept("s1", "--drift", "keep")
    fleet.wait()
    there = fleet.tree("s1")
    (there / "sub" / "f1").write_text("local work")
    (there / "extra").write_text("precious")
    line = s1.await_standing("drifted")
    assert "sub/f1" in line["reason"] or "extra" in line["reason"], line
    assert line["next"], line
    assert s1.run("status", "--exit-code", expect=None).code == 12
    assert (there / "sub" / "f1").read_text() == "local work"
    eventually(lambda: fleet.main.line()["partners"][0]["standing"] == "drifted", 10)
    assert fleet.main.run("wait", "data", "--timeout", "500ms", expect=None).code != 0
    verified = s1.run("verify", "data", expect=10).json
    assert {d["path"] for d in verified["nodes"][0]["differs"]} == {"sub/f1", "extra"}
    assert {c["path"]: c["change"] for c in s1.run("diff", "data").json["changes"]} == {
        "sub/f1": "changed",
        "extra": "added",
    }
    (tree / "sub" / "f1").write_text("published")
    (tree / "sub" / "f2").write_text("published")
    fleet.main.run("publish", "data")
    eventually(
        lambda: (there / "sub" / "f1").read_text() == "published", 20, lambda: f"{s1.line()}\n{s1.log()}"
    )
    s1.await_standing("drifted")
    assert "sub/f1" in _archived(s1)
    assert (there / "extra").read_text() == "precious"
    s1.run("fileset", "set", "data", "drift=revert")
    s1.await_standing("in_step")
    fleet.assert_same("s1")
    assert "extra" in _archived(s1)


FIGHTER = """
import os, sys, time
path = sys.argv[1]
while True:
    with open(path) as file:
        text = file.read()
    if text != "mine":
        with open(path, "w") as file:
            file.write("mine")
            file.flush()
            time.sleep(0.3)
    time.sleep(0.02)
"""


def test_a_program_that_fights_is_named(fleet: Fleet) -> None:
    """Goal: a program that rewrites its file again and again is named and the fight stops; other paths are still
    kept in step, and ``retry`` begins anew when the program is gone."""
    tree = _filled(fleet.tree("main"))
    fleet.make(1)
    fleet.wait()
    s1, there = fleet["s1"], fleet.tree("s1")
    fighter = subprocess.Popen([sys.executable, "-c", FIGHTER, str(there / "sub" / "f1")])
    try:
        line = s1.await_standing("drifted", code="drift_fight", timeout=40)
        assert "sub/f1" in line["reason"], line
        assert line["next"], line
        assert len([k for k in s1.run("archive", "list", "data").json["items"] if k["path"] == "sub/f1"]) <= 4
        eventually(lambda: (there / "sub" / "f1").read_text() == "mine", 5)
        if os.geteuid() == 0:
            assert str(fighter.pid) in line["reason"], line
        (tree / "sub" / "f2").write_text("other paths go on")
        fleet.main.run("publish", "data")
        eventually(lambda: (there / "sub" / "f2").read_text() == "other paths go on", 20, s1.log)
    finally:
        fighter.kill()
        fighter.wait()
    s1.run("retry", "data")
    s1.await_standing("in_step")
    fleet.assert_same()


def test_observing_never_writes(fleet: Fleet) -> None:
    """Goal: ``--observe`` on a different tree reports numbers and paths, also of newer generations, and leaves
    every byte, time and mode as it is; taking it over for real is one more command."""
    tree = _filled(fleet.tree("main"))
    fleet.make(0)
    s1 = fleet.join("s1", accept=False)
    there = _filled(fleet.tree("s1"))
    (there / "sub" / "f1").write_text("other")
    (there / "sub" / "f2").unlink()
    (there / "extra").write_text("precious")
    for path in tree.rglob("*"):
        if ".instep" not in path.parts and path.relative_to(tree).as_posix() not in ("sub/f1", "sub/f2"):
            os.utime(there / path.relative_to(tree), ns=(1, path.lstat().st_mtime_ns), follow_symlinks=False)
    before = _everything(there)
    accepted = s1.run("fileset", "accept", "data", str(there), "--observe").json
    assert accepted["changed"]
    line = s1.await_standing("observing", code="differs")
    assert "1 would be added, 1 changed, 1 removed" in line["reason"], line
    assert all(name in line["reason"] for name in ("sub/f1", "sub/f2", "extra")), line
    assert _everything(there) == before
    assert not (there / ".instep").exists(), "observing makes no marker and no control folder"
    assert {c["path"]: c["change"] for c in s1.run("diff", "data").json["changes"]} == {
        "sub/f1": "changed", "sub/f2": "removed", "extra": "added",
    }  # fmt: skip
    (tree / "sub" / "f3").write_text("newer")
    waited = fleet.main.run("wait", "data", "--timeout", "60s").json
    assert waited["reached"], "wait does not wait for a node that observes"
    eventually(lambda: "2 changed" in s1.line()["reason"], 20, lambda: str(s1.line()))
    (there / "sub" / "f4").write_text("edited here")
    eventually(lambda: "3 changed" in s1.line()["reason"], 20, lambda: str(s1.line()))
    assert fleet.main.line()["partners"][0]["standing"] == "observing"
    assert s1.run("status", "--exit-code", expect=None).code == 0
    after = _everything(there)
    assert {p for p in {*before, *after} if before.get(p) != after.get(p)} == {b"sub/f4"}
    fleet.accept("s1", "--replace")
    fleet.wait()
    fleet.assert_same("s1")
    out = fleet.base / "out"
    s1.run("archive", "restore", "data", "extra", "--to", str(out))
    assert (out / "extra").read_text() == "precious"


def _everything(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """The tree with the change times and inodes that no honest look changes."""
    found = tree_of(root)
    for path in found:
        about = os.lstat(os.path.join(os.fsencode(root), path))
        found[path] = (*found[path], about.st_ino, about.st_ctime_ns)
    return found
