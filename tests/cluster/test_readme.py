"""The README as a newcomer types it: a fresh clone, three machines, its commands, and a reboot of all of them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.test_few_rights import interpreter
from tests.support.fleet import tree_of
from tests.support.networks import machines
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
USER = 65_534
COMMAND_S = 120.0
MAIN, OTHERS = ("main", "10.20.0.1"), {"s1": "10.20.0.2", "s2": "10.20.0.3"}
# Each machine has its own /srv, and no systemd: a unit of this test's would be one of the machine that runs it.
_ENTER = """
mount --bind "$1/srv" /srv
[ ! -d /run/systemd ] || mount -t tmpfs tmpfs /run/systemd
[ ! -d /var/lib/instep ] || mount --bind "$1/none" /var/lib/instep
shift
exec "$@"
"""


@dataclass
class Machine:
    """One server: its part of the network, its /srv and its operator's home."""

    name: str
    words: tuple[str, ...]
    base: Path
    environment: dict[str, str]
    uid: int
    after_reboot: str = ""

    def run(self, script: str, uid: int | None = None) -> str:
        """What a line of shell prints, typed by the operator or by another user."""
        who = self.uid if uid is None else uid
        as_user = () if who == 0 else ("setpriv", f"--reuid={who}", f"--regid={who}", "--clear-groups")
        enter = ("unshare", "-m", "sh", "-c", _ENTER, "sh", str(self.base))
        done = subprocess.run(
            [*self.words, *enter, *as_user, "sh", "-c", script],
            env=self.environment, capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd=self.base,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.name}: {script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def node(self) -> Path:
        return self.base / "home/.local/share/instep"

    def kill(self) -> None:
        """End the daemon as the loss of power does."""
        pid = self.node / "daemon.pid"
        if pid.exists():
            os.kill(int(pid.read_text()), signal.SIGKILL)


def _commands() -> dict[str, list[str]]:
    """The README's commands for three servers, by the machines that its comments name."""
    block = re.search(r"## Three servers.*?```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block is not None, "the README shows three servers"
    found: dict[str, list[str]] = {}
    names: list[str] = []
    for line in block.group(1).splitlines():
        if line.startswith("# on "):
            names = [name for name in (MAIN[0], *OTHERS) if re.search(rf"\b{name}\b", line)]
        elif line:
            for name in names:
                found.setdefault(name, []).append(line.partition("  #")[0])
    return found


@pytest.fixture(params=[0, USER], ids=["root", "a user"])
def servers(request: pytest.FixtureRequest) -> Iterator[dict[str, Machine]]:
    """Three servers with a fresh clone of this repository."""
    uid: int = request.param
    python = interpreter() if uid else sys.executable
    if python is None or shutil.which("git") is None:
        pytest.skip("needs git, and an interpreter of this version that another user may run")
    top = Path(tempfile.mkdtemp(prefix="instep-readme-"))
    top.chmod(0o755)
    made: dict[str, Machine] = {}
    try:
        subprocess.run(["git", "clone", "-q", str(ROOT), str(top / "clone")], check=True, capture_output=True)
        packages = [path for path in sys.path if path.endswith("site-packages")]
        (top / "bin").mkdir()
        program = top / "bin/instep"
        program.write_text(f'#!/bin/sh\nexec {python} -m instep.cli "$@"\n')
        program.chmod(0o755)
        with machines(MAIN, OTHERS) as words:
            for name in words:
                base = top / name
                for part in ("srv", "home", "none"):
                    (base / part).mkdir(parents=True)
                    os.chown(base / part, uid, uid)
                environment = {
                    "PATH": f"{top / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
                    "HOME": str(base / "home"),
                    "PYTHONPATH": os.pathsep.join((str(top / "clone/src"), *packages)),
                }
                made[name] = Machine(name, words[name], base, environment, uid)
            yield made
            for machine in made.values():
                machine.kill()
    finally:
        shutil.rmtree(top)


def test_the_readme_makes_three_servers_that_come_back(servers: dict[str, Machine]) -> None:
    """Goal: its commands as they stand, as root and as a user, make a mirror whose files the application's user reads; the
    writer knows where its partners are; after a reboot the printed command brings every node back, and changes flow on."""
    main = servers["main"]
    main.run("mkdir /srv/catalog && echo one > /srv/catalog/styles.xml")
    tokens: dict[str, str] = {}
    for name, commands in _commands().items():
        machine = servers[name]
        for command in commands:
            printed = machine.run(command.replace("TOKEN", tokens.get(name, "TOKEN")))
            if command.startswith("instep invite"):
                tokens[command.split()[-1]] = printed.strip()
            named = re.search(r"by hand: (.+)|echo '@reboot (.+?)'\)", printed)
            if named is not None:
                machine.after_reboot = named.group(1) or named.group(2)
    _in_step(servers, "one")
    listed = main.run("instep node list")
    assert all(address in listed for address in OTHERS.values()), listed
    assert "10.20.0.1:7443" in servers["s1"].run("instep node list")
    for machine in servers.values():
        machine.kill()
    main.run("echo two > /srv/catalog/styles.xml")
    for machine in servers.values():
        assert machine.after_reboot, f"{machine.name} printed how it comes back"
        machine.run(machine.after_reboot)
    _in_step(servers, "two")


def _in_step(servers: dict[str, Machine], text: str) -> None:
    """Every server has this text, its application's user can read it, and status says so."""
    main = servers["main"]

    def are_listed() -> bool:
        return "IN STEP   3 of 3 serve" in main.run("instep wait catalog --timeout 60s; instep status")

    eventually(are_listed, 60, lambda: main.run("instep status"))
    for machine in servers.values():
        assert machine.run("cat /srv/catalog/styles.xml", USER) == f"{text}\n", machine.name
        assert tree_of(machine.base / "srv/catalog") == tree_of(main.base / "srv/catalog"), machine.name
