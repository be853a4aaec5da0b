"""``instep init`` and ``join`` against a real peer server: the identity of a new node, and the requests that are
refused."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from instep.model.ids import NodeName, node_name
from instep.net.trust.pki import Pki
from instep.net.trust.tokens import token_text
from instep.node.config.loading import load
from tests.support import peers
from tests.support.fleet import Fleet
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


def instep(directory: Path, *words: str, feed: str = "") -> tuple[int, dict[str, object]]:
    """One command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "instep.cli", "--dir", str(directory), *words, "--json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        input=feed, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


@dataclass
class Inviter:
    node: peers.Node

    def token(self, name: str) -> str:
        return token_text(self.node.service.invite(name, self.node.address))


@pytest.fixture
def inviter(tmp_path: Path) -> Iterator[Inviter]:
    """A node that answers joins, in a thread of its own."""
    pki = Pki.create(tmp_path / "main" / "pki", "c", node_name("main"), peers.now_ms())
    up = threading.Event()
    found: list[Inviter] = []
    done: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with asyncio.timeout(60), peers.serving(pki) as node:
            found.append(Inviter(node))
            done.append((asyncio.get_running_loop(), asyncio.Event()))
            up.set()
            await done[0][1].wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(60)
    yield found[0]
    loop, event = done[0]
    loop.call_soon_threadsafe(event.set)
    thread.join(60)


def test_a_token_becomes_a_node(inviter: Inviter, tmp_path: Path) -> None:
    token = inviter.token("s1")
    where, data = tmp_path / "s1", tmp_path / "data"
    words = ("join", "-", "--listen", "127.0.0.1:7999", "--accept", f"catalog={data}")
    code, told = instep(where, *words, feed=token + "\n")
    assert (code, told["changed"], told["inviter"]) == (0, True, "main"), told
    settings = load(where)
    assert settings.name == "s1"
    partner = settings.partners[NodeName("main")]
    assert (partner.link.replicate, partner.link.data, partner.link.hub) == (False, False, False)
    assert str(partner.address) == inviter.node.address
    catalog = next(iter(settings.filesets.values()))
    assert (catalog.writer, catalog.path, catalog.definition) == ("main", data, None)
    assert (data / ".instep/id").exists()
    assert Pki(where / "pki").name == "s1"

    code, told = instep(where, *words, feed=token)
    assert (code, told["changed"]) == (0, False), "the same command again"
    code, told = instep(tmp_path / "thief", "join", token)
    assert (code, told["error"]["code"]) == (5, "token_used")  # type: ignore[index]
    assert "instep invite s1" in told["error"]["hint"]  # type: ignore[index]
    code, told = instep(where, "join", inviter.token("s2"))
    assert (code, told["error"]["code"]) == (4, "other_node")  # type: ignore[index]
    code, told = instep(where, "join", inviter.token("s1"))
    assert (code, told["changed"]) == (0, True), "a node that exists is only linked"


def test_what_is_there_already_is_not_taken_blindly(inviter: Inviter, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").write_text("x")
    code, told = instep(tmp_path / "s1", "join", inviter.token("s1"), "--accept", f"catalog={tmp_path}/data")
    assert (code, told["error"]["code"]) == (4, "not_empty")  # type: ignore[index]
    assert not load(tmp_path / "s1").filesets
    code, told = instep(tmp_path / "s2", "join", "instep1-nonsense")
    assert (code, told["error"]["code"]) == (2, "token_malformed")  # type: ignore[index]
    code, told = instep(tmp_path / "s2", "join", inviter.token("s2"), "--accept", "catalog")
    assert code == 2


def test_init_is_idempotent_and_says_what_it_chose(tmp_path: Path) -> None:
    where = tmp_path / "n"
    for changed in (True, False):
        code, told = instep(where, "init", "main", "--listen", "127.0.0.1:7998", "--allow", "127.0.0.0/8")
        assert (code, told["changed"], told["advertise"]) == (0, changed, "127.0.0.1:7998")
    code, told = instep(where, "init", "other")
    assert (code, told["error"]["code"]) == (4, "node_exists")  # type: ignore[index]
    code, told = instep(tmp_path / "m", "init", "main", "--advertise", "10.0.0.1:7443")
    assert (code, told["listen"]) == (0, "0.0.0.0:7443")
    code, told = instep(tmp_path / "o", "init", "Not A Name")
    assert code == 2
    assert not (tmp_path / "o").exists()


def test_a_node_gets_another_name(fleet: Fleet) -> None:
    """Goal: one command on the node gives it certificates for a free name; the writer and its own markers use
    that name, changes flow on, the old name is over for every node, and the command typed again changes nothing. A partner
    that dials the node is given the new name by its own operator, for no other node's word changes its file."""
    fleet.make(2)
    main, s1, s2 = (fleet[name] for name in ("main", "s1", "s2"))
    fleet.write({"file": "1"})
    fleet.wait()
    fleet.acquaint("s1", "s2")
    s1.run("partner", "set", "s2", "--replicate")
    s2.run("partner", "set", "s1", "--address", f"127.0.0.1:{s1.port}")
    main.run("fileset", "set", "data", "to=s1,s2")
    for words, code in (
        (("main", "home"), "still_writes"),
        (("s1", "web1"), "other_node"),
    ):
        assert main.run("node", "rename", *words, expect=4).error["code"] == code
    assert main.run("node", "remove", "s22", expect=4).error["hint"] == "instep node list"
    assert s1.run("node", "rename", "s1", "s2", expect=4).error["code"] == "name_taken"
    s1.await_standing("in_step")
    assert s1.run("node", "rename", "s1", "web1").json["changed"]
    assert not s1.run("node", "rename", "s1", "web1").json["changed"]
    s1.await_standing("in_step")
    fleet.write({"file": "2"})

    def is_known() -> bool:
        rows = {row["name"]: row["standing"] for row in main.line()["partners"]}
        return rows == {"s2": "in_step", "web1": "in_step"}

    eventually(is_known, 30, lambda: str(main.line()["partners"]))
    fleet.wait()
    fleet.assert_same("s1", "s2")
    assert 'to = ["web1", "s2"]' in (main.directory / "instep.toml").read_text()
    eventually(
        lambda: "[partners.s1]" not in (s2.directory / "instep.toml").read_text(), 20, lambda: s2.log()
    )
    s2.run("partner", "set", "web1", "--address", f"127.0.0.1:{s1.port}")
    eventually(
        lambda: all(link["up"] for link in s2.status()["links"]), 20, lambda: str(s2.status()["links"])
    )
    rows = main.run("node", "list").json["nodes"]
    assert {row["name"] for row in rows} == {"main", "web1", "s2"}
    assert any(event["what"] == "renamed" for event in main.run("events").json["events"])
    checks = [row for row in s1.run("check", expect=None).json["checks"] if not row["ok"]]
    assert not checks, checks
