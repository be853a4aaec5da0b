"""A PostgreSQL server of our own on loopback, and the few questions that an example puts to it. No root needed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from examples.servers import Servers, free_port
from examples.waiting import Failed, eventually

__all__ = ["Database"]

USER = "owner"
NOBODY = 65534
COMMAND_S = 60.0


def _program(name: str) -> str:
    """From the newest version that is installed; Debian keeps most of them off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    if not found:
        raise Failed(f"{name} is not installed: sudo apt-get install postgresql")
    return str(found[-1])


def _as_other(*words: str) -> list[str]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return list(words)
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *words]


class Database:
    """One server with databases by name, below ``top``."""

    def __init__(self, top: Path, servers: Servers) -> None:
        self._folder = top
        self._folder.mkdir()
        if os.geteuid() == 0:
            top.parent.chmod(0o755)
            shutil.chown(top, NOBODY, NOBODY)
        self.port = free_port()
        data = str(top / "data")
        self._run(
            "initdb", "-D", data, "-U", USER, "-A", "trust", "--no-sync", "--locale=C.UTF-8", "-E", "UTF8"
        )
        words = ["-D", data, "-p", str(self.port), "-k", str(top), "-c", "fsync=off"]
        servers.start(
            "PostgreSQL", _as_other(_program("postgres"), *words), self.port, top.parent / "postgres.log"
        )
        eventually(
            lambda: self._run("pg_isready", "-h", str(top), "-p", str(self.port)),
            "PostgreSQL to take questions",
        )

    def ask(self, name: str, statement: str) -> str:
        """The answer as text, without headings."""
        return self._run(
            "psql", *self._place(), "-d", name, "-Atq", "-v", "ON_ERROR_STOP=1", "-c", statement
        ).strip()

    def address(self, name: str) -> str:
        """What a program connects to. The server trusts everyone on loopback: this one is for an example."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def copy(self, source: str, target: str) -> None:
        """Dump one database and restore it in the place of the other, as a nightly job would."""
        file = self._folder / "copy.sql"
        self._run("pg_dump", *self._place(), "--clean", "--if-exists", "-f", str(file), source)
        self._run("psql", *self._place(), "-d", target, "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file))

    def _place(self) -> list[str]:
        return ["-h", str(self._folder), "-p", str(self.port), "-U", USER]

    def _run(self, name: str, *words: str) -> str:
        done = subprocess.run(
            _as_other(_program(name), *words),
            capture_output=True, text=True, timeout=COMMAND_S, check=False, cwd="/",
        )  # fmt: skip
        if done.returncode != 0:
            raise Failed(f"{name} ended with {done.returncode}: {done.stderr}")
        return done.stdout
