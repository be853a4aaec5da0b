"""A real HAProxy in front of three nodes, with the file that they render: drains, reloads, affinity, under load."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.balanced import Clients, application, asked
from tests.support.fleet import Fleet, Node, free_port
from tests.support.waiting import eventually

pytestmark = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed, so no drain can be watched behind one"
)
HOSTS = {"main": "127.0.0.1", "s1": "127.0.0.2", "s2": "127.0.0.3"}


def configure(node: Node, keys: str, sections: str = "") -> None:
    path = node.directory / "instep.toml"
    path.write_text(f"{keys}\n{path.read_text()}\n{sections}\n")
    node.run("config", "reload")


class Front:
    """Three nodes that serve one application, and where HAProxy listens for it."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet, self.port, self.serves = fleet, free_port(), free_port()
        self.file, self.pid = folder / "haproxy.cfg", folder / "haproxy.pid"
        self.socket = folder / "h.sock"
        (fleet.tree("main")).mkdir(parents=True)
        (fleet.tree("main") / "a").write_text("a")
        fleet.make(partners=2)
        fleet.wait()
        for name in ("s1", "s2"):
            self._doors(fleet[name], f'[balancers.maps]\naddress = "{HOSTS[name]}"')
        self._doors(
            fleet.main,
            "\n".join(
                (
                    "[balancers.maps]",
                    'filesets = ["data"]',
                    f'http = {{ listen = "127.0.0.1:{self.port}", backend = {self.serves} }}',
                    'admin_path = "/admin"',
                    'trusted = ["127.0.0.9"]',
                    f'file = "{self.file}"',
                    f'haproxy_socket = "{self.socket}"',
                    f'reload = {{ signal = "USR2", pid_file = "{self.pid}" }}',
                    'update = "manual"',
                )
            ),
        )

    def _doors(self, node: Node, sections: str) -> None:
        keys = (
            f'health = "127.0.0.1:{free_port()}"\nagent = "127.0.0.1:{free_port()}"\nallow_drain = ["main"]'
        )
        configure(node, keys, sections)

    def rendered(self) -> dict[str, Any]:
        found: dict[str, Any] = self.fleet.main.run("balancer", "render", "haproxy", "--check").json
        return found

    def knows(self, *names: str) -> bool:
        return [n["node"] for n in self.rendered()["balancers"][0]["nodes"]] == list(names)

    @contextmanager
    def running(self) -> Iterator[None]:
        """The three applications, and HAProxy before them; it is reloaded by USR2 to the process in the pid file."""
        with ExitStack() as stack:
            for name, host in HOSTS.items():
                stack.enter_context(application(host, self.serves, name))
            words = ["haproxy", "-W", "-db", "-p", str(self.pid), "-f", str(self.file)]
            running = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            try:
                eventually(lambda: self.served() == {"main", "s1", "s2"}, 20)
                yield
            finally:
                running.terminate()
                running.wait(10)

    def served(self) -> set[str]:
        """Who answered thirty requests; none while HAProxy does not listen yet."""
        try:
            return {asked(self.port)[1][0] for _ in range(30)}
        except ConnectionError:
            return set()

    def reload_by_hand(self) -> None:
        """As ``systemctl reload haproxy`` does, without a word to any node."""
        before = self.workers()
        os.kill(int(self.pid.read_text()), signal.SIGUSR2)
        eventually(lambda: bool(self.workers() - before), 20)

    def workers(self) -> set[str]:
        pid = int(self.pid.read_text())
        return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """Made once: each test leaves it as it found it."""
    folder = tmp_path_factory.mktemp("front")
    fleet = Fleet(folder)
    try:
        made = Front(fleet, folder)
        eventually(lambda: made.knows("main", "s1", "s2"), 20)
        yield made
    finally:
        fleet.close()


def test_a_drain_holds_through_reloads_of_haproxy_and_no_request_fails(front: Front) -> None:
    main, out = front.fleet.main, front.file
    assert main.run("balancer", "render", "haproxy", "--output", str(out), "--check").json["changed"]
    with front.running(), Clients(front.port) as clients:
        assert main.run("node", "drain", "s1", "--reason", "kernel").json["drained"]
        eventually(lambda: not clients.take()["s1"] and front.served() == {"main", "s2"}, 20)
        clients.take()
        for _ in range(3):
            front.reload_by_hand()
            until = clients.total + 300
            eventually(partial(clients.has_served, until), 20)
        taken = clients.take()
        assert taken["main"]
        assert taken["s2"]
        assert not taken["s1"], "a reloaded HAProxy sent requests to a drained node"
        main.run("node", "undrain", "s1")
        eventually(lambda: bool(clients.take()["s1"]), 20)
        front.reload_by_hand()
        eventually(lambda: clients.take().keys() == {"main", "s1", "s2"}, 20)
        assert main.run("balancer", "reload", "maps").json["files"][0]["reloaded"]
        eventually(lambda: clients.take().keys() == {"main", "s1", "s2"}, 20)
    assert clients.failures == []


def test_a_session_stays_until_its_node_is_drained(front: Front) -> None:
    main = front.fleet.main
    main.run("balancer", "render", "haproxy", "--output", str(front.file))
    with front.running():
        _, words, headers = asked(front.port)
        cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
        assert {asked(front.port, "/", cookie)[1][0] for _ in range(20)} == {words[0]}
        assert {asked(front.port, "/admin/x", cookie)[1][0] for _ in range(5)} == {"main"}
        assert asked(front.port, "/", {"X-Forwarded-For": "6.6.6.6"})[1][2] == "127.0.0.1"
        drained = front.fleet[words[0]]
        drained.run("node", "drain")
        eventually(lambda: asked(front.port, "/", cookie)[1][0] != words[0], 20)
        _, moved, headers = asked(front.port, "/", cookie)
        cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
        drained.run("node", "undrain")
        eventually(lambda: words[0] in front.served(), 20)
        assert {asked(front.port, "/", cookie)[1][0] for _ in range(20)} == {moved[0]}


def test_what_may_not_be_asked_of_a_partner_is_refused(fleet: Fleet) -> None:
    fleet.make(partners=1)
    answer = fleet.main.run("node", "drain", "s1", expect=5)
    assert answer.error["code"] == "drain_not_allowed"
    assert not fleet["s1"].run("node", "list").json["nodes"][0]["drained"]
