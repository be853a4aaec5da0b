"""A standby service on real nodes: it runs once, its former holder is locked out of the database, and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.support.fleet import SOURCE, Fleet, Node
from tests.support.postgres import missing_postgres, postgres_server
from tests.support.shared_nodes import database_line, shared_nodes, signal_node
from tests.support.waiting import eventually

APP = 'echo "begin $INSTEP_LEASE_FENCE" >> {file}; exec sleep 900'


@contextmanager
def standing_by(node: Node, *program: str) -> Iterator[subprocess.Popen[str]]:
    """``instep standby run app`` as a service manager runs it."""
    with subprocess.Popen(
        [sys.executable, "-m", "instep.cli", "standby", "run", "app", "--", *program],
        env={**os.environ, "PYTHONPATH": SOURCE, "INSTEP_DIR": str(node.directory)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def begun(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.exists() else 0


def has_begun(file: Path, times: int) -> bool:
    return begun(file) >= times


def test_one_runs_and_the_other_takes_over(fleet: Fleet, tmp_path: Path) -> None:
    one_file, other_file, fenced = tmp_path / "one", tmp_path / "other", tmp_path / "fenced"
    tables = f'[standby.app]\nfence = ["/bin/sh", "-c", "echo $INSTEP_STANDBY $INSTEP_NODE >> {fenced}"]\n'
    with database_line("sqlite", tmp_path) as line:
        one, other = shared_nodes(fleet, line, ("n1", "n2"), tables)
        with standing_by(one, "/bin/sh", "-c", APP.format(file=one_file)) as first:
            eventually(partial(has_begun, one_file, 1), describe=one.log)
            with standing_by(other, "/bin/sh", "-c", APP.format(file=other_file)) as second:
                eventually(partial(_leads, other, "n1"), describe="the other waits")
                assert begun(other_file) == 0
                other.run("maintenance", "on")
                first.send_signal(signal.SIGTERM)
                assert first.wait(60) == 128 + signal.SIGTERM
                other.run("maintenance", "off")
                eventually(partial(has_begun, other_file, 1), describe=other.log)
                assert fenced.read_text().splitlines() == ["app n1", "app n2"]
                other.run("lease", "break", "standby:app", "--reason", "a test")
                eventually(
                    partial(has_begun, other_file, 2), 90, describe="it stands by again, and begins again"
                )
                second.send_signal(signal.SIGTERM)
                assert second.wait(60) == 128 + signal.SIGTERM


def _leads(node: Node, holder: str) -> bool:
    return any(one["holder"] == holder for one in node.run("lease", "list").json["leases"])


@pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres())
def test_the_former_holder_cannot_write_any_more(fleet: Fleet, tmp_path: Path) -> None:
    """Node and application are stopped together (SIGSTOP), as a paused machine is. The other node takes over; the
    application that wakes up has no session any more and cannot log in."""
    tables = '[standby.app]\nroles = { n1 = "app_n1", n2 = "app_n2" }\n'
    with postgres_server() as server:
        server.ask("CREATE ROLE app_n1 LOGIN; CREATE ROLE app_n2 LOGIN; CREATE TABLE work (who text);")
        server.ask("GRANT INSERT ON work TO app_n1, app_n2;")
        one, other = shared_nodes(fleet, server.dsn(), ("n1", "n2"), tables)
        writer = 'import asyncio, asyncpg\nasync def go(dsn):\n c = await asyncpg.connect(dsn)\n while True:\n  await c.execute("INSERT INTO work VALUES (current_user); SELECT pg_sleep(0.05)")\nasyncio.run(go(%r))\n'
        rows = partial(_rows, server)
        with standing_by(one, sys.executable, "-c", writer % server.dsn(user="app_n1")) as first:
            eventually(lambda: rows("app_n1") > 3, describe=one.log)
            with standing_by(other, sys.executable, "-c", writer % server.dsn(user="app_n2")):
                eventually(partial(_leads, other, "n1"), describe="the other waits")
                group = _child_of(first.pid)
                first.send_signal(signal.SIGSTOP)
                signal_node(one, signal.SIGSTOP)
                os.kill(group, signal.SIGSTOP)
                eventually(lambda: rows("app_n2") > 3, 90, describe=other.log)
                before = rows("app_n1")
                os.kill(group, signal.SIGCONT)
                eventually(
                    lambda: not _lives(group), describe="the application ends, for its session is gone"
                )
                assert rows("app_n1") == before
                assert server.ask("SELECT rolcanlogin FROM pg_roles WHERE rolname = 'app_n1'").strip() == "f"
                signal_node(one, signal.SIGCONT)
                first.send_signal(signal.SIGCONT)
        fleet.close()


def _rows(server: object, who: str) -> int:
    return int(server.ask(f"SELECT count(*) FROM work WHERE who = '{who}'"))  # type: ignore[attr-defined]


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
