"""``edit`` against a control server that answers what the test says: what the person wrote is never lost."""

from __future__ import annotations

import json
import os
import resource
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_server import FakeDaemon
from tests.unit.cli.test_locks import LOCK, Run, daemon, instep, node

__all__ = ["daemon", "instep", "node"]

Act = Callable[[Path], None]
GONE = {
    "code": "lock_gone",
    "exit_code": 6,
    "reason": "the lock of a.sld is no longer in force: it was broken by root@main: mine",
    "hint": "instep lock list catalog",
}
RELEASED = {"fileset": "catalog", "path": "a.sld", "changed": True, "outcome": None, "generation": None}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, daemon: FakeDaemon) -> Path:
    """The editor writes ``mine`` and runs the script ``meanwhile`` of the test."""
    editor = tmp_path / "editor.py"
    editor.write_text(
        f"import sys\nexec(open({str(tmp_path / 'meanwhile')!r}).read())\nopen(sys.argv[-1], 'w').write('mine\\n')\n"
    )
    (tmp_path / "meanwhile").write_text("")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    daemon.answer("lock", {**LOCK, "changed": True})
    daemon.answer("unlock", RELEASED)
    return tmp_path / "tree"


def _meanwhile(tree: Path, script: str) -> None:
    (tree.parent / "meanwhile").write_text(f"import os\nfile = {str(tree / 'a.sld')!r}\n{script}\n")


def _kept(error: dict[str, Any]) -> Path:
    kept = Path(error["facts"]["kept"])
    assert str(kept) in error["reason"]
    assert kept.read_text() == "mine\n"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    return kept


def _edit(instep: Run) -> tuple[int, dict[str, Any]]:
    code, out, _ = instep("edit", "catalog", "a.sld", "--json")
    assert code != 0, out
    error: dict[str, Any] = json.loads(out)["error"]
    return code, error


def test_a_lock_that_is_gone_writes_nothing(instep: Run, daemon: FakeDaemon, tree: Path) -> None:
    """Goal: asked with the token of the lock behind the editor, so that none is granted anew; the node's reason is shown."""
    daemon.replies(
        "lock",
        lambda params: [{"error": GONE} if params.get("token") else {"result": {**LOCK, "changed": True}}],
    )
    daemon.lines("unlock", {"error": GONE})
    code, error = _edit(instep)
    assert code == 6 and error["code"] == "lock_gone" and error["reason"].startswith(GONE["reason"])
    assert error["hint"] == "instep lock list catalog"
    assert (tree / "a.sld").read_text() == "before\n"
    _kept(error)


def test_a_lock_that_only_lapsed_is_asked_for_anew(instep: Run, daemon: FakeDaemon, tree: Path) -> None:
    """Goal: a save after lunch is laid where the file is as it was, and submitted under the new lock."""
    anew = "1.8." + "cd" * 16

    def answer(params: dict[str, Any]) -> list[dict[str, Any]]:
        if params.get("token"):
            return [{"error": {**GONE, "facts": {"why": "lapsed"}}}]
        token = LOCK["token"] if len([1 for name, _ in daemon.calls if name == "lock"]) == 1 else anew
        return [{"result": {**LOCK, "token": token, "changed": True}}]

    daemon.replies("lock", answer)
    code, _, err = instep("edit", "catalog", "a.sld")
    assert code == 0, err
    assert (tree / "a.sld").read_text() == "mine\n"
    assert daemon.params("unlock")["token"] == anew


@pytest.mark.parametrize(
    "script",
    [
        "open(file, 'w').write('new of the home\\n')",
        "os.remove(file)",
        "os.remove(file); os.link(file + '.victim', file)",
    ],
)
def test_a_file_that_was_changed_meanwhile_stays(
    instep: Run, daemon: FakeDaemon, tree: Path, script: str
) -> None:
    victim = tree / "a.sld.victim"
    victim.write_text("root's own\n")
    _meanwhile(tree, script)
    code, error = _edit(instep)
    assert code == 6 and error["code"] == "outdated" and error["hint"] == "instep edit catalog a.sld"
    assert victim.read_text() == "root's own\n"
    assert not (tree / "a.sld").exists() or (tree / "a.sld").read_text() != "mine\n"
    _kept(error)
    assert daemon.params("unlock")["token"] == LOCK["token"]


@pytest.mark.parametrize("script", ["os.mkfifo(file)", "os.symlink('/etc/hostname', file)", "os.mkdir(file)"])
def test_another_kind_of_object_that_came_meanwhile_is_not_opened(
    instep: Run, daemon: FakeDaemon, tree: Path, script: str
) -> None:
    """Goal: a pipe, too: the command ends."""
    _meanwhile(tree, f"os.remove(file); {script}")
    code, error = _edit(instep)
    assert code == 4 and error["code"] == "file_not_allowed"
    _kept(error)


def test_a_root_that_was_exchanged_meanwhile_is_no_change(
    instep: Run, daemon: FakeDaemon, tree: Path
) -> None:
    """Goal: an exchange of the whole root gives a file that it does not change to the new tree by a link."""
    _meanwhile(
        tree,
        "old = os.path.dirname(file)\nos.mkdir(old + '.next'); os.link(file, old + '.next/a.sld')\n"
        "os.rename(old, old + '.old'); os.rename(old + '.next', old)",
    )
    code, _, err = instep("edit", "catalog", "a.sld")
    assert code == 0, err
    assert (tree / "a.sld").read_text() == "mine\n"
    assert (tree.parent / "tree.old/a.sld").read_text() == "before\n", "the tree of before was written, too"
    assert not list((tree.parent / "state/instep").iterdir()), "the copy is gone behind a submit"


def test_a_full_disk_leaves_the_tree_and_the_text(
    instep: Run, daemon: FakeDaemon, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a limit of the file's size stands for the disk. The family of resources, and the lock is released."""
    (tree.parent / "editor.py").write_text("import sys\nopen(sys.argv[-1], 'w').write('mine\\n' * 2000)\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(params: dict[str, Any]) -> list[dict[str, Any]]:
        if params.get("token"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
        return [{"result": {**LOCK, "changed": True}}]

    def released(params: dict[str, Any]) -> list[dict[str, Any]]:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        return [{"result": RELEASED}]

    daemon.replies("lock", limited)
    daemon.replies("unlock", released)
    try:
        code, error = _edit(instep)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 8 and error["code"] == "disk_error", error
    assert (tree / "a.sld").read_text() == "before\n"
    assert os.listdir(tree) == ["a.sld"]
    assert Path(error["facts"]["kept"]).read_text() == "mine\n" * 2000


def test_a_daemon_that_went_away_keeps_the_text(instep: Run, daemon: FakeDaemon, tree: Path) -> None:
    lost = {
        "code": "home_unreachable",
        "exit_code": 7,
        "reason": "main is not connected",
        "hint": "instep check",
    }
    daemon.replies(
        "lock",
        lambda params: [{"error": lost} if params.get("token") else {"result": {**LOCK, "changed": True}}],
    )
    code, error = _edit(instep)
    assert code == 7 and error["code"] == "home_unreachable"
    assert (tree / "a.sld").read_text() == "before\n"
    _kept(error)


def test_a_submit_that_lost_keeps_the_text(instep: Run, daemon: FakeDaemon, tree: Path) -> None:
    lost = {
        "code": "outdated",
        "exit_code": 6,
        "reason": "the change was not made",
        "hint": "instep archive list",
    }
    daemon.lines("unlock", {"error": lost})
    code, error = _edit(instep)
    assert code == 6 and error["hint"] == "instep archive list"
    _kept(error)
