"""A real HAProxy with a rendered file in front of nodes: a drain takes one out and no request fails."""

from __future__ import annotations

import shutil
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from instep.fleet.balancers import BalancerPlan, Endpoint, ServerPlan, Service, haproxy
from tests.cluster.test_readiness import put
from tests.support.fleet import Fleet, free_port
from tests.support.waiting import eventually

HEAD = "defaults\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\n"
pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")


@contextmanager
def backend(host: str, port: int, name: str) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer((host, port), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def test_a_drain_takes_a_node_out_without_a_failed_request(fleet: Fleet, tmp_path: Path) -> None:
    fleet.tree("main").mkdir(parents=True)
    (fleet.tree("main") / "a").write_text("a")
    fleet.make(partners=1)
    fleet.wait()
    front, port = free_port(), free_port()
    hosts = {"main": "127.0.0.1", "s1": "127.0.0.2"}
    servers = []
    for name, host in hosts.items():
        health, agent = free_port(), free_port()
        put(fleet[name], health=f"127.0.0.1:{health}", agent=f"127.0.0.1:{agent}")
        at = Endpoint("127.0.0.1", health), Endpoint("127.0.0.1", agent)
        servers.append(ServerPlan(name, host, name == "main", *at))
    services = (Service("http", Endpoint("127.0.0.1", front), port),)
    path = tmp_path / "haproxy.cfg"
    path.write_text(HEAD + haproxy(BalancerPlan("maps", services, tuple(servers), "off")))

    def served() -> set[str]:
        """Who answered twenty requests; one that fails fails the test."""
        found = set()
        for _ in range(20):
            with urllib.request.urlopen(f"http://127.0.0.1:{front}/", timeout=5) as answer:
                found.add(answer.read().decode())
        return found

    with backend(hosts["main"], port, "main"), backend(hosts["s1"], port, "s1"):
        running = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: served() == {"main", "s1"}, 15)
            fleet["s1"].run("node", "drain")
            eventually(lambda: served() == {"main"}, 15)
            fleet["s1"].run("node", "undrain")
            eventually(lambda: served() == {"main", "s1"}, 15)
        finally:
            running.kill()
            running.wait(10)
