"""``log FILESET PATH`` in words, and what it asks the daemon."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from tests.support.control_server import FakeDaemon
from tests.unit.cli.test_commands import HEAD, Run, daemon, instep, node

__all__ = ["daemon", "instep", "node"]

FULL = {
    **HEAD,
    "author": "ana",
    "message": "new styles",
    "published_at": "2001-11-21T02:31:00Z",
    "entries": 2,
    "bytes": 9,
}
ROW: dict[str, Any] = {
    **FULL, "path": "a\ufffd", "path_b64": "Yf8=", "change": "changed", "size": 5, "modified_at": None, "after": 39,
}  # fmt: skip
FIRST = {**FULL, "number": 7, "path": "b", "change": "renamed", "from": "\x1bc", "message": ""}
NODES = [
    {"name": "main", "live": 42, "version": 42}, {"name": "s1", "live": 40, "version": 7},
    {"name": "s2", "live": None, "version": None},
]  # fmt: skip


def test_the_log_of_a_path(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer("path_log", {"fileset": "c", "path": "a", "generations": [ROW, FIRST], "nodes": NODES})
    code, out, err = instep("log", "c", os.fsdecode(b"a\xff/"))
    assert not err
    head, first, second, last = [line.split() for line in out.splitlines()]
    assert code == 0 and base64.b64decode(daemon.params("path_log")["path_b64"]) == b"a\xff"
    assert head[-2:] == ["SERVED", "BY"]
    assert (first[0], first[3:]) == ("42", ["ana", "changed", "(after", "39)", "5", "new", "styles", "main"])
    assert (second[0], second[4:]) == ("7", ["renamed", "from", "\\x1bc", "s1"])
    assert last[-1] == "s2"
    assert json.loads(instep("log", "c", "a", "--json")[1])["nodes"] == NODES


def test_without_a_daemon_a_path_of_no_generation_is_named(instep: Run, node: Any, tmp_path: Any) -> None:
    from instep.store.sqlite import SqliteStore

    (tmp_path / "data").mkdir()
    assert instep("fileset", "add", "catalog", str(tmp_path / "data"))[0] == 0
    SqliteStore(node.database).close()
    code, _, err = instep("log", "catalog", "a")
    assert (code, "no generation that is known here has a" in err) == (2, True), err


def test_an_export_says_which_generations_are_left_out(instep: Run, daemon: FakeDaemon) -> None:
    done = {
        "fileset": "c", "to": "/a b", "changed": True, "written": [3, 4], "left_out": ["x/.git/\x1b"], "left_out_total": 1,
        "skipped": [{"number": 2, "reason": "gone"}],
    }  # fmt: skip
    daemon.answer("export_git", done)
    code, out, _ = instep("log", "c", "--git", "/a b")
    assert (code, daemon.params("export_git")["to"]) == (20, "/a b")
    assert out.splitlines() == [
        "c: 2 generations became commits; see: git --git-dir '/a b' log --stat",
        "  generation 2 is left out: gone",
        "  git takes no path with .git in it: 1 path: x/.git/\\x1b",
    ]
    daemon.answer("export_git", {**done, "skipped": [], "left_out": [], "written": []})
    assert instep("log", "c", "--git", "d")[:2] == (
        0,
        "c: nothing new; see: git --git-dir '/a b' log --stat\n",
    )
    assert instep("log", "c", "a", "--git", "d")[0] == 2
