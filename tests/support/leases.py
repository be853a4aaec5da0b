"""Nodes on one cluster database, and programs under a lease that write down when they run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import SOURCE
from tests.support.fleet import Fleet, Node
from tests.support.waiting import eventually

__all__ = ["Holding", "Stamps", "share_database"]

STAMP_S = 0.01
PROGRAM = f"""
import os, sys, time
name, path, stubborn = sys.argv[1:]
if "term" in stubborn:
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "fork" in stubborn:
    if os.fork():
        time.sleep(600)
    os.setsid()
    if os.fork():
        os._exit(0)
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
while True:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
    os.write(fd, f"{{name}} {{now}}\\n".encode())
    time.sleep({STAMP_S})
"""


def share_database(fleet: Fleet, names: tuple[str, ...], address: str) -> list[Node]:
    """Nodes that run and use the database at ``address``, each by a file of its own."""
    nodes = []
    for name in names:
        node = fleet.node(name)
        node.init()
        file = node.directory / "cluster"
        file.write_text(address + "\n")
        file.chmod(0o600)
        settings = node.directory / "instep.toml"
        settings.write_text(f'cluster_file = "{file}"\n' + settings.read_text())
        node.start()
        nodes.append(node)
    return nodes


@dataclass
class Holding:
    """One ``instep lease run``."""

    name: str
    process: subprocess.Popen[str]

    def ended(self, expect: int) -> str:
        """Wait until it has ended with that code; what it said."""
        said = self.process.communicate(timeout=120)[1]
        assert self.process.returncode == expect, (self.name, self.process.returncode, said)
        return said

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


class Stamps:
    """A file in which each program writes its name and the moment, a hundred times a second while it runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun: list[Holding] = []
        self._names: dict[str, str] = {}

    def run(
        self, node: Node, name: str, *words: str, lease: str = "index", ttl: str = "5s", stubborn: str = ""
    ) -> Holding:
        """Begin a program under the lease."""
        command = [
            sys.executable, "-m", "instep.cli", "--dir", str(node.directory), "lease", "run", lease, "--ttl", ttl, *words,
            "--", sys.executable, "-c", PROGRAM, name, str(self.path), stubborn,
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": SOURCE}
        made = Holding(
            name,
            subprocess.Popen(
                command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
            ),
        )
        self.begun.append(made)
        return made

    def rows(self) -> list[tuple[str, int]]:
        if not self.path.exists():
            return []
        lines = [line.rpartition(" ") for line in self.path.read_text().splitlines()]
        return [(self._names.get(who, who), int(at)) for who, _, at in lines if at.isdecimal()]

    def rename(self, name: str, new: str) -> None:
        """Count what that program wrote, and will write, as another one's."""
        self._names[name] = new

    def first(self, name: str) -> int:
        return next(at for who, at in self.rows() if who == name)

    def last(self, name: str) -> int:
        return [at for who, at in self.rows() if who == name][-1]

    def await_running(self, name: str) -> None:
        eventually(lambda: any(who == name for who, _ in self.rows()), describe=f"{name} to run")

    def await_still(self, name: str) -> None:
        """Wait until the program writes no more: two looks apart by many of its steps see the same."""
        seen: list[int] = []

        def is_still() -> bool:
            seen.append(self.last(name))
            return len(seen) > 10 and seen[-1] == seen[-10]

        eventually(is_still, describe=f"{name} to have ended")

    def assert_apart(self) -> None:
        """No two names ran at the same time: their stamps do not mix."""
        order: list[str] = []
        for who, _ in sorted(self.rows(), key=lambda row: row[1]):
            if not order or order[-1] != who:
                order.append(who)
        assert len(order) == len(set(order)), order

    def close(self) -> None:
        for holding in self.begun:
            if holding.process.poll() is None:
                holding.signal(signal.SIGCONT)
                holding.process.kill()
            holding.process.communicate(timeout=60)
