"""``edit`` against a control server that answers what the test says: what the person wrote is never lost."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shlex
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.control_server import FakeDaemon
from tests.support.waiting import PATIENCE_S, eventually
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


WAITING = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.{term})
open(sys.argv[-1] + {beside!r}, "a").write({text!r})
open({ready!r} + ".new", "w").write(str(os.getpid()))
os.rename({ready!r} + ".new", {ready!r})
while True:
    signal.pause()
"""


class Editing:
    """``instep edit`` as a program of its own, with an editor that waits for a signal."""

    def __init__(self, tree: Path, *, text: str = "mine\n", beside: str = "", term: str = "SIG_DFL") -> None:
        self._ready = tree.parent / "ready"
        editor = WAITING.format(text=text, beside=beside, term=term, ready=str(self._ready))
        (tree.parent / "editor.py").write_text(editor)
        words = [sys.executable, "-m", "instep.cli", "edit", "catalog", "a.sld"]
        self._err = tree.parent / "err"
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a run of the tests under nohup ignores it
        try:
            with self._err.open("wb") as err:
                self.program = subprocess.Popen(words, stderr=err)
        finally:
            signal.signal(signal.SIGHUP, before)

    def __enter__(self) -> Editing:
        return self

    def __exit__(self, *_: object) -> None:
        self.program.kill()
        self.program.wait()
        if self._ready.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(self._ready.read_text()), signal.SIGKILL)

    def editor(self) -> int:
        return eventually(lambda: int(self._ready.read_text()))

    def ended(self) -> str:
        self.program.wait(PATIENCE_S)
        return self._err.read_text()


@pytest.mark.parametrize(
    ("number", "text", "beside"),
    [(signal.SIGTERM, "mine\n", ""), (signal.SIGHUP, "mine\n", ".swp"), (signal.SIGTERM, "", "")],
)
def test_a_signal_releases_the_lock_and_ends_the_editor(
    instep: Run, daemon: FakeDaemon, tree: Path, number: signal.Signals, text: str, beside: str
) -> None:
    """Goal: the saved text is kept and named, also a text that the editor itself rescued beside the file."""
    with Editing(tree, text=text, beside=beside) as editing:
        editor = os.pidfd_open(editing.editor())
        editing.program.send_signal(number)
        err = editing.ended()
        assert editing.program.returncode == 128 + number, err
        assert select.select([editor], [], [], PATIENCE_S)[0], "the editor has ended"
        os.close(editor)
    assert daemon.params("unlock")["token"] == LOCK["token"]
    assert number.name in err and "a.sld is unlocked" in err
    assert (tree / "a.sld").read_text() == "before\n"
    kept = [path for path in (tree.parent / "state/instep").rglob("*") if path.is_file()]
    assert f"kept in {kept[0].parent / 'a.sld'}" in err if text else not kept and "kept in" not in err, err


def test_an_editor_that_does_not_end_keeps_its_file(instep: Run, daemon: FakeDaemon, tree: Path) -> None:
    """Goal: and a release that fails is said, with the command that does it."""
    lost = {
        "code": "home_unreachable",
        "exit_code": 7,
        "reason": "main is not connected",
        "hint": "instep check",
    }
    daemon.lines("unlock", {"error": lost})
    with Editing(tree, text="", term="SIG_IGN") as editing:
        os.kill(editing.editor(), 0)
        editing.program.terminate()
        err = editing.ended()
    assert "main is not connected" in err and "kept in" in err
    assert list((tree.parent / "state/instep").glob("*/a.sld"))
    client = daemon.params("unlock")["client"]
    daemon.answer("unlock", RELEASED)
    words = shlex.split(err.partition("at once by: instep ")[2].splitlines()[0])
    assert instep(*words)[0] == 0 and daemon.params("unlock")["client"] == client


def test_a_signal_while_the_lock_is_asked_for_ends_what_may_be_granted(
    instep: Run, daemon: FakeDaemon, tree: Path
) -> None:
    over = threading.Event()

    def late(_: dict[str, Any]) -> list[dict[str, Any]]:
        editing.program.terminate()
        over.wait(PATIENCE_S)
        return [{"result": {**LOCK, "changed": True}}]

    def released(_: dict[str, Any]) -> list[dict[str, Any]]:
        over.set()
        return [{"result": RELEASED}]

    daemon.replies("lock", late)
    daemon.replies("unlock", released)
    with Editing(tree) as editing:
        assert "a.sld is unlocked" in editing.ended()
    asked = dict(daemon.calls)
    assert asked["unlock"]["client"] == asked["lock"]["client"] and over.is_set()


def test_an_interrupt_of_the_terminal_is_the_editor_s(instep: Run, daemon: FakeDaemon, tree: Path) -> None:
    with Editing(tree) as editing:
        editor = editing.editor()
        for number in (signal.SIGINT, signal.SIGQUIT):
            editing.program.send_signal(number)
        os.kill(editor, signal.SIGKILL)
        editing.ended()
    assert editing.program.returncode == 7, "only the end of the editor ended it"
    assert (tree / "a.sld").read_text() == "before\nmine\n"
