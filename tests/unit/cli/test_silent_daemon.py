"""A daemon that is there and does not answer: the process is named, with a step, and no command waits for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.cli.main import run
from instep.node.directory import NodeDirectory
from instep.node.lines.snapshot import offline_status
from tests.support.waiting import eventually

HANGS = """
import fcntl, os, pathlib, socket, sys
node = pathlib.Path(sys.argv[1])
lock = open(node / "daemon.pid", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print(os.getpid(), file=lock, flush=True)
link = socket.socket(socket.AF_UNIX)
link.bind(str(node / "control.sock"))
link.listen()
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    (tmp_path / "instep.toml").write_text('name = "main"\nlisten = "127.0.0.1:7443"\n')
    return NodeDirectory(tmp_path)


@pytest.fixture
def silent(node: NodeDirectory) -> Iterator[int]:
    """A process that has the lock and the socket of the daemon, and answers nothing."""
    command = [sys.executable, "-S", "-c", HANGS, str(node.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"listens\n"
            yield process.pid
        finally:
            process.kill()


def test_a_daemon_that_is_busy_is_not_killed_at_the_first_look(node: NodeDirectory, silent: int) -> None:
    document = offline_status(node.path)
    assert document.daemon == "silent" and document.ended
    assert f"process {silent} is there and does not answer" in document.ended.reason
    (step,) = document.ended.next
    assert step.startswith("repeat this in a moment") and f"kill -9 {silent}" in step


def test_no_command_waits_for_a_daemon_that_a_signal_halted(
    node: NodeDirectory, silent: int, capsys: pytest.CaptureFixture[str]
) -> None:
    os.kill(silent, signal.SIGSTOP)
    eventually(lambda: node.halted_pid == silent)
    capsys.readouterr()
    assert run(["--dir", str(node.path), "--json", "status"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["daemon"] == "silent"
    assert f"kill -CONT {silent}" in document["ended"]["next"][0]
    assert document["next"] == [], "a start would wait for the halted process"
    for words in (["publish", "data"], ["stop"], ["log", "data"], ["start"]):
        assert run(["--dir", str(node.path), "--json", *words]) == 7
        error = json.loads(capsys.readouterr().out)["error"]
        assert (error["code"], error["hint"]) == ("daemon_halted", f"kill -CONT {silent}"), words
    os.kill(silent, signal.SIGCONT)
    eventually(lambda: node.halted_pid is None)
