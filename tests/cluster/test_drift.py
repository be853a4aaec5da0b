"""A program on a partner that fights for its edit: named, and fought no longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.waiting import eventually


def _filled(tree: Path, count: int = 20) -> Path:
    tree.mkdir(parents=True, exist_ok=True)
    (tree / "sub").mkdir(exist_ok=True)
    for number in range(count):
        (tree / "sub" / f"f{number}").write_text(f"file {number}\n")
    os.symlink("sub/f1", tree / "link")
    return tree


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
