"""Real balancers in front of three nodes, with the files that they render: drains, reloads, affinity, under load."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.balanced import Clients, application, asked
from tests.support.fleet import Fleet, Node, free_port
from tests.support.shared import KnownState
from tests.support.waiting import eventually

HOSTS = {"main": "127.0.0.1", "s1": "127.0.0.2", "s2": "127.0.0.3"}
MANUAL = 'update = "manual"\n'
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin")
needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed, so nothing can be watched behind one"
)
needs_nginx = pytest.mark.skipif(
    NGINX is None, reason="nginx is not installed, so nothing can be watched behind one"
)


class Front:
    """Three nodes that serve one application, and where each balancer listens for it."""

    def __init__(self, folder: Path) -> None:
        self.fleet = fleet = Fleet(folder)
        self.folder, self.serves = folder, free_port()
        self.sick: set[str] = set()
        self._master = 0
        self.haproxy, self.nginx = free_port(), free_port()
        self.haproxy_file, self.nginx_file = folder / "haproxy.cfg", folder / "nginx.conf"
        (fleet.tree("main")).mkdir(parents=True)
        (fleet.tree("main") / "a").write_text("a")
        fleet.make(partners=2)
        fleet.wait()
        for name in ("s1", "s2"):
            self._doors(fleet[name])
            self.say(fleet[name], "maps", f'address = "{HOSTS[name]}"\n')
            self.say(fleet[name], "web", f'address = "{HOSTS[name]}"\n')
        self._doors(fleet.main)
        self.say(
            fleet.main,
            "maps",
            f'filesets = ["data"]\nhttp = {{ listen = "127.0.0.1:{self.haproxy}", backend = {self.serves} }}\n'
            f'admin_path = "/admin"\nhealth_path = "/health?deep=1"\ntrusted = ["127.0.0.9"]\nfile = "{self.haproxy_file}"\n'
            f'haproxy_socket = "{folder}/h.sock"\nupdate = "manual"\n'
            f'reload = {{ signal = "USR2", pid_file = "{folder}/haproxy.pid" }}\n',
        )
        self.web(MANUAL)

    def web(self, more: str, listen: int = 0) -> None:
        """Write the settings of nginx."""
        self.say(
            self.fleet.main,
            "web",
            f'filesets = ["data"]\nkind = "nginx"\nfile = "{self.nginx_file}"\nadmin_path = "/admin"\n'
            f'health_path = "/health"\n'
            f'http = {{ listen = "127.0.0.1:{listen or self.nginx}", backend = {self.serves} }}\n{more}',
        )

    def _doors(self, node: Node) -> None:
        path = node.directory / "instep.toml"
        host = HOSTS[node.name]
        doors = f'health = "{host}:{free_port()}"\nagent = "{host}:{free_port()}"\n'
        path.write_text(f'{doors}allow_drain = ["main"]\nprobers = ["10.255.0.1"]\n{path.read_text()}')

    def say(self, node: Node, name: str, text: str) -> None:
        """Replace one section of balancers, which stand last."""
        path = node.directory / "instep.toml"
        before, *sections = path.read_text().split("\n[balancers.")
        kept = [each for each in sections if not each.startswith(f"{name}]")]
        path.write_text("\n[balancers.".join([before, *kept, f"{name}]\n{text}"]))
        node.run("config", "reload")

    def knows(self, *names: str) -> bool:
        told = self.fleet.main.run("balancer", "render", "haproxy", "maps", "--check").json
        return [node["node"] for node in told["balancers"][0]["nodes"]] == list(names)

    @contextmanager
    def running(self, port: int, words: Sequence[str]) -> Iterator[None]:
        """The three applications, and a balancer before them."""
        with ExitStack() as stack:
            for name, host in HOSTS.items():
                stack.enter_context(application(host, self.serves, name, self.sick))
            running = subprocess.Popen(words, stderr=subprocess.DEVNULL)
            self._master = running.pid
            try:
                eventually(lambda: served(port) == {"main", "s1", "s2"}, 20)
                yield
            finally:
                running.terminate()
                running.wait(60)

    def with_haproxy(self, file: Path | None = None) -> AbstractContextManager[None]:
        words = ["haproxy", "-W", "-db", "-p", str(self.folder / "haproxy.pid"), "-f"]
        return self.running(self.haproxy, [*words, str(file or self.haproxy_file)])

    @contextmanager
    def with_nginx(self) -> Iterator[None]:
        """As long as it runs its file is kept by itself. It begins with all three, which answer before any watch asks
        them: a file from between the first answer and the last would name some of them as drained."""
        assert NGINX is not None
        self.web(MANUAL)
        eventually(self._nobody_is_out, 20)
        more = f"daemon off; pid {self.folder}/nginx.pid; error_log stderr;"
        try:
            with self.running(self.nginx, [NGINX, "-e", "stderr", "-c", str(self.nginx_file), "-g", more]):
                self.web(f'reload = {{ signal = "HUP", pid_file = "{self.folder}/nginx.pid" }}\n')
                yield
        finally:
            self.web(MANUAL)

    def _nobody_is_out(self) -> bool:
        """Render; the watch that was before may not have ended yet."""
        self.fleet.main.run("balancer", "reload", "web")
        return " down;" not in self.nginx_file.read_text()

    def reload_by_hand(self) -> None:
        """As ``systemctl reload haproxy`` does, without a word to any node."""
        before = self._workers()
        os.kill(self._master, signal.SIGUSR2)
        eventually(lambda: bool(self._workers() - before), 20)

    def _workers(self) -> set[str]:
        """The workers of the master, which is the process that was started: its pid file is written anew at a
        reload."""
        return set(Path(f"/proc/{self._master}/task/{self._master}/children").read_text().split())

    def put_back(self, known: KnownState) -> list[str]:
        """Restore the state before the first test; returns the things that a test should have undone itself, in
        words."""
        left = [f"the application of {name} was sick" for name in sorted(self.sick)]
        self.sick.clear()
        left += known.restore()
        for file in (self.haproxy_file, self.nginx_file, self.folder / "later.pid"):
            file.unlink(missing_ok=True)
        known.await_in_step()
        return left


def served(port: int) -> set[str]:
    """The nodes that answered thirty requests; none while no server listens yet."""
    try:
        return {asked(port)[1][0] for _ in range(30)}
    except ConnectionError:
        return set()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Front, KnownState]]:
    """Made once for all tests of this file."""
    folder = tmp_path_factory.mktemp("front")
    made = None
    try:
        made = Front(folder)
        eventually(partial(made.knows, "main", "s1", "s2"), 20)
        yield made, KnownState(made.fleet)
    finally:
        if made is not None:
            made.fleet.close()


@pytest.fixture
def front(shared: tuple[Front, KnownState], put_back: Callable[[list[str]], None]) -> Iterator[Front]:
    """Three nodes with nothing drained and no balancer before them."""
    front, known = shared
    yield front
    put_back(front.put_back(known))


@needs_haproxy
def test_a_drain_holds_through_reloads_of_haproxy_and_no_request_fails(front: Front) -> None:
    main, port = front.fleet.main, front.haproxy
    render = ("balancer", "render", "haproxy", "maps", "--output", str(front.haproxy_file), "--check")
    assert main.run(*render).json["changed"]
    with front.with_haproxy(), Clients(port) as clients:
        assert main.run("node", "drain", "s1", "--reason", "kernel").json["drained"]
        eventually(lambda: served(port) == {"main", "s2"}, 20)
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


@needs_haproxy
def test_a_drain_does_not_wait_for_the_next_question(front: Front) -> None:
    """This HAProxy asks once an hour; the drain reaches it over the runtime socket."""
    main, slow = front.fleet.main, front.folder / "slow.cfg"
    text = main.run("balancer", "render", "haproxy", "maps", json=False).stdout
    assert "agent-inter 1s" in text
    slow.write_text(text.replace("inter 1s", "inter 1h"))
    with front.with_haproxy(slow):
        main.run("node", "drain", "s1")
        eventually(lambda: served(front.haproxy) == {"main", "s2"}, 10)
        main.run("node", "undrain", "s1")
        eventually(lambda: served(front.haproxy) == {"main", "s1", "s2"}, 10)


def follow_a_session(front: Front, port: int) -> None:
    _, words, headers = asked(port)
    cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
    # A worker of nginx from before the last reload, which did not know this node, may answer for a moment.
    eventually(lambda: {asked(port, "/", cookie)[1][0] for _ in range(20)} == {words[0]}, 20)
    assert {asked(port, "/admin/x", cookie)[1][0] for _ in range(5)} == {"main"}
    assert asked(port, "/", {"X-Forwarded-For": "6.6.6.6"})[1][2] == "127.0.0.1"
    drained = front.fleet[words[0]]
    drained.run("node", "drain")

    def moved() -> tuple[str, str] | None:
        """Where the session goes and its new cookie; a worker from before the reload may answer once more."""
        _, there, told = asked(port, "/", cookie)
        return (there[0], told["set-cookie"]) if there[0] != words[0] and "set-cookie" in told else None

    name, new = eventually(moved) or ("", "")
    cookie = {"Cookie": new.partition(";")[0]}
    drained.run("node", "undrain")
    eventually(lambda: words[0] in served(port), 20)
    eventually(lambda: {asked(port, "/", cookie)[1][0] for _ in range(20)} == {name}, 20)


def see_a_sick_application_out(front: Front, port: int) -> None:
    """Its node is well, and says so."""
    front.sick.add("s2")
    eventually(lambda: served(port) == {"main", "s1"}, 20)
    front.sick.clear()
    eventually(lambda: served(port) == {"main", "s1", "s2"}, 20)


def follow_a_session_by_command(front: Front, port: int) -> None:
    """``test --through-balancer`` finds the same: the cookie of this balancer keeps a user on one node."""
    main = front.fleet.main
    path = main.directory / "instep.toml"
    before = path.read_text()
    golden = (
        f'\n[filesets.data.golden]\nbalancer = "http://127.0.0.1:{port}"\n'
        '[filesets.data.golden.requests.page]\nrequest = "GET /"\ncompare = "status"\n'
    )
    path.write_text(before.replace("\n[balancers.", f"{golden}\n[balancers.", 1))
    main.run("config", "reload")
    tests = main.run("test", "--through-balancer").json["tests"]
    assert [(each["name"], each["ok"]) for each in tests] == [("page", True), ("session", True)]
    path.write_text(before)
    main.run("config", "reload")


@needs_haproxy
def test_a_session_stays_until_its_node_is_drained(front: Front) -> None:
    front.fleet.main.run("balancer", "render", "haproxy", "maps", "--output", str(front.haproxy_file))
    with front.with_haproxy():
        follow_a_session_by_command(front, front.haproxy)
        follow_a_session(front, front.haproxy)
        see_a_sick_application_out(front, front.haproxy)


@needs_haproxy
def test_a_session_moves_only_when_a_rollout_drains_its_node(front: Front) -> None:
    """No other client notices the rollout either."""
    fleet, port = front.fleet, front.haproxy
    fleet.main.run("balancer", "render", "haproxy", "maps", "--output", str(front.haproxy_file))
    for name in ("s1", "s2"):
        path = fleet[name].directory / "instep.toml"
        hook = f'hooks = {{ reload = {{ touch = "{front.folder}/{name}.reloaded" }} }}'
        path.write_text(path.read_text().replace("[filesets.data]\n", f"[filesets.data]\n{hook}\n"))
        fleet[name].run("config", "reload")
    with front.with_haproxy():
        cookie = eventually(partial(cookie_of, port, "s1"), 20) or ""
        with Clients(port) as others, Clients(port, 1, {"Cookie": cookie}) as session:
            fleet.write({"a": f"{(fleet.tree('main') / 'a').read_text()}, again"})
            fleet.wait(timeout=60)
            until = session.total + 20
            eventually(partial(session.has_served, until), 20)
    assert (front.folder / "s1.reloaded").exists()
    assert (front.folder / "s2.reloaded").exists()
    assert others.failures == session.failures == []
    stays = [who for who, _ in groupby(session.sequence)]
    assert stays[0] == "s1"
    assert 1 < len(stays) <= 3, stays


def cookie_of(port: int, node: str) -> str | None:
    """A session that begins on this node."""
    _, words, headers = asked(port)
    return headers["set-cookie"].partition(";")[0] if words[0] == node else None


@needs_nginx
def test_nginx_is_told_by_the_node_that_renders(front: Front) -> None:
    """nginx asks no node itself. A node that moves, drains or comes back is in its file a moment later."""
    main, port, s2 = front.fleet.main, front.nginx, front.fleet["s2"]
    with front.with_nginx():
        main.run("node", "drain")  # and back again, while the HAProxy that should be notified is not there
        eventually(lambda: served(port) == {"s1", "s2"}, 20)
        main.run("node", "undrain")
        eventually(lambda: served(port) == {"main", "s1", "s2"}, 20)
        follow_a_session(front, port)
        see_a_sick_application_out(front, port)
        with Clients(port) as clients:
            main.run("node", "drain", "s1")
            eventually(lambda: served(port) == {"main", "s2"}, 20)
            clients.take()
            until = clients.total + 300
            eventually(partial(clients.has_served, until), 20)
            assert not clients.take()["s1"]
            main.run("node", "undrain", "s1")
            eventually(lambda: bool(clients.take()["s1"]), 20)
            moved = free_port()
            with application("127.0.0.4", moved, "elsewhere"):
                front.say(s2, "web", f'address = "127.0.0.4:{moved}"\n')
                eventually(lambda: clients.take().keys() == {"main", "s1", "elsewhere"}, 20)
                front.say(s2, "web", f'address = "{HOSTS["s2"]}"\n')
                eventually(lambda: clients.take().keys() == {"main", "s1", "s2"}, 20)
        assert clients.failures == []


@needs_nginx
def test_what_is_refused_leaves_the_balancer_as_it_was(front: Front) -> None:
    main, file = front.fleet.main, front.nginx_file
    main.run("balancer", "reload", "web")
    before = file.read_text()
    front.web('check = ["/bin/false", "{file}"]\n', listen=free_port())
    answer = main.run("balancer", "reload", "web", expect=4)
    assert (answer.error["code"], file.read_text()) == ("balancer_refused", before)
    assert eventually(lambda: any("refuses the rendered file" in each for each in main.status()["warnings"]))
    checks = {each["name"]: each for each in main.run("check", expect=None).json["checks"]}
    assert (checks["balancer maps"]["ok"], checks["balancer web"]["ok"]) == (True, False), checks
    with front.with_nginx():
        front.web(f'reload = {{ signal = "HUP", pid_file = "{front.folder}/later.pid" }}\n')
        front.fleet["s1"].run("node", "drain")
        eventually(lambda: any("later.pid" in each for each in main.status()["warnings"]), 20)
        assert main.run("balancer", "reload", "web", expect=7).error["code"] == "balancer_reload_failed"
        front.web("reload = { run = ['/bin/sh', '-c', 'echo no licence >&2; exit 1'] }\n")
        refused = main.run("balancer", "reload", "web", expect=7).error
        assert refused["facts"]["last_lines"] == ["no licence"], refused
        eventually(lambda: any("no licence" in each for each in main.status()["warnings"]), 20)
        assert "no licence" in main.run("events").stdout
        front.web(f'reload = {{ signal = "HUP", pid_file = "{front.folder}/later.pid" }}\n')
        assert "s1" in served(front.nginx)
        (front.folder / "later.pid").write_text((front.folder / "nginx.pid").read_text())
        eventually(lambda: "s1" not in served(front.nginx), 20)
        front.fleet["s1"].run("node", "undrain")
        eventually(lambda: "s1" in served(front.nginx), 20)
    eventually(lambda: not [each for each in main.status()["warnings"] if "nginx" in each])


def test_who_is_not_allowed_to_does_not_drain_a_partner(front: Front) -> None:
    s1 = front.fleet["s1"]
    path = s1.directory / "instep.toml"
    path.write_text(path.read_text().replace('allow_drain = ["main"]', "allow_drain = []"))
    s1.run("config", "reload")
    answer = front.fleet.main.run("node", "drain", "s1", expect=5)
    assert answer.error["code"] == "drain_not_allowed"
    assert not s1.run("node", "list").json["nodes"][0]["drained"]
