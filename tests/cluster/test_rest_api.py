"""The REST API of a live node, as programs use it."""

from __future__ import annotations

import getpass
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.panel import Client, panel_fleet, panel_node, with_token
from tests.support.waiting import eventually

GUIDE = Path(__file__).resolve().parents[2] / "docs/guide/automation.md"
JSON = "application/json"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A writer and a partner; the panel is the writer's."""
    with panel_fleet(tmp_path_factory.mktemp("panel")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def port(ground: Fleet) -> int:
    return panel_node(ground.main)


@pytest.fixture(scope="module")
def admin(ground: Fleet, port: int) -> Client:
    return with_token(ground.main, port, "admin", "--role", "admin")


# REST ---------------------------------------------------------------------------------------------------


def test_a_program_publishes_waits_checks_and_rolls_back(ground: Fleet, port: int, admin: Client) -> None:
    program = with_token(
        ground.main, port, "deploy", "--role", "operator", "--fileset", "data", "--ttl", "1h"
    )
    ground.main.run("fileset", "set", "data", "publish=manual")
    ground.write({"b": "b"})
    pending = program.api("GET", "/filesets/data/diff")
    assert pending.json["changes"] == [{"path": "b", "change": "added"}]
    published = program.api(
        "POST", "/filesets/data/publish", {"message": "by a program"}, If_Match=pending.headers["etag"]
    )
    assert published.status == 200, published.text
    number = published.json["generation"]["number"]
    assert program.get("/api/v1/in-step/data?wait=30s").status == 200
    told = program.api("GET", "/filesets/data/log?limit=1").json
    assert (told["generations"][0]["author"], told["next_cursor"]) == (
        f"{getpass.getuser()} by token deploy",
        "1",
    )
    assert (
        program.api("GET", "/filesets/data/log?limit=1&cursor=1").json["generations"][0]["number"]
        == number - 1
    )
    outdated = program.api("POST", "/filesets/data/publish", {}, If_Match=pending.headers["etag"])
    assert (outdated.status, outdated.code) == (412, "outdated_answer")
    back = program.api("POST", "/filesets/data/rollback", {"generation": number - 1, "message": "no"}).json
    assert back["changed"] and not (ground.tree("main") / "b").exists()
    assert program.get("/api/v1/in-step/data?wait=30s").status == 200
    audited = [
        row for row in ground.main.run("audit").json["rows"] if row["who"].endswith(" by token deploy")
    ]
    assert [(row["command"], row["outcome"]) for row in audited] == [
        ("rollback", "done"),
        ("publish", "done"),
    ]
    assert admin.api("GET", "/audit?limit=1").json["rows"][0]["door"] == "api"
    ground.main.run("fileset", "set", "data", "publish=auto")


def test_in_step_says_no_while_a_partner_is_behind(ground: Fleet, port: int, admin: Client) -> None:
    ground["s1"].run("pause", "data", "--reason", "update")
    try:
        ground.write({"c": "c"})

        def standings() -> dict[str, str]:
            told = admin.get("/api/v1/in-step/data")
            return {row["node"]: row["standing"] for row in told.json["nodes"]} if told.status == 503 else {}

        eventually(
            lambda: standings() == {"main": "in_step", "s1": "paused"}, describe=lambda: str(standings())
        )
        assert admin.get("/api/v1/in-step/data?node=main&wait=20s").status == 200
        assert admin.get("/api/v1/in-step/data?max_behind=1h").status == 503, "paused is not late"
        for path, status in (
            ("other", 404),
            ("data?node=x", 400),
            ("data?wait=soon", 400),
            ("data?x=1", 400),
        ):
            assert admin.get(f"/api/v1/in-step/{path}").status == status
    finally:
        ground["s1"].run("resume", "data")
    assert admin.get("/api/v1/in-step/data?wait=30s").status == 200


def test_an_idempotency_key_does_nothing_twice(ground: Fleet, port: int, admin: Client) -> None:
    key = {"Idempotency_Key": "drain-1"}
    first = admin.api("POST", "/nodes/main/drain", {"reason": "once"}, **key)
    assert (first.status, first.json["changed"]) == (200, True), first.text
    ground.main.run("node", "undrain")
    again = admin.api("POST", "/nodes/main/drain", {"reason": "once"}, **key)
    assert (again.json, again.headers["idempotent-replayed"]) == (first.json, "true")
    assert not any(row["drained"] for row in ground.main.run("node", "list").json["nodes"] if row["self"])
    other = admin.api("POST", "/nodes/main/drain", {"reason": "twice"}, **key)
    assert (other.status, other.code) == (422, "key_reused")
    key = {"Idempotency_Key": "token-1"}
    made = admin.api("POST", "/tokens/once", {"role": "viewer"}, **key)
    assert made.status == 200, made.text
    again = admin.api("POST", "/tokens/once", {"role": "viewer"}, **key)
    assert (again.status, again.code) == (409, "secret_was_shown")


def test_events_are_a_stream_that_resumes(ground: Fleet, port: int, admin: Client) -> None:
    page = admin.api("GET", "/events").json
    cursor = page["cursor"]
    ground.main.run("node", "drain", "--reason", "for the stream")
    ground.main.run("node", "undrain")
    waited = admin.api("GET", f"/events?after={cursor}&wait=20s&limit=1").json
    assert (waited["events"][0]["what"], waited["gap"]) == ("drained", False)
    with socket.create_connection(("127.0.0.1", port), 20) as link:
        link.sendall(
            f"GET /api/v1/events?view=rows HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n"
            f"Authorization: {admin.headers['Authorization']}\r\nLast-Event-ID: {waited['cursor']}\r\n\r\n".encode()
        )
        heard = b""
        while b"event: row" not in heard or b"undrained" not in heard:
            heard += link.recv(65_536)
    assert b"event: beat" in heard and b'"what":"drained"' not in heard
    assert f"id: {int(waited['cursor']) + 1}\n".encode() in heard
    beyond = admin.api("GET", "/events?after=999999999").json
    assert beyond["gap"] and beyond["events"] == []
    assert admin.api("GET", "/events?after=x").status == 400


def test_what_cannot_be_understood_is_a_problem_document(port: int, admin: Client) -> None:
    for told, status, code in (
        (admin.api("POST", "/filesets/data/publish", {"mesage": "x"}), 400, "unknown_parameter"),
        (admin.api("POST", "/filesets/data/pause", {"for_s": "soon"}), 400, "bad_parameter"),
        (admin.api("POST", "/filesets/data/pause", ["x"]), 400, "bad_json"),
        (admin.send("POST", "/api/v1/filesets/data/pause", b"{", Content_Type=JSON), 400, "bad_json"),
        (
            admin.send("POST", "/api/v1/filesets/data/pause", b"{}", Content_Type="text/plain"),
            415,
            "wrong_content_type",
        ),
        (admin.api("GET", "/filesets/none/log"), 404, "no_fileset"),
        (admin.api("GET", "/filesets/data/diff?a=77"), 404, "no_generation"),
        (admin.api("GET", "/filesets/data/diff?a=-1"), 400, "bad_parameter"),
        (admin.api("GET", "/filesets/%FF/log"), 400, "bad_path"),
        (admin.api("GET", "/nothing"), 404, "no_route"),
        (admin.api("DELETE", "/status"), 405, None),
        (admin.api("GET", "/filesets/data/log?limit=0"), 400, "bad_parameter"),
    ):
        assert told.status == status, told.text
        assert told.headers["content-type"] == "application/problem+json"
        assert code in (None, told.code)
        assert told.json["request_id"] == told.headers["instep-request-id"]


def test_prometheus_reads_figures_with_a_token(port: int, admin: Client) -> None:
    assert Client(port).get("/metrics").status == 401
    told = admin.get("/metrics")
    assert (told.status, told.headers["content-type"].split(";")[0]) == (200, "text/plain")
    assert 'instep_standing{fileset="data",standing="in_step"} 1' in told.text
    assert 'instep_partner_standing{fileset="data",partner="s1"' in told.text
    assert admin.get("/metrics", Accept_Encoding="gzip").headers["content-encoding"] == "gzip"


def test_the_examples_of_the_guide_run(ground: Fleet, port: int) -> None:
    """The blocks of ``docs/guide/automation.md``, with this port and this fileset."""
    blocks = re.findall(r"```(sh|python)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    shell = [text for kind, text in blocks if kind == "sh" and "curl" in text]
    (python,) = (text for kind, text in blocks if kind == "python")
    token = ground.main.run("token", "create", "guide", "--role", "operator").json["token"]
    api = f"http://127.0.0.1:{port}/api/v1"
    environment = {**os.environ, "TOKEN": token, "API": api}
    before = ground.main.line()["head"]["number"]
    first = shell[0].replace("http://127.0.0.1:7480/api/v1", api).replace("catalog", "data")
    ran = subprocess.run(
        ["sh", "-eu", "-c", first], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ground.main.line()["head"]["number"] == before + 1
    ran = subprocess.run(
        [sys.executable, "-c", python.replace("catalog", "data")], env=environment, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(before + 1), "True", "False"]
