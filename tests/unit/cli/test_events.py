"""``events``: words for people, followed, and read from the state when no daemon runs."""

from __future__ import annotations

import json
from typing import Any

from instep.model.ids import LineId, fileset_name, node_name
from instep.store.sqlite import SqliteStore
from tests.support.control_server import FakeDaemon
from tests.unit.cli.test_commands import Run, daemon, instep, node

__all__ = ["daemon", "instep", "node"]

DOWN = {
    "number": 7, "at": "2001-11-21T02:31:00Z", "level": "warning", "what": "link_down", "fileset": None,
    "text": "s1 is not connected any more: it\x1b[2J closed", "node": "s1", "code": "closed",
}  # fmt: skip
UP = {**DOWN, "number": 8, "level": "info", "what": "link_up", "text": "s1 is connected", "code": None}


def test_warnings_are_marked_and_can_be_chosen(instep: Run, daemon: FakeDaemon) -> None:
    daemon.answer("events", {"events": [DOWN, UP]})
    code, out, _ = instep("events")
    first, second = out.splitlines()
    assert code == 0
    assert first.endswith(" ! -  s1 is not connected any more: it\\x1b[2J closed  node=s1 code=closed"), first
    assert second.endswith("   -  s1 is connected  node=s1"), second
    assert json.loads(instep("events", "--warnings", "--json")[1]) == {"events": [DOWN]}


def test_following_goes_on_behind_the_last_event(instep: Run, daemon: FakeDaemon) -> None:
    daemon.lines(
        "events", {"item": {"events": [DOWN]}}, {"item": {"events": [UP]}}, {"result": {"events": []}}
    )
    code, out, err = instep("events", "--follow")
    assert [line.split()[-1] for line in out.splitlines()] == ["code=closed", "node=s1"]
    assert code == 7 and "the daemon has stopped" in err
    assert daemon.params("events")["follow"] is True


def test_without_a_daemon_the_events_are_read_from_the_state(instep: Run, node: Any) -> None:
    store = SqliteStore(node.database)
    store.append_event(1, "started", None, "long ago", {})
    line = LineId(fileset_name("catalog"), node_name("main"))
    store.append_event(2**41, "put_back", line, "generation 41 is back", {"generation": 41})
    store.append_event(2**41, "hook_failed", line, "reload failed", {"output": "no route"})
    store.close()
    code, out, _ = instep("events", "--json")
    found = json.loads(out)["events"]
    assert code == 0
    assert [(one["what"], one["level"], one["fileset"]) for one in found] == [
        ("put_back", "info", "catalog"), ("hook_failed", "warning", "catalog"),
    ]  # fmt: skip
    code, _, err = instep("events", "--follow")
    assert code == 7 and "start" in err
