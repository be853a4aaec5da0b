"""A mirror whose partner runs as the user that owns its trees, with no right beyond."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.waiting import eventually

USER = 65_534
SOURCE = Path(__file__).parents[2] / "src"
DROPPED = (
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all", "--no-new-privs"),
)


def interpreter() -> str | None:
    """A Python of this version that any user may run; the tests' own often lies in root's home."""
    names = (
        sys.executable,
        f"/usr/bin/python3.{sys.version_info[1]}",
        f"/usr/local/bin/python3.{sys.version_info[1]}",
    )
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        return None
    for name in names:
        again = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import blake3, instep'], check=True)"
        tried = [*_as(name), "-", "-c", again]
        if (
            Path(name).exists()
            and subprocess.run(tried, capture_output=True, check=False, timeout=60).returncode == 0
        ):
            return name
    return None


def _as(python: str) -> tuple[str, ...]:
    """A command's prefix: the interpreter that comes behind it is replaced by ``python``, with the same packages."""
    packages = os.pathsep.join((str(SOURCE), *(path for path in sys.path if path.endswith("site-packages"))))
    return (*DROPPED, "sh", "-c", f'shift; PYTHONPATH={packages} exec {python} "$@"', "sh")


@pytest.fixture
def open_base() -> Iterator[Path]:
    """pytest's own directories are closed to other users."""
    top = Path(tempfile.mkdtemp(prefix="instep-few-rights-"))
    top.chmod(0o755)
    yield top
    shutil.rmtree(top)


def test_trees_of_one_user_are_served_by_that_user_without_root(open_base: Path) -> None:
    """Goal: a mirror runs whole without any capability. Method: changes of every kind, a rollback, drift, an archive
    that gives back; ``check`` has no complaint about rights."""
    python = interpreter()
    if python is None:
        pytest.skip("not root, no setpriv, or no interpreter of this version that another user may run")
    fleet = Fleet(open_base)
    try:
        for name in ("main", "s1"):
            node = fleet.node(name)
            node.prefix = _as(python)
            os.chown(open_base / name, USER, USER)
        tree = fleet.tree("main")
        _as_user(
            tree,
            "mkdir -p closed deep/er && echo one > f && echo two > deep/er/g && chmod 0555 closed && ln -s f l",
        )
        fleet.make(1)
        fleet.wait()
        fleet.assert_same()
        _as_user(
            tree,
            "echo changed > f && mv deep moved && rm l && mkdir l && echo in > l/in && chmod 0700 moved/er",
        )
        fleet.wait()
        fleet.assert_same()
        _as_user(fleet.tree("s1"), "chmod 0444 f && rm moved/er/g")
        fleet["s1"].run("verify", "data", expect=None)
        eventually(lambda: (fleet.tree("s1") / "moved/er/g").exists(), describe=fleet["s1"].log)
        fleet["s1"].await_standing("in_step")
        restored = open_base / "s1" / "found"
        fleet["s1"].run("archive", "restore", "data", "f", "--to", str(restored))
        assert (restored / "f").stat().st_uid == USER
        rows = {row["name"]: row for row in fleet["s1"].run("check", expect=None).json["checks"]}
        row = rows["rights of the daemon"]
        assert (row["ok"], row["ours"], row["theirs"]) == (
            True,
            f"uid {USER} with no capabilities",
            "what it needs",
        )
        assert {path.lstat().st_uid for path in (open_base / "s1").rglob("*")} == {USER}
    finally:
        fleet.close()


def _as_user(directory: Path, script: str) -> None:
    directory.parent.mkdir(exist_ok=True)
    run = f"umask 022; mkdir -p {directory} && cd {directory} && {script}"
    subprocess.run([*DROPPED, "sh", "-ec", run], check=True, timeout=60)
