"""The answers to balancers: ``/ready`` and the agent on a live node, through drains, edits and taken ports."""

from __future__ import annotations

import contextlib
import json
import socket
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.support.fleet import Fleet, Node, free_port
from tests.support.waiting import eventually


def put(node: Node, **keys: str) -> None:
    path = node.directory / "instep.toml"
    kept = [row for row in path.read_text().splitlines() if row.partition(" ")[0] not in keys]
    path.write_text("\n".join([*(f'{key} = "{value}"' for key, value in keys.items()), *kept, ""]))
    node.run("config", "reload")


def asked(port: int, path: str = "/ready") -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            is_json = error.headers.get_content_subtype() == "json"
            return error.code, json.load(error) if is_json else {}


def agent(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), 5) as link:
        return link.makefile().readline().strip()


def test_a_node_answers_balancers(fleet: Fleet) -> None:
    (fleet.tree("main")).mkdir(parents=True)
    (fleet.tree("main") / "a").write_text("a")
    fleet.make(partners=1)
    fleet.wait()
    node, health, agents = fleet["s1"], free_port(), free_port()
    put(node, health=f"127.0.0.1:{health}", agent=f"127.0.0.1:{agents}")
    assert eventually(lambda: asked(health)[0] == 200)
    assert eventually(lambda: agent(agents) == "up ready")
    assert asked(health, "/live")[0] == 200
    assert asked(health, "/ready?fileset=data&max_behind=30s")[0] == 200
    assert asked(health, "/ready?fileset=other")[0] == 503
    assert asked(health, "/ready?max_behind=soon")[0] == 400
    with contextlib.ExitStack() as idle:
        quiet = [idle.enter_context(socket.create_connection(("127.0.0.1", health))) for _ in range(300)]
        assert asked(health)[0] == 200
        quiet[-1].setblocking(False)
        with pytest.raises(BlockingIOError):  # it is open, so no idle time ran out before the answer
            quiet[-1].recv(1)
    assert asked(health, "/ready?" + "x" * 20_000)[0] == 400
    assert "Traceback" not in (node.directory / "daemon.log").read_text()
    node.run("node", "drain", "--reason", "kernel")
    code, told = asked(health)
    assert (code, told["drained"], told["reasons"]) == (503, True, ["drained by operator: kernel"])
    assert agent(agents) == "up drain"
    node.stop()
    node.start()
    assert eventually(lambda: asked(health)[0] == 503)
    node.run("node", "undrain")
    assert eventually(lambda: asked(health)[0] == 200), "it may still be coming up"
    # A taken port is trouble that is named, and no end of the daemon; freed, it is taken up.
    with socket.socket() as other:
        taken = free_port()
        other.bind(("127.0.0.1", taken))
        other.listen()
        put(node, health=f"127.0.0.1:{taken}", agent="off")
        assert eventually(lambda: any(f"127.0.0.1:{taken}" in each for each in node.status()["warnings"]))
        assert eventually(lambda: _is_refused(agents))
    assert eventually(lambda: asked(taken)[0] == 200, 15)
    assert eventually(lambda: not [w for w in node.status()["warnings"] if "cannot listen" in w])


def _is_refused(port: int) -> bool:
    try:
        agent(port)
    except ConnectionRefusedError:
        return True
    return False
