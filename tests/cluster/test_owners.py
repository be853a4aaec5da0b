"""Owners of files: carried by name without being asked, never root's by a peer's word, and named where they are lost."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.mounts import need_root
from tests.support.waiting import eventually

STRANGER = 54_321
"""No account has this number."""


@pytest.fixture(autouse=True)
def as_root() -> None:
    need_root("giving files to other users")


def _owned(fleet: Fleet) -> dict[str, tuple[int, int]]:
    """A tree as a web server has it: ``0640 root:www-data`` and the like. The numbers of each path."""
    web, tree = pwd.getpwnam("www-data"), fleet.tree("main")
    owned = {
        "config": (0, web.pw_gid),
        "upload": (web.pw_uid, web.pw_gid),
        "stranger": (STRANGER, STRANGER),
        "plain": (0, 0),
    }
    tree.mkdir(parents=True)
    for name, (uid, gid) in owned.items():
        (tree / name).write_text(name)
        os.chown(tree / name, uid, gid)
        os.chmod(tree / name, 0o640)
    return owned


def _numbers(root: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_uid, path.stat().st_gid) for path in root.iterdir() if path.is_file()}


def _owners_row(node: Node) -> dict[str, object]:
    rows = {row["name"]: row for row in node.run("check", expect=None).json["checks"]}
    found: dict[str, object] = rows["owners of data"]
    return found


def test_owners_arrive_by_name_and_unknown_ones_are_named(fleet: Fleet) -> None:
    """Goal: with the first commands of the guide the application can read its files. What no account stands for belongs
    to the daemon's user, and status, check and accept's settings say so; a mapping and one owner for all work live."""
    owned = _owned(fleet)
    fleet.make(1)
    s1, there = fleet["s1"], fleet.tree("s1")
    fleet.wait()
    assert _numbers(there) == {**owned, "stranger": (0, 0)}
    said = " ".join(s1.status()["warnings"])
    assert (
        f"user {STRANGER}, group {STRANGER} of data" in said or f"group {STRANGER}, user {STRANGER}" in said
    ), said
    row = _owners_row(s1)
    assert not row["ok"] and "instep fileset set data owners=" in str(row["hint"]), row
    assert _owners_row(fleet.main)["ok"]

    other = pwd.getpwnam("daemon")
    s1.run("fileset", "set", "data", f"owners={STRANGER}=daemon,:{STRANGER}=:daemon")
    eventually(lambda: _numbers(there)["stranger"] == (other.pw_uid, other.pw_gid), 20, s1.log)
    assert _numbers(there) == {**owned, "stranger": (other.pw_uid, other.pw_gid)}
    assert _owners_row(s1)["ok"]
    s1.run("fileset", "set", "data", "owners=www-data")
    web = owned["upload"]
    eventually(lambda: set(_numbers(there).values()) == {web}, 20, s1.log)
    (fleet.tree("main") / "new").write_text("new")
    fleet.wait()
    assert _numbers(there)["new"] == web
    s1.await_standing("in_step")
    assert fleet.main.run("verify", "--fleet", "--deep").json["identical"]


def test_owners_that_are_lost_are_named_on_both_sides(fleet: Fleet) -> None:
    """Goal: a writer whose settings carry none, and a partner whose settings set none, both say so."""
    _owned(fleet)
    fleet.make(1, add=("--settle", "20ms", "--preserve", "xattr"))
    main, s1 = fleet.main, fleet["s1"]
    row = _owners_row(main)
    assert row["ok"] and "instep fileset set data preserve=owner,xattr" in str(row["note"]), row
    eventually(lambda: any("owners are not carried" in each for each in main.status()["warnings"] or ()), 40)
    s1.run("fileset", "set", "data", "owners=")
    main.run("fileset", "set", "data", "preserve=owner,xattr")
    eventually(lambda: any("owners=by_name" in each for each in s1.status()["warnings"] or ()), 20, s1.log)
    assert not _owners_row(s1)["ok"]
    assert set(_numbers(fleet.tree("s1")).values()) == {(0, 0)}
    eventually(lambda: not any("owners" in each for each in main.status()["warnings"] or ()), 20)
    s1.run("fileset", "set", "data", "owners=by_name")
    eventually(lambda: len(set(_numbers(fleet.tree("s1")).values())) > 1, 20, s1.log)
