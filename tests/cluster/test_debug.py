"""Flight records of real daemons: written when asked for and when a machine breaks, and replayed by the command."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

from tests.support.fleet import SOURCE, Fleet, Node
from tests.support.waiting import eventually

PLANT = '''
from instep.core.follow import contract

def never_paused(machine, effects):
    """A line is never paused."""
    return not machine.facts.is_paused

contract.INVARIANTS = (*contract.INVARIANTS, never_paused)
'''


def test_what_was_asked_for_replays_as_recorded(fleet: Fleet) -> None:
    """Goal: the records of a publish, a rollout and a follow machine that worked replay to the same effects."""
    fleet.make(1)
    fleet.write({"a": "one"})
    fleet.publish("--wait")
    written = [*fleet.main.run("debug", "record", "data").json["records"]]
    written += fleet["s1"].run("debug", "record", "data").json["records"]
    assert [one["machine"] for one in written] == [
        "publish data@main", "rollout data@main", "home data@main", "follow data@main", "offer data@main"
    ]  # fmt: skip
    for one in written:
        assert stat.S_IMODE(Path(one["file"]).stat().st_mode) == 0o600
        found = fleet.main.run("debug", "replay", one["file"]).json
        assert (found["difference"], found["broken"]) == (None, None)
        assert found["replayed"] == found["recorded"] == one["events"]
        assert one["events"] > 2


def test_a_broken_invariant_leaves_a_record_that_can_be_replayed(fleet: Fleet, tmp_path: Path) -> None:
    """Goal: a machine that breaks stops its line, and its last events are on disk; the log says how to look at them.
    Method: a daemon with one invariant more, which a pause breaks; the command does not know it."""
    (tmp_path / "sitecustomize.py").write_text(PLANT)
    fleet.make(1)
    s1 = fleet["s1"]
    s1.stop()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{SOURCE}"}
    with (s1.directory / "daemon.log").open("ab") as log:
        words = [sys.executable, "-m", "instep.cli", "--dir", str(s1.directory), "serve"]
        daemon = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        eventually(s1.control.is_up, describe=s1.log)
        _break_and_look(s1)
    finally:
        daemon.kill()
        daemon.wait()


def _break_and_look(s1: Node) -> None:
    s1.run("pause", "data", "--reason", "planted", expect=None)
    s1.await_standing("failing", code="broken_invariant")
    record = s1.directory / "records" / "follow-data@main-broken.jsonl"
    assert f"instep debug replay {record}" in s1.log()
    found = s1.run("debug", "replay", str(record), expect=1).json
    assert "Paused" in found["steps"][-1]["event"]
    assert found["difference"] == "recorded: an invariant broke; replayed: none did"
    again = s1.run("debug", "record", "data").json["records"][0]
    assert again["broken"] == "Broken: never_paused: A line is never paused."
