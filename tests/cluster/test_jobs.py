"""Jobs and requests of several real daemons on one database: each tick is started once, whichever node dies."""

from __future__ import annotations

import itertools
import signal
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.test_cluster_failover import Pair
from tests.cluster.test_cluster_failover import databases as databases
from tests.support.fleet import Fleet, Node
from tests.support.postgres import missing_postgres
from tests.support.shared_nodes import DATABASES, database_line, shared_nodes, signal_node
from tests.support.waiting import eventually

NAMES = ("n1", "n2", "n3")


def ticking(file: Path) -> str:
    """A job of each second that writes its tick and node into a file, with one write."""
    line = f'echo "$INSTEP_TICK $INSTEP_NODE" >> {file}'
    return f'[jobs.beat]\ncron = "* * * * * *"\nrun = ["/bin/sh", "-c", {line!r}]\n'


def lines(file: Path) -> list[tuple[str, str]]:
    rows = file.read_text().splitlines() if file.exists() else []
    return [(tick, node) for tick, node in (row.split() for row in rows)]


def has(file: Path, wanted: int) -> bool:
    return len(lines(file)) >= wanted


@pytest.mark.parametrize("kind", DATABASES)
def test_a_job_of_each_second_beside_kills(fleet: Fleet, tmp_path: Path, kind: str) -> None:
    file = tmp_path / "ticks"
    with database_line(kind, tmp_path) as line:
        nodes = shared_nodes(fleet, line, NAMES, ticking(file))
        for node, wanted in zip(itertools.islice(itertools.cycle(nodes), 4), (4, 8, 12, 16), strict=True):
            eventually(
                partial(has, file, wanted),
                describe=lambda: f"{lines(file)}\n{nodes[0].log()}",
            )
            node.kill()
            node.start()
        eventually(partial(has, file, 20), describe=lambda: str(lines(file)))
        for node in nodes:
            node.run("maintenance", "on", "--wait")
        told = nodes[0].run("job", "show", "beat", "--last", "200").json
        fleet.close()
    ticks = Counter(tick for tick, _ in lines(file))
    assert max(ticks.values()) == 1, ticks
    by_tick = {run["key"]: run for run in told["runs"]}
    assert by_tick.keys() >= ticks.keys(), "each is named"
    assert {tick: by_tick[tick]["node"] for tick, _ in lines(file)} == dict(lines(file))
    assert len(told["missed"]) <= 2, told["missed"]
    assert {run["attempt"] for run in told["runs"]} == {1}


def run_of(node: Node, job: str) -> dict[str, object]:
    found: dict[str, object] = node.run("job", "show", job).json["runs"][0]
    return found


def test_a_run_ends_in_the_ways_that_runs_end(fleet: Fleet, tmp_path: Path) -> None:
    """By hand, beside the ticks: output, exit codes, a timeout that takes a double fork with it, and unknown names."""
    escaped = tmp_path / "escaped"
    script = tmp_path / "slow"
    script.write_text(
        f'#!/bin/sh\ntrap "" TERM\n(setsid sh -c "echo \\$\\$ > {escaped}; sleep 600" &)\necho begun\nsleep 600\n'
    )
    script.chmod(0o755)
    never = 'cron = "0 0 29 2 *"\n'
    tables = (
        f'[jobs.good]\n{never}run = ["/bin/sh", "-c", "echo to stdout; echo to stderr >&2; env"]\n'
        f'[jobs.bad]\n{never}run = ["/bin/sh", "-c", "echo why; exit 7"]\n'
        f'[jobs.slow]\n{never}run = ["{script}"]\ntimeout = "3s"\n'
        f'[jobs.missing]\n{never}run = ["/no/such/program"]\n'
    )
    with database_line("sqlite", tmp_path) as line:
        (node,) = shared_nodes(fleet, line, ("n1",), tables)
        good = node.run("job", "run", "good", "--wait").json["run"]
        assert (good["state"], good["exit_code"], good["node"]) == ("done", 0, "n1")
        assert "to stdout\nto stderr\n" in good["output"]
        assert "INSTEP_JOB=good\n" in good["output"]
        assert f"INSTEP_TICK={good['key']}" in good["output"]
        bad = node.run("job", "run", "bad", "--wait", expect=1)
        assert (bad.json["run"]["exit_code"], bad.json["run"]["state"]) == (7, "failed")
        assert bad.json["run"]["output"] == "why\n"
        node.run("job", "run", "slow", "--wait", expect=7)
        slow = run_of(node, "slow")
        assert slow["state"] == "timed_out"
        assert slow["output"] == "begun\n"
        pid = int(escaped.read_text())
        eventually(lambda: is_gone(pid), describe="the process that left the group is gone")
        node.run("job", "run", "missing", "--wait", expect=1)
        assert "/no/such/program cannot be started" in str(run_of(node, "missing")["reason"])
        unknown = node.run("job", "run", "god", expect=2)
        assert unknown.error["code"] == "no_such_job"
        told = node.run("job", "list").json["jobs"]
        assert [job["name"] for job in told] == ["bad", "good", "missing", "slow"]
        assert told[0]["last"]["state"] == "failed"
        assert told[0]["next"].endswith("-02-29T00:00:00Z")
        events = node.run("events").json["events"]
        assert Counter(event["what"] for event in events if event["what"].startswith("run_")) == {
            "run_failed": 3,
            "run_ended": 1,
        }


SLEEPER = '["/bin/sh", "-c", "echo $INSTEP_ATTEMPT $$ >> {file}; exec sleep 900"]'


def pids(file: Path) -> dict[int, int]:
    """Of each attempt its process."""
    rows = file.read_text().splitlines() if file.exists() else []
    return {int(attempt): int(pid) for attempt, pid in (row.split() for row in rows)}


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_a_run_of_a_lost_node_is_ended_before_another_begins(fleet: Fleet, tmp_path: Path, how: str) -> None:
    """A daemon that is dead, or that is stopped (SIGSTOP) and cannot renew: its program ends by its guard, then another
    node begins attempt 2. The daemon that wakes records nothing over it."""
    file = tmp_path / "pids"
    job = f'[jobs.long]\ncron = "0 0 29 2 *"\nrun = {SLEEPER.format(file=file)}\non_lost = "rerun"\n'
    with database_line("sqlite", tmp_path) as line:
        first, other = shared_nodes(fleet, line, NAMES[:2], job)
        other.run("maintenance", "on")
        first.run("job", "run", "long")
        eventually(lambda: 1 in pids(file), describe="attempt 1 runs")
        other.run("maintenance", "off")
        first.run("job", "show", "long")
        signal_node(first, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        if how == "killed":
            eventually(lambda: is_gone(pids(file)[1]), 10, describe="its program ends with the daemon")
        eventually(lambda: 2 in pids(file), 90, describe=lambda: f"{pids(file)}\n{other.log()}")
        assert is_gone(pids(file)[1])
        if how == "stopped":
            signal_node(first, signal.SIGCONT)
            eventually(first.control.is_up, describe="it wakes")
        runs = other.run("job", "show", "long").json["runs"]
        assert [(run["attempt"], run["state"], run["node"]) for run in runs] == [
            (2, "running", "n2"),
            (1, "lost", "n1"),
        ]
        other.stop()
        eventually(lambda: is_gone(pids(file)[2]), describe="a daemon that stops ends its runs")


def test_requests_are_taken_once_and_nothing_starts_in_maintenance(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "taken"
    taken = (
        f'[requests.load]\nrun = ["/bin/sh", "-c", "echo $INSTEP_REQUEST_ID $INSTEP_NODE $(cat) >> {file}"]\n'
    )
    with database_line("sqlite", tmp_path) as line:
        nodes = shared_nodes(fleet, line, NAMES, taken + ticking(tmp_path / "ticks"))
        done = nodes[0].run("request", "add", "load", "first file", "--id", "r1", "--wait").json
        assert (done["run"]["state"], done["payload"]) == ("done", "first file")
        again = nodes[1].run("request", "add", "load", "other", "--id", "r1", "--wait").json
        assert (again["payload"], again["run"]["attempt"]) == ("first file", 1)
        nodes[1].run("maintenance", "on", "--cluster", "--reason", "new disks")
        for node in nodes:
            eventually(partial(in_maintenance, node), describe=lambda: nodes[0].log())
        assert nodes[2].run("request", "add", "load", "late", expect=4).error["code"] == "maintenance"
        refused = nodes[2].run("job", "run", "beat", expect=4).error
        assert (refused["code"], refused["hint"]) == (
            "maintenance",
            "end it: instep maintenance off --cluster",
        )
        for node in nodes:
            eventually(partial(is_quiet, node), describe="all is quiet")
        before = len(lines(tmp_path / "ticks"))
        nodes[0].run("maintenance", "off", "--cluster")
        assert in_maintenance(nodes[0]), "its own goes on"
        for node in nodes:
            node.run("maintenance", "off")
        eventually(lambda: not any(map(in_maintenance, nodes)), describe="maintenance ends")
        eventually(partial(has, tmp_path / "ticks", before + 2), describe="ticks start again")
        rows = nodes[2].run("request", "list", "load").json["requests"]
        assert [(row["run"]["key"], row["run"]["state"]) for row in rows] == [("r1", "done")]
        assert file.read_text().split()[0] == "r1"
        assert nodes[0].run("request", "add", "lod", "x", expect=2).error["code"] == "no_such_request"


def is_quiet(node: Node) -> bool:
    return bool(node.run("maintenance", "on").json["in_flight"] == [])


def in_maintenance(node: Node) -> bool:
    (row,) = (row for row in node.run("node", "list").json["nodes"] if row["self"])
    return any("maintenance" in reason for reason in row["drains"])


@pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres() or "postgresql is there")
def test_a_failover_that_loses_starts_begins_no_tick_twice(
    fleet: Fleet, tmp_path: Path, databases: Pair
) -> None:
    """The standby that is promoted has not heard of the last ticks. Their nodes name them again."""
    file = tmp_path / "ticks"
    nodes = shared_nodes(fleet, databases.address, NAMES, ticking(file))
    eventually(partial(has, file, 4), describe=nodes[0].log)
    databases.standby.await_all_of(databases.primary)
    databases.standby.stop_receiving()
    eventually(partial(has, file, len(lines(file)) + 3), describe="ticks that the standby does not hear of")
    databases.fail_over()
    eventually(
        partial(has, file, len(lines(file)) + 6), describe=lambda: "\n".join(node.log() for node in nodes)
    )
    for node in nodes:
        node.run("maintenance", "on", "--wait")
    ticks = Counter(tick for tick, _ in lines(file))
    assert max(ticks.values()) == 1, ticks
    told = nodes[0].run("job", "show", "beat", "--last", "200").json
    assert {run["key"]: run["node"] for run in told["runs"] if run["key"] in ticks} == dict(lines(file))
    fleet.close()
