"""Command lines against a control server that answers what the test says: names, shapes, exit codes."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory
from tests.support.control_server import FakeDaemon

Run = Callable[..., tuple[int, str, str]]

HEAD = {"epoch": 1, "number": 42, "id": "aa", "root": "bb"}
STATUS: dict[str, Any] = {
    "node": "main", "daemon": "running", "config": {"state": "current"},
    "filesets": [{
        "name": "catalog", "mode": "mirror", "class": "metadata", "path": "/srv/catalog",
        "lines": [{
            "origin": "main", "writer": "main",
            "head": {
                **HEAD, "author": "ana", "message": "new styles", "published_at": "2001-11-21T02:31:00Z",
                "entries": 3, "bytes": 9,
            },
            "live": HEAD, "standing": "in_step", "reason": None, "code": None, "since": None, "next": [],
            "partners": [
                {"name": "s1", "live": HEAD, "standing": "in_step", "reason": None, "code": None, "since": None,
                 "next": [], "last_checked": None, "behind_ms": 0},
                {"name": "s2", "live": {**HEAD, "id": "cc"}, "standing": "blocked",
                 "reason": "gate geoserver: main 2.25.1, s2 2.24.0", "code": "gate",
                 "since": "2001-11-21T02:33:00Z",
                 "next": ["upgrade s2, it then goes on by itself", "instep rollback catalog 41"],
                 "last_checked": None, "behind_ms": None},
            ],
        }],
    }],
    "links": [], "offers": [], "warnings": [], "next": [],
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    found = NodeDirectory(tmp_path / "n")
    edits.create(found, {"name": "main", "listen": "127.0.0.1:7443", "allow": []})
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


def test_status_tells_what_is_wrong_and_what_to_type(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer("status", STATUS)
    code, out, _ = instep("status")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("catalog   NOT IN STEP   2 of 3 serve generation 42 (ana, ")
    assert lines[0].endswith('"new styles")')
    assert "s2  blocked since" in lines[1]
    assert lines[1].endswith("gate geoserver: main 2.25.1, s2 2.24.0")
    assert lines[2].strip() == "next: upgrade s2, it then goes on by itself; or: instep rollback catalog 41"
    assert instep("status", "--exit-code")[0] == 4
    assert json.loads(instep("status", "--json")[1]) == STATUS


@pytest.mark.parametrize(
    ("standings", "expected"),
    [
        (["in_step", "in_step"], 0),
        (["in_step", "behind"], 11),
        (["behind", "drifted"], 12),
        (["drifted", "damaged"], 10),
        (["unreachable", "in_step"], 7),
        (["in_step", "paused"], 0),
    ],
)
def test_the_exit_code_is_the_worst_of_the_fleet(
    instep: Run, daemon: FakeDaemon, standings: list[str], expected: int
) -> None:
    document = json.loads(json.dumps(STATUS))
    for row, standing in zip(document["filesets"][0]["lines"][0]["partners"], standings, strict=True):
        row.update(standing=standing, live=HEAD, code=None)
    daemon.answer("status", document)
    assert instep("status", "--exit-code")[0] == expected


def test_watching_prints_json_lines_until_the_daemon_ends(instep: Run, daemon: FakeDaemon) -> None:
    daemon.lines("status", {"item": STATUS}, {"item": STATUS}, {"result": {}})
    code, out, _ = instep("status", "--watch", "--json")
    *shown, last = map(json.loads, out.splitlines())
    assert shown == [STATUS, STATUS]
    assert (code, last["error"]["code"]) == (7, "daemon_down")


def test_publish_hands_on_its_flags_and_shows_the_outcome(instep: Run, daemon: FakeDaemon) -> None:
    outcome = {"fileset": "catalog", "changed": True, "generation": HEAD, "added": 1, "changed_paths": 2,
               "removed": 0, "bytes": 2048}  # fmt: skip
    daemon.lines(
        "publish", {"progress": {"what": "scan", "done": 1, "total": 2, "unit": "files"}}, {"result": outcome}
    )
    code, out, _ = instep("publish", "catalog", "-m", "new styles", "--accept-deletions")
    assert (code, out) == (0, "catalog: generation 42 is published: 1 added, 2 changed, 0 removed, 2.0 KiB\n")
    assert daemon.params("publish") == {
        "fileset": "catalog", "message": "new styles", "accept_deletions": True, "timeout_s": 3600.0,
    }, "a parameter with its default is left out"  # fmt: skip
    assert json.loads(instep("publish", "--json", "--wait", "--timeout", "5s")[1]) == outcome
    assert daemon.params("publish")["timeout_s"] == 5
    instep("publish", "catalog", "--accept-held", "a b", "c")
    params = daemon.params("publish")
    assert (params["accept_held"], params["held_b64"]) == (True, ["YSBi", "Yw=="])
    assert instep("publish", "catalog", "a")[0] == 2


def test_errors_of_the_daemon_keep_family_code_facts_and_hint(instep: Run, daemon: FakeDaemon) -> None:
    error = {"code": "mass_deletion", "exit_code": 4, "reason": "180 of 200 files are gone",
             "facts": {"deleted": 180, "limit": 100},
             "hint": "instep publish --accept-deletions"}  # fmt: skip
    daemon.lines("publish", {"error": error})
    code, out, err = instep("publish")
    assert (code, out) == (4, "")
    assert err.splitlines() == [
        "instep: 180 of 200 files are gone",
        "  limit: 100",
        "  next: instep publish --accept-deletions",
    ]
    code, out, err = instep("publish", "--json")
    assert (code, json.loads(out), err) == (4, {"error": error}, "")


def test_waiting_in_vain_names_who_is_missing(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer(
        "wait",
        {
            "fileset": "c",
            "reached": False,
            "generation": HEAD,
            "waiting_for": [{"node": "s2", "standing": "behind"}],
        },
    )
    code, out, _ = instep("wait", "--node", "s2", "--timeout", "1s")
    assert code == 7
    assert out.splitlines()[-1] == "  s2: behind"
    assert daemon.params("wait") == {"nodes": ["s2"], "timeout_s": 1.0}


def test_verify_and_check_exit_with_their_verdict(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer("verify", {"fileset": "c", "deep": True, "identical": False, "nodes": [
        {"name": "s1", "root": "ab", "differs": [{"path": "a\x1b[2J", "why": "contents"}]}]})  # fmt: skip
    code, out, _ = instep("verify", "--deep", "--fleet")
    assert code == 10
    assert "a\\x1b[2J: contents" in out
    assert daemon.params("verify")["deep"] is True
    row = {"name": "disk", "ok": False, "node": "main", "ours": "1%", "theirs": None, "hint": "free some"}
    daemon.answer("check", {"ok": False, "checks": [row], "took_ms": 3})
    assert instep("check")[0] == 4


def test_arguments_where_the_fileset_may_be_left_out(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer("diff", {"fileset": "c", "changes": [{"path": "b", "change": "renamed", "from": "a"}]})
    for words, expected in (
        ((), (None, None, None)), (("c",), ("c", None, None)), (("41",), (None, 41, None)),
        (("41", "42"), (None, 41, 42)), (("7", "41", "42"), ("7", 41, 42)), (("c", "41"), ("c", 41, None)),
    ):  # fmt: skip
        code, out, _ = instep("diff", *words)
        assert (code, out) == (0, "> a -> b\n")
        params = daemon.params("diff")
        assert (params.get("fileset"), params.get("a"), params.get("b")) == expected
    assert instep("diff", "c", "new")[0] == 2
    assert instep("rollback", "c", "first")[0] == 2


def test_paths_that_are_not_utf8_reach_the_daemon_whole(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer(
        "explain",
        {"fileset": "c", "path": "x", "to": [{"node": "s1", "gets": True, "via": ["main"], "why": "direct"}]},
    )
    instep("explain", "c", os.fsdecode(b"a\xff"))
    assert base64.b64decode(daemon.params("explain")["path_b64"]) == b"a\xff"


def test_commands_that_only_change_configuration_work_without_a_daemon(
    instep: Run, node: NodeDirectory, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for changed in (True, False):
        code, out, _ = instep("fileset", "add", "catalog", str(data), "--json")
        assert (code, json.loads(out)["changed"]) == (0, changed)
    assert (data / ".instep/id").exists()
    assert instep("fileset", "set", "catalog", "settle=5ms")[0] == 0
    assert instep("fileset", "set", "catalog", "settle=soon")[0] == 3
    assert json.loads(instep("allow", "add", "10.0.0.0/8", "--json")[1])["allow"] == ["10.0.0.0/8"]
    assert json.loads(instep("fileset", "list", "--json")[1])["filesets"][0]["name"] == "catalog"
    assert instep("fileset", "add", "other", str(tmp_path))[0] == 4, "it would hold the node directory"
    assert instep("fileset", "add", "other", str(tmp_path / "nothing"))[0] == 4
    both = ("fileset", "add", "other", str(tmp_path / "nothing"), "--gate", "java > 17")
    code, out, _ = instep(*both, "--json")
    why = [problem["why"] for problem in json.loads(out)["error"]["facts"]["problems"]]
    assert (code, len(why)) == (3, 2), out
    assert "is not a directory" in why[0] and "java > 17" in why[1], why
    code, _, err = instep(*both)
    assert "is not a directory" in err and "java > 17" in err, err
    assert instep("fileset", "remove", "catalog")[0] == 0
    assert data.exists()
    assert node.config.read_text().count("catalog") == 0


def test_a_running_daemon_is_told_of_the_change(instep: Run, daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.answer("reload_config", {"changed": True, "running": "aa"})
    offer = {
        "name": "c", "writer": "s9", "from": "s9", "mode": "mirror", "class": "metadata", "entries": 1, "bytes": 1,
        "accepted": False,
    }  # fmt: skip
    daemon.answer("fileset_offers", {"offers": [offer]})
    (tmp_path / "data").mkdir()
    code, _, err = instep("fileset", "add", "c", str(tmp_path / "data"))
    assert code == 4 and "c is written on s9" in err and "instep fileset accept c" in err
    daemon.answer("fileset_offers", {"offers": []})
    daemon.calls.clear()
    assert (
        json.loads(instep("fileset", "add", "c", str(tmp_path / "data"), "--json")[1])["daemon"] == "reloaded"
    )
    assert [name for name, _ in daemon.calls] == ["fileset_offers", "reload_config"]


def test_a_token_that_cannot_work_is_refused_with_the_command_that_helps(
    instep: Run, node: NodeDirectory, daemon: FakeDaemon
) -> None:
    code, out, err = instep("invite", "s1")
    assert (code, out) == (4, "")
    assert "invite s1 --from 127.0.0.1" in err
    daemon.answer("invite", {"token": "instep1-abc", "expires_at": None, "address": "127.0.0.1:7443"})
    code, out, err = instep("invite", "s1", "--from", "127.0.0.1")
    assert (code, out) == (0, "instep1-abc\n")
    assert "instep join instep1-abc" in err
    assert daemon.params("invite") == {"name": "s1", "ttl_s": 3600.0, "timeout_s": 30.0}
    assert instep("invite", "s1", "--from", "127.0.0.1", "--no-data")[0] == 0
    assert daemon.params("invite")["data"] is False
    node.config.write_text('name = "main"\nlisten = "0.0.0.0:7443"\nadvertise = "10.0.0.1:7443"\n')
    code, _, err = instep("invite", "s1", "--json")
    assert code == 4
    daemon.answer("reload_config", {"changed": True, "running": "aa"})
    assert instep("invite", "s1", "--from", "10.0.0.2")[0] == 0
    assert 'allow = ["10.0.0.2"]' in node.config.read_text()
    assert instep("invite", "main")[0] == 2


def test_what_a_later_version_will_have_is_refused_by_name(instep: Run, tmp_path: Path) -> None:
    code, _, err = instep("fileset", "add", "c", str(tmp_path), "--mode", "shared")
    assert code == 4
    assert "not in this version" in err


def test_without_a_daemon_the_next_step_is_named(instep: Run, node: NodeDirectory) -> None:
    code, out, _ = instep("publish", "--json")
    assert (code, json.loads(out)["error"]["hint"]) == (7, f"instep --dir {node.path} start")
    assert instep("nothing")[0] == 2
    assert run(["--dir", "/nowhere", "publish"]) == 3


def test_a_silent_daemon_does_not_hold_the_caller(instep: Run, daemon: FakeDaemon) -> None:
    daemon.lines("retry")
    code, _, err = instep("retry")
    assert code == 7
    assert "the daemon ended during retry" in err


def test_a_daemon_of_another_version_ends_in_a_clear_answer(instep: Run, daemon: FakeDaemon) -> None:
    answers: tuple[object, ...] = ({"fileset": "c"}, {"fileset": "c", "items": 3, "bytes": 1}, [])
    for answer in answers:
        daemon.lines("archive_list", {"result": answer})
        code, out, _ = instep("archive", "list", "--json")
        error = json.loads(out)["error"]
        assert (code, error["code"]) == (7, "other_version"), answer
        assert "instep stop, then: instep start" in error["hint"]
    older = {"code": "unknown_command", "exit_code": 2, "reason": "no command 'archive_list'", "hint": None}
    daemon.lines("archive_list", {"error": older})
    code, _, err = instep("archive", "list")
    assert (code, "instep stop, then: instep start" in err) == (2, True)
    daemon.lines("archive_list", {"result": {"fileset": "c", "items": [], "bytes": 1, "later": {"a": 1}}})
    assert instep("archive", "list")[0] == 0, "a field that a later version adds does no harm"


def test_show_names_the_fileset_that_was_typed(instep: Run, daemon: FakeDaemon) -> None:
    """Goal: it was sent under a name that the daemon does not read, which then showed its only fileset."""
    fileset = {"name": "two", "path": "/two", "writer": "main", "mode": "mirror", "class": "metadata"}
    daemon.answer("fileset_show", fileset)
    assert instep("fileset", "show", "two")[0] == 0
    assert daemon.params("fileset_show") == {"fileset": "two"}


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("wait", "--timeout", "5s"), "wait a --timeout 5s"),
        (("archive", "prune", "--dry-run"), "archive prune a --dry-run"),
        (("diff", "41", "42"), "diff a 41 42"),
    ],
)
def test_where_a_fileset_must_be_named_the_hint_is_the_command_with_each_name(
    instep: Run, daemon: FakeDaemon, words: tuple[str, ...], hint: str
) -> None:
    error = {
        "code": "which_fileset", "exit_code": 2, "reason": "there are several filesets; name one",
        "facts": {"known": ["a", "b"]}, "hint": "a, b",
    }  # fmt: skip
    daemon.lines("_".join(words[: 2 if words[0] == "archive" else 1]), {"error": error})
    code, _, err = instep(*words)
    typed = f"instep {hint}"
    assert (code, err.splitlines()[-1]) == (2, f"  next: {typed}; or: {typed.replace(' a ', ' b ')}")
