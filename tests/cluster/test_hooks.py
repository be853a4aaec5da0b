"""Hooks around an apply: validate holds, probe puts back, one reload for a burst, timeouts with a name."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def _script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def _hooks(node: Node, **hooks: str) -> None:
    path = node.directory / "instep.toml"
    lines = "\n".join(f"{kind} = {{ {what} }}" for kind, what in hooks.items())
    path.write_text(
        path.read_text().split("\n[filesets.data.hooks]")[0] + f"\n[filesets.data.hooks]\n{lines}\n"
    )
    node.run("config", "reload")


def is_gone(pid: str) -> bool:
    """Whether a process has ended, also when its parent did not reap it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _start(fleet: Fleet) -> tuple[Path, Path, Node]:
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("good")
    fleet.make(1)
    fleet.wait()
    return tree, fleet.tree("s1"), fleet["s1"]


def test_validate_holds_and_probe_puts_back(fleet: Fleet) -> None:
    """Goal: a failing ``validate`` keeps the tree as it is; a failing ``probe`` puts the replaced generation back and
    keeps the refusal; ``retry`` and a newer generation go on. Method: programs that look at the tree."""
    _, there, s1 = _start(fleet)
    seen = fleet.base / "seen"
    validate = _script(
        fleet.base / "validate",
        f'cat >> {seen}; echo >> {seen}; tr "\\0" "\\n" < "$INSTEP_CHANGED" >> {seen}.changed\n'
        f'echo "the catalogue is broken" >&2; test ! -e {fleet.base}/closed',
    )
    (fleet.base / "closed").touch()
    probe = _script(fleet.base / "probe", '! grep -q bad "$INSTEP_PATH/file"')
    reload = _script(
        fleet.base / "reload",
        f'cat "$INSTEP_PATH/file" >> {fleet.base}/reloaded; echo >> {fleet.base}/reloaded',
    )
    _hooks(s1, validate=f'run = ["{validate}"]', reload=f'run = ["{reload}"]', probe=f'run = ["{probe}"]')
    reloaded = fleet.base / "reloaded"
    eventually(lambda: reloaded.exists() and reloaded.read_text() == "good\n", 30, s1.log)
    reloaded.unlink()  # a hook that is added runs once for the present generation
    first = fleet.head()
    fleet.write({"file": "second", "more\nnames": "more"})
    second = fleet.publish()
    line = s1.await_standing("failing", "held", "blocked", code="validate_failed")
    assert "validate" in line["reason"] and line["next"], line
    assert (there / "file").read_text() == "good"
    assert not (there / "more\nnames").exists()
    assert not (fleet.base / "reloaded").exists()
    told = json.loads(seen.read_text().splitlines()[0])
    assert (told["fileset"], told["generation"], told["previous"]) == ("data", second, first), told
    assert {"file", "more\nnames"} <= {c["path"] if isinstance(c, dict) else c for c in told["changed"]}, told
    assert "the catalogue is broken" in str(s1.run("events").json["events"])
    eventually(lambda: fleet.main.line()["partners"][0]["code"] == "validate_failed", 20, fleet.main.log)
    (fleet.base / "closed").unlink()
    fleet.main.run("retry", "data", "--node", "s1")
    s1.await_standing("in_step")
    assert (there / "file").read_text() == "second"
    assert (fleet.base / "reloaded").read_text() == "second\n"
    # The probe refuses the third generation.
    before = tree_of(there)
    fleet.write({"file": "bad", "new": "new"})
    third = fleet.publish()
    line = s1.await_standing("failing", code="probe_failed")
    eventually(lambda: tree_of(there) == before, 20, lambda: f"{s1.line()}\n{s1.log()}")
    line = s1.await_standing("failing", code="probe_failed")
    assert line["live"]["number"] == second and line["head"]["number"] == third, line
    assert f"rollback data {second}" in str(line["next"]), line
    eventually(lambda: (fleet.base / "reloaded").read_text() == "second\nbad\nsecond\n", 10)
    tries = len([e for e in s1.run("events").json["events"] if e["what"] == "hook_failed"])
    s1.stop()
    s1.start()
    line = s1.await_standing("failing", code="probe_failed")
    assert len([e for e in s1.run("events").json["events"] if e["what"] == "hook_failed"]) == tries, (
        "it is remembered"
    )
    assert tree_of(there) == before
    fleet.main.run("rollback", "data", str(second))
    fleet.wait()
    s1.await_standing("in_step")
    fleet.write({"file": "fourth"})
    fleet.wait()
    fleet.assert_same()


def test_a_burst_reloads_once_and_a_timeout_has_a_name(fleet: Fleet) -> None:
    """Goal: many publishes while a slow reload runs cause one more reload; a hook that hangs is ended and named with
    its limit, retried, and the program group is gone."""
    _, there, s1 = _start(fleet)
    count, gate, pids = (fleet.base / name for name in ("count", "gate", "pids"))
    reload = _script(
        fleet.base / "reload",
        f"echo $INSTEP_GENERATION >> {count}; while [ ! -e {gate} ]; do sleep 0.05; done",
    )
    _hooks(s1, reload=f'run = ["{reload}"], timeout = "30s"')
    fleet.write({"file": "0"})
    fleet.publish()
    eventually(count.exists, 20, s1.log)
    for number in range(1, 6):
        fleet.write({"file": str(number)})
        fleet.publish()
    gate.touch()
    fleet.wait()
    fleet.assert_same()
    assert len(count.read_text().split()) <= 3, count.read_text()
    assert count.read_text().split()[-1] == str(fleet.main.line()["head"]["number"])
    hang = _script(fleet.base / "hang", f"echo $$ >> {pids}; sleep 1000 & wait")
    _hooks(s1, validate=f'run = ["{hang}"], timeout = "300ms"')
    fleet.write({"file": "hangs"})
    fleet.publish()
    line = s1.await_standing("failing", "held", "blocked", code="validate_failed")
    assert "300" in line["reason"] or "0.3" in line["reason"], line
    assert (there / "file").read_text() == "5"
    _hooks(s1)
    # As long as the writer has the failing report, wait says at once that the generation does not arrive.
    eventually(lambda: fleet.main.line()["partners"][0]["standing"] == "in_step", 30, s1.log)
    fleet.wait()
    fleet.assert_same()
    eventually(lambda: all(is_gone(pid) for pid in pids.read_text().split()), 20, pids.read_text)


def test_the_writers_own_hooks(fleet: Fleet) -> None:
    """Goal: at the writer a failing ``validate`` or ``reload`` stops the publish (exit 4), nothing is announced."""
    _, there, _ = _start(fleet)
    check = _script(fleet.base / "check", '! grep -q bad "$INSTEP_PATH/file"')
    failure = _script(fleet.base / "failure", f"cat >> {fleet.base}/told")
    _hooks(fleet.main, validate=f'run = ["{check}"]', on_failure=f'run = ["{failure}"]')
    first = fleet.head()
    fleet.write({"file": "bad"})
    error = fleet.main.run("publish", "data", expect=4).error
    assert error["code"] == "validate_failed", error
    line = fleet.main.await_standing("blocked", "failing", code="validate_failed")
    assert line["head"]["number"] == first
    assert (there / "file").read_text() == "good"
    told = fleet.base / "told"
    eventually(lambda: told.exists() and "validate_failed" in told.read_text(), 10, fleet.main.log)
    fleet.write({"file": "mended"})
    fleet.wait()
    fleet.assert_same()


class _Application(ThreadingHTTPServer):
    """Answers as the test sets it and records the requests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        self.status = 200
        self.text = "WMS_Capabilities"
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Application

    def _answer(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.text.encode())

    do_GET = do_POST = _answer  # noqa: N815 - names of http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of http.server
        """Nothing on the test's stderr."""


@contextmanager
def _application() -> Iterator[_Application]:
    server = _Application()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_http_hooks(fleet: Fleet) -> None:
    """Goal: ``reload`` by POST with credentials from a file, retried; ``probe`` by GET that looks at status and body;
    the secret stands in no status, event or log."""
    _, there, s1 = _start(fleet)
    auth = fleet.base / "auth"
    auth.touch(0o600)
    auth.write_text("admin:hunter2\n")
    with _application() as app:
        url = f"http://127.0.0.1:{app.server_address[1]}"
        _hooks(
            s1,
            reload=f'http = "POST {url}/reload", auth_file = "{auth}", retries = 1',
            probe=f'http = "GET {url}/ows?x=1", expect_status = 200, expect_body = "WMS_Capabilities"',
        )
        eventually(
            lambda: len(app.asked) == 1, 30, s1.log
        )  # an added hook runs once for the present generation
        app.asked.clear()
        fleet.write({"file": "2"})
        fleet.wait()
        assert [(a[0], a[1]) for a in app.asked] == [("POST", "/reload"), ("GET", "/ows?x=1")]
        assert app.asked[0][2]["Authorization"].startswith("Basic ")
        app.asked.clear()
        app.text = "ServiceException"
        fleet.write({"file": "3"})
        fleet.publish()
        line = s1.await_standing("failing", code="probe_failed")
        eventually(lambda: (there / "file").read_text() == "2", 20, s1.log)
        app.text = "WMS_Capabilities"
        s1.run("retry", "data")
        s1.await_standing("in_step")
        assert (there / "file").read_text() == "3"
        app.status = 500
        fleet.write({"file": "4"})
        fleet.publish()
        line = s1.await_standing("failing", code="reload_failed", timeout=40)
        assert "500" in line["reason"] and app.text in line["reason"], line
        assert app.text in fleet.main.run("status").stdout + s1.run("events").stdout
        app.status = 200
    said = s1.run("events").stdout + s1.run("status").stdout + (s1.directory / "daemon.log").read_text()
    assert "hunter2" not in said
