"""A deploy server as its installer left it, which its own program starts and stops."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from examples.fleet import Node
from examples.servers import free_port
from examples.waiting import Failed

__all__ = ["Installation"]

SERVER = Path(__file__).with_name("deploy-ha") / "server.py"
COMMAND_S = 60.0


class Installation:
    """One deploy server as its installer left it, started and stopped by its own ``bin/server``."""

    def __init__(self, home: Path, node: Node, database: Path, appdata: Path | None) -> None:
        self.home, self.node = home, node
        self.port, self.tls_port = free_port(), free_port()
        words = ["--name", node.name, "--http-port", str(self.port), "--https-port", str(self.tls_port)]
        words += ["--keystore", str(node.tree), "--database", str(database), "--instep", str(node.directory)]
        words += [] if appdata is None else ["--appdata", str(appdata)]
        self._run(sys.executable, str(SERVER), "--home", str(home), "install", *words)

    @property
    def program(self) -> Path:
        return self.home / "bin/server"

    @property
    def pid_file(self) -> Path:
        return self.home / "var/server.pid"

    def start(self) -> None:
        self._run(str(self.program), "start")

    def close(self) -> None:
        self._run(str(self.program), "stop")

    def kill(self) -> None:
        """As a machine dies: the server and its node at once."""
        subprocess.run(
            ["kill", "-KILL", self.pid_file.read_text().strip(), str(self.node.pid)],
            check=True,
            timeout=COMMAND_S,
        )

    def property(self, name: str) -> str:
        lines = (self.home / "conf/server/installed.properties").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)[name]

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, check=False)
        if done.returncode != 0:
            log = self.home / "var/server.log"
            said = log.read_text()[-2000:] if log.exists() else ""
            raise Failed(
                f"{' '.join(command)} ended with {done.returncode}: {done.stdout}{done.stderr}{said}"
            )
