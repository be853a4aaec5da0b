"""``rollout``, ``reload`` and what ``wait`` and ``status`` say of a rollout: text, exit codes, parameters."""

from __future__ import annotations

import json
from typing import Any

from tests.support.control_server import FakeDaemon
from tests.unit.cli.test_commands import HEAD, STATUS, Run, daemon, instep, node

__all__ = ["daemon", "instep", "node"]

FAILED = {"node": "s2", "code": "probe_failed", "reason": "answered 500"}
ROW: dict[str, Any] = {
    "generation": HEAD, "replaced": {**HEAD, "number": 41}, "author": "ana", "message": "new styles", "state": "put_back",
    "paused": False, "strategy": "rolling", "started_at": "2001-11-21T02:31:00Z", "ended_at": "2001-11-21T02:31:04Z",
    "took_ms": 4200, "permitted": ["s1", "s2"], "failed": FAILED,
}  # fmt: skip
NOW = {
    **ROW, "reason": "s2: answered 500",
    "nodes": [
        {"name": "s1", "state": "switched", "wave": 1, "drained": False, "reason": None},
        {"name": "s2", "state": "put_back", "wave": 2, "drained": True, "reason": "answered\x1b[2J 500"},
        {"name": "s3", "state": "staged", "wave": None, "drained": False, "reason": "waits"},
    ],
    "switched": 1, "total": 3, "next": ["instep retry catalog"],
}  # fmt: skip
SHOWN = {"fileset": "catalog", "rollout": NOW, "past": [ROW]}


def test_show_draws_a_bar_and_a_row_for_each_partner_and_the_past(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer("rollout_show", SHOWN)
    code, out, _ = instep("rollout", "show")
    lines = out.splitlines()
    assert code == 0
    assert lines[0].startswith("catalog   PUT BACK   generation 42 (ana, ") and lines[0].endswith(
        "rolling, took 4.2 s"
    )
    assert lines[1] == "  [##########--------------------] 1 of 3 switched"
    assert lines[2:6] == [
        "  s2: answered 500",
        "  s1  switched      wave 1",
        "  s2  put back      wave 2   drained  answered\\x1b[2J 500",
        "  s3  staged                          waits",
    ]
    assert lines[6] == "  next: instep retry catalog"
    assert lines[-1].startswith("  put back    generation 42") and lines[-1].endswith("s2: answered 500")
    assert json.loads(instep("rollout", "show", "--json")[1]) == SHOWN


def test_watching_a_rollout_prints_json_lines(instep: Run, daemon: FakeDaemon) -> None:
    daemon.lines("rollout_show", {"item": SHOWN}, {"item": SHOWN}, {"result": {}})
    code, out, _ = instep("rollout", "show", "--watch", "--json")
    *shown, last = map(json.loads, out.splitlines())
    assert (shown, code, last["error"]["code"]) == ([SHOWN, SHOWN], 7, "daemon_down")


def test_without_a_daemon_the_last_state_is_shown(instep: Run, node: Any) -> None:
    from instep.node.config.editing import edits
    from instep.store.sqlite import SqliteStore

    edits.add_fileset(node, "catalog", "/srv/catalog", {})
    node.state.mkdir(exist_ok=True)
    SqliteStore(node.database).close()
    code, out, _ = instep("rollout", "show", "--json")
    assert (code, json.loads(out)) == (0, {"fileset": "catalog", "rollout": None, "past": []})
    assert instep("rollout", "show")[1] == "catalog: no rollout yet\n"


def test_what_is_asked_reaches_the_daemon_and_twice_is_no_error(instep: Run, daemon: FakeDaemon) -> None:
    done = {"fileset": "catalog", "changed": True, "generation": HEAD, "state": "waves", "paused": True}
    daemon.answer("rollout_pause", done)
    assert instep("rollout", "pause", "catalog")[:2] == (
        0,
        "catalog: generation 42: paused; it is waves, paused\n",
    )
    daemon.answer("rollout_abort", {**done, "changed": False, "state": "aborted", "paused": False})
    assert instep("rollout", "abort", "--keep")[:2] == (
        0, "catalog: generation 42: nothing to change; it is aborted\n",
    )  # fmt: skip
    assert daemon.params("rollout_abort")["keep"] is True
    daemon.answer("rollout_abort", {**done, "dry_run": True, "going_back": ["s1", "s2"]})
    assert instep("rollout", "abort", "--dry-run")[1] == (
        "catalog: generation 42: would be aborted; s1, s2 would go back; it is waves, paused\n"
    )
    for verb in ("resume", "confirm", "retry"):
        daemon.answer(f"rollout_{verb}", done)
        assert instep("rollout", verb, "--json")[:2] == (0, json.dumps(done) + "\n")


def test_reload_names_who_failed_and_who_is_waited_for(instep: Run, daemon: FakeDaemon) -> None:
    told = {"fileset": "catalog", "generation": HEAD, "reloaded": ["main", "s1"], "waiting_for": [], "failed": [],
            "absent": ["s3"]}  # fmt: skip
    daemon.answer("reload", told)
    code, out, _ = instep("reload", "catalog", "--rolling")
    assert (code, out.splitlines()[0]) == (0, "catalog: reloaded on main, s1")
    assert daemon.params("reload") == {"fileset": "catalog", "rolling": True, "timeout_s": 300.0}
    daemon.answer("reload", {**told, "waiting_for": [{"node": "s2", "standing": "applying"}]})
    assert instep("reload")[0] == 7
    daemon.answer("reload", {**told, "failed": [FAILED]})
    code, out, _ = instep("reload")
    assert code == 4
    assert "answered 500" in out


def test_wait_ends_with_four_where_waiting_is_in_vain(instep: Run, daemon: FakeDaemon) -> None:
    waited = {"fileset": "catalog", "reached": False, "generation": HEAD, "waiting_for": [],
              "failed": {**FAILED, "state": "put_back"}}  # fmt: skip
    daemon.answer("wait", waited)
    code, out, _ = instep("wait")
    assert code == 4
    assert out.splitlines()[0] == (
        "catalog: generation 42 is not served by all: the rollout is put back: s2: answered 500"
    )
    published = {"fileset": "catalog", "changed": True, "generation": HEAD, "wait": waited}
    daemon.answer("publish", published)
    assert instep("publish", "--wait")[0] == 4
    daemon.answer("publish", {**published, "wait": {key: waited[key] for key in waited if key != "failed"}})
    assert instep("publish", "--wait")[0] == 7


def test_status_shows_the_rollout_of_a_line(instep: Run, daemon: FakeDaemon) -> None:
    fileset = STATUS["filesets"][0]
    rollout = {key: NOW[key] for key in ("state", "paused", "reason", "switched", "total", "failed", "next")}
    line = {**fileset["lines"][0], "rollout": rollout}
    daemon.answer("status", {**STATUS, "filesets": [{**fileset, "lines": [line]}]})
    lines = instep("status")[1].splitlines()
    assert lines[1:3] == [
        "  rollout put back: 1 of 3 switched; s2: answered 500",
        "  next: instep retry catalog",
    ]
