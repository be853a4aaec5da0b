"""``lock`` and ``edit`` against a control server that answers what the test says."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory
from tests.support.control_server import FakeDaemon

Run = Callable[..., tuple[int, str, str]]
LOCK: dict[str, Any] = {
    "fileset": "catalog", "path": "a.sld", "owner": "ana@s1", "client": "", "until": "2026-11-21T02:31:00Z",
    "token": "1.7." + "ab" * 16, "since": "2026-11-21T02:21:00Z", "reason": "",
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    found = NodeDirectory(tmp_path / "n")
    edits.create(found, {"name": "s1", "listen": "127.0.0.1:7443", "allow": []})
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.sld").write_text("before\n")
    row = {"observe": False}
    edits.accept_fileset(found, "catalog", str(tree), "main", row)
    return found


@pytest.fixture
def daemon(node: NodeDirectory) -> Iterator[FakeDaemon]:
    with FakeDaemon(node.socket).running() as running:
        yield running


@pytest.fixture
def instep(node: NodeDirectory, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("INSTEP_DIR", str(node.path))

    def call(*words: str) -> tuple[int, str, str]:
        code = run(list(words))
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_a_list_has_the_shape_of_the_contract(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer("locks", {"locks": [LOCK], "unreachable": []})
    code, out, _ = instep("lock", "list", "--json")
    assert code == 0
    row = json.loads(out)["locks"][0]
    assert {"fileset", "path", "owner", "until", "token"} <= row.keys()
    code, out, _ = instep("lock", "list")
    assert "a.sld" in out and "ana@s1" in out


def test_denied_is_exit_6_with_the_owner_and_the_time(instep: Run, daemon: FakeDaemon) -> None:
    why = {
        "code": "locked",
        "exit_code": 6,
        "reason": "a.sld is locked by ben@s2 until 02:31",
        "hint": "ask ben",
    }
    daemon.lines("lock", {"error": why})
    code, _, err = instep("lock", "acquire", "catalog", "a.sld", "--ttl", "30m")
    assert code == 6
    assert "ben@s2" in err and "ask ben" in err
    assert daemon.params("lock")["ttl_ms"] == 1_800_000
    assert "owner" not in daemon.params("lock")


def test_edit_locks_opens_the_editor_submits_and_releases(
    instep: Run, daemon: FakeDaemon, node: NodeDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the editor is an argument list, gets the file of the tree, and the same program locks and releases."""
    editor = tmp_path / "my editor.py"
    editor.write_text("import sys\nopen(sys.argv[-1], 'a').write(' '.join(sys.argv[1:-1]) + '\\n')\n")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} '{editor}' --wait '$(touch pwned)'")
    daemon.answer("lock", {**LOCK, "changed": True})
    released = {
        "fileset": "catalog",
        "path": "a.sld",
        "changed": True,
        "outcome": "applied",
        "generation": None,
    }
    daemon.answer("unlock", released)
    code, out, err = instep("edit", "catalog", "a.sld", "-m", "wider")
    assert code == 0, err
    assert "applied" in out
    assert (tmp_path / "tree" / "a.sld").read_text() == "before\n--wait $(touch pwned)\n"
    asked, ended = daemon.params("lock"), daemon.params("unlock")
    assert asked["client"] == ended["client"] != ""
    assert ended["message"] == "wider"


def test_an_editor_that_is_missing_leaves_no_lock(
    instep: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "/no/such/editor")
    daemon.answer("lock", {**LOCK, "changed": True})
    daemon.answer("unlock", {"fileset": "catalog", "path": "a.sld", "changed": True})
    code, _, err = instep("edit", "catalog", "a.sld")
    assert code == 2 and "/no/such/editor" in err
    assert daemon.params("unlock")["path"] == "a.sld"


def test_an_editor_that_fails_releases_and_says_so(
    instep: Run, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VISUAL", "false")
    daemon.answer("lock", {**LOCK, "changed": True})
    daemon.answer("unlock", {"fileset": "catalog", "path": "a.sld", "changed": True})
    code, _, err = instep("edit", "catalog", "a.sld")
    assert code == 7 and "code 1" in err and "released" in err


@pytest.mark.parametrize("path", ["link", "over/a", "pipe"])
def test_the_editor_follows_no_link_out_of_the_tree(
    instep: Run, daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Goal: another node decides where links of the tree lead, so the person's editor opens nothing through one."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a").write_text("of another")
    tree = tmp_path / "tree"
    (tree / "link").symlink_to(outside / "a")
    (tree / "over").symlink_to(outside)
    os.mkfifo(tree / "pipe")
    monkeypatch.setenv("EDITOR", "sh -c 'echo edited >> $0'")
    daemon.answer("lock", {**LOCK, "changed": True})
    daemon.answer("unlock", {"fileset": "catalog", "path": path, "changed": True})
    code, _, err = instep("edit", "catalog", path)
    assert code == 4 and "cannot be edited" in err, err
    assert (outside / "a").read_text() == "of another"
    assert daemon.params("unlock")["path"] == path
