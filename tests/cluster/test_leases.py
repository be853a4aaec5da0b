"""Leases with real daemons on one machine: commands under a lease, and everything that can become of their parents."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import SOURCE, Answer, Fleet, Node
from tests.support.leases import Stamps, share_database
from tests.support.waiting import eventually

TTL_MS = 5_000
SLACK_MS = 2_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    base = tmp_path_factory.mktemp("leases")
    fleet = Fleet(base)
    try:
        one, other = share_database(fleet, ("a", "b"), f"sqlite:{base}/cluster.db")
        yield one, other
    finally:
        fleet.close()


@pytest.fixture
def stamps(tmp_path: Path) -> Iterator[Stamps]:
    made = Stamps(tmp_path / "stamps")
    try:
        yield made
    finally:
        made.close()


def held_by(node: Node, lease: str) -> str | None:
    rows = node.run("lease", "list").json["leases"]
    return next((row["holder"] for row in rows if row["name"] == lease), None)


def run(node: Node, lease: str, *words: str, expect: int, options: tuple[str, ...] = ()) -> Answer:
    """``lease run --json``: options of the command line come before the words of the command."""
    return node.run("lease", "run", "--json", lease, *options, "--", *words, expect=expect, json=False)


def test_a_command_has_its_own_exit_code_and_knows_its_lease(pair: tuple[Node, Node], tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f'echo "$INSTEP_LEASE $INSTEP_LEASE_FENCE $0" > {told}; exit 37'
    run(pair[0], "codes", "/bin/sh", "-c", script, "--json", expect=37)
    assert told.read_text() == "codes 1.1 --json\n"
    run(pair[1], "codes", "/bin/sh", "-c", script, expect=37)
    assert told.read_text().startswith("codes 1.2 ")
    assert run(pair[0], "codes", "/no/such/program", expect=8).error["code"] == "command_not_started"
    assert held_by(pair[0], "codes") is None


def test_while_one_node_holds_a_lease_another_is_refused_or_waits(
    pair: tuple[Node, Node], stamps: Stamps
) -> None:
    one, other = pair
    first = stamps.run(one, "first")
    stamps.await_running("first")
    refused = run(other, "index", "/bin/true", expect=6).error
    assert (refused["code"], refused["facts"]["holder"]) == ("lease_held", "a")
    gave_up = run(other, "index", "/bin/true", expect=7, options=("--wait", "--timeout", "100ms")).error
    assert gave_up["code"] == "timeout"
    assert run(one, "index", "/bin/true", expect=6).error["code"] == "lease_held", "one a node too"
    second = stamps.run(other, "second", "--wait")
    first.signal(signal.SIGTERM)
    first.ended(128 + signal.SIGTERM)
    stamps.await_running("second")
    assert stamps.first("second") - stamps.last("first") < SLACK_MS
    second.signal(signal.SIGINT)
    second.ended(128 + signal.SIGINT)
    stamps.assert_apart()


def test_a_broken_lease_stops_the_command_whatever_it_has_become(
    pair: tuple[Node, Node], stamps: Stamps
) -> None:
    one, other = pair
    first = stamps.run(one, "first", lease="broken", stubborn="term fork")
    stamps.await_running("first")
    waiting = stamps.run(other, "second", "--wait", lease="broken")
    document = other.run("lease", "break", "broken", "--reason", "a test").json
    assert (document["changed"], document["holder"]) == (True, "a")
    said = first.ended(6)
    assert "was lost" in said
    stamps.await_running("second")
    stamps.assert_apart()
    assert "lease_broken" in other.run("events").stdout
    waiting.signal(signal.SIGTERM)
    waiting.ended(128 + signal.SIGTERM)
    assert not other.run("lease", "break", "broken", "--reason", "a test").json["changed"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_daemon_ends_a_command_whose_parent_was_killed_or_stopped(
    pair: tuple[Node, Node], stamps: Stamps, number: signal.Signals
) -> None:
    one, other = pair
    lease = f"parent-{number.value}"
    first = stamps.run(one, "first", lease=lease, stubborn="term")
    stamps.await_running("first")
    stamps.run(other, "second", "--wait", lease=lease)
    first.signal(number)
    if number == signal.SIGSTOP:
        one.run("lease", "break", lease, "--reason", "it would be renewed for ever")
    stamps.await_running("second")
    assert stamps.first("second") - stamps.last("first") < TTL_MS + SLACK_MS
    stamps.assert_apart()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_command_whose_parent_and_daemon_are_killed_or_stopped_at_once_is_ended(
    pair: tuple[Node, Node], stamps: Stamps, number: signal.Signals
) -> None:
    """Goal: its guard ends it with the child of its own session before another node has the lease."""
    one, other = pair
    lease = f"both-{number.value}"
    first = stamps.run(one, "first", lease=lease, stubborn="term fork")
    stamps.await_running("first")
    stamps.run(other, "second", "--wait", lease=lease)
    daemon = one.pid
    assert daemon is not None
    try:
        first.signal(number)
        os.kill(daemon, number)
        stamps.await_running("second")
        assert stamps.first("second") - stamps.last("first") < TTL_MS + SLACK_MS
        stamps.assert_apart()
    finally:
        if number == signal.SIGSTOP:
            os.kill(daemon, signal.SIGCONT)
        else:
            one.await_death()
            one.start()


def test_a_command_whose_daemon_was_killed_is_stopped_before_the_lease_passes_on(
    pair: tuple[Node, Node], stamps: Stamps
) -> None:
    one, other = pair
    first = stamps.run(one, "first", lease="daemon")
    stamps.await_running("first")
    stamps.run(other, "second", "--wait", lease="daemon")
    one.kill()
    assert "was lost" in first.ended(6)
    stamps.await_running("second")
    assert stamps.first("second") - stamps.last("first") < TTL_MS + SLACK_MS
    stamps.assert_apart()
    one.start()
    eventually(lambda: held_by(one, "daemon") == "b")


def test_what_a_command_leaves_running_ends_with_it(pair: tuple[Node, Node], stamps: Stamps) -> None:
    program = f"import sys; exec(open({str(stamps.path)!r} + '.py').read())"
    script = stamps.path.with_name(stamps.path.name + ".py")
    script.write_text(
        "import os, sys, time\n"
        "if os.fork():\n    time.sleep(0.3)\n    sys.exit(0)\n"
        "os.setsid()\n"
        "while True:\n"
        f"    fd = os.open({str(stamps.path)!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "    os.write(fd, f'left {time.monotonic_ns() // 1_000_000}\\n'.encode())\n"
        "    os.close(fd)\n    time.sleep(0.01)\n"
    )
    run(pair[0], "left", "/usr/bin/env", "python3", "-c", program, expect=0)
    stamps.await_still("left")


def test_a_holder_that_was_stopped_for_three_lives_is_refused_its_next_guarded_step(
    pair: tuple[Node, Node], stamps: Stamps, tmp_path: Path
) -> None:
    """The daemon and the command, with its children, stand still as on a paused machine; then they go on."""
    one, other = pair
    ready, go, code = tmp_path / "ready", tmp_path / "go", tmp_path / "code"
    check = f"{sys.executable} -m instep.cli lease check"
    script = f"{check} && touch {ready}; while ! test -e {go}; do sleep 0.05; done; {check}; echo $? > {code}"
    arguments = [
        "--dir",
        str(one.directory),
        "lease",
        "run",
        "guarded",
        "--ttl",
        "5s",
        "--",
        "/bin/sh",
        "-c",
        script,
    ]
    held = subprocess.Popen(
        [sys.executable, "-m", "instep.cli", *arguments],
        env={**os.environ, "PYTHONPATH": SOURCE},
        process_group=0,
    )
    eventually(ready.exists, describe="the first guarded step")
    daemon = one.pid
    assert daemon is not None
    child = children_of(held.pid)[0]
    frozen = [daemon, held.pid]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    os.killpg(child, signal.SIGSTOP)
    second = stamps.run(other, "second", "--wait", lease="guarded")
    stamps.await_running("second")
    go.touch()
    os.killpg(child, signal.SIGCONT)
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)
    assert held.wait(60) in (6, 128 + signal.SIGKILL)
    assert not code.exists() or code.read_text() in ("", "6\n")
    second.signal(signal.SIGTERM)
    second.ended(128 + signal.SIGTERM)
    assert one.run("lease", "check", expect=2).error["code"] == "no_lease_here"


def children_of(process: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def test_a_copied_node_directory_is_refused_in_the_database(pair: tuple[Node, Node], tmp_path: Path) -> None:
    """The two copies never meet but there."""
    one, _ = pair
    copied = Node("a", tmp_path / "copy")
    shutil.copytree(one.directory, copied.directory, ignore=shutil.ignore_patterns("*.sock", "*.pid"))
    port = f"127.0.0.1:{copied.port}"
    settings = copied.directory / "instep.toml"
    settings.write_text(re.sub(r'listen = ".*"', f'listen = "{port}"', settings.read_text()))
    copied.start()
    try:
        refused = run(copied, "copied", "/bin/true", expect=5).error
        assert refused["code"] == "identity_in_use"
        assert copied.status()["database"]["code"] == "identity_in_use"
        run(one, "copied", "/bin/true", expect=0)
    finally:
        copied.kill()


def test_a_joining_node_brings_the_database_of_the_inviting_node_or_changes_nothing(
    pair: tuple[Node, Node], fleet: Fleet, tmp_path: Path
) -> None:
    one, _ = pair
    token = one.run("invite", "c", "--from", "127.0.0.1").json["tokens"][0]["token"]
    joining = fleet.node("c")
    words = ("join", token, "--listen", f"127.0.0.1:{joining.port}", "--panel", "off", "--cluster-file")
    file = tmp_path / "address"
    file.write_text(f"sqlite:{tmp_path}/other.db\n")
    assert joining.run(*words, str(file), expect=3).error["code"] == "cluster_file_mode"
    file.chmod(0o600)
    assert joining.run(*words, str(file), expect=8).error["code"] == "cluster_not_writable"
    (tmp_path / "other.db").touch()
    assert joining.run(*words, str(file), expect=4).error["code"] == "cluster_empty"
    fleet.node("d").init()
    settings = fleet["d"].directory / "instep.toml"
    settings.write_text(f'cluster_file = "{file}"\n' + settings.read_text())
    fleet["d"].start()
    eventually(lambda: is_reached(fleet["d"]))
    assert joining.run(*words, str(file), expect=4).error["code"] == "cluster_other"
    assert not joining.directory.exists()
    joining.run(*words, str(one.directory / "cluster"))
    joining.start()
    eventually(lambda: is_reached(joining))
    assert joining.run("join", *words[1:], str(one.directory / "cluster")).json["changed"] is False


def is_reached(node: Node) -> bool:
    return bool(node.status().get("database", {}).get("reached"))


def test_a_node_alone_has_a_database_of_its_own_made_when_it_is_first_needed(fleet: Fleet) -> None:
    node = fleet.node("alone")
    node.init()
    node.start()
    own = node.directory / "state/cluster.db"
    assert "database" not in node.status()
    assert not own.exists()
    run(node, "mine", "/bin/true", expect=0)
    assert own.stat().st_mode & 0o777 == 0o600
    assert is_reached(node)
    node.kill()
    node.start()
    run(node, "mine", "/bin/true", expect=0)


def test_check_names_a_file_of_the_database_that_others_may_read_by_now(pair: tuple[Node, Node]) -> None:
    """The connection stands since before: only a look at the file itself finds it."""
    node = pair[1]
    assert held_by(node, "nothing") is None
    file = node.directory / "cluster"
    file.chmod(0o644)
    try:
        (row,) = (
            row for row in node.run("check", expect=4).json["checks"] if row["name"] == "cluster database"
        )
        assert not row["ok"] and "others may read it" in row["ours"], row
    finally:
        file.chmod(0o600)
