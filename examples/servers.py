"""Servers from Debian packages, started on loopback below one directory, ended by their process ids. No root needed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from examples.ports import NoPortFree, Ports
from examples.waiting import Failed, eventually

__all__ = ["FastCgi", "Servers", "free_port", "nginx_local", "nginx_main", "program"]

SEARCHED = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/lib/cgi-bin"
STOP_S = 10.0
_PORTS = Ports(9_000, 12_000)


def free_port() -> int:
    """A loopback port that no process uses and no other example is given while this one runs, another one at each
    call."""
    try:
        return _PORTS.take()
    except NoPortFree as error:
        raise Failed(str(error)) from error


def program(name: str, package: str) -> str:
    """Where a program lies; ``Failed`` names the package to install."""
    found = shutil.which(name, path=SEARCHED)
    if found is None:
        raise Failed(f"{name} is not installed: sudo apt-get install {package}")
    return found


def nginx_local(top: Path, name: str) -> tuple[str, str]:
    """What an nginx of ours says before ``events`` and in ``http``, so that it touches nothing of the system's."""
    user = f"user {pwd.getpwuid(os.geteuid()).pw_name};\n" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temp = "".join(f"{kind}_temp_path {top}/{name}.{kind};\n" for kind in kinds)
    return f"{user}worker_processes 1;\npid {top}/{name}.pid;\nerror_log {top}/{name}.log warn;\n", temp


def nginx_main(top: Path, name: str) -> str:
    """What stands before a site, up to the open ``http`` block."""
    main, http = nginx_local(top, name)
    return f"{main}events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\n{http}"


class FastCgi:
    """A FastCGI program without a web server of its own: several processes accept on one socket, as ``spawn-fcgi`` and
    ``multiwatch`` do it."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], count: int, log: Path) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", free_port()))
        self._socket.listen(64)
        self.port: int = self._socket.getsockname()[1]
        with log.open("ab") as output:
            self.processes = [
                subprocess.Popen(
                    command,
                    stdin=self._socket.fileno(),
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **environment},
                )
                for _ in range(count)
            ]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait(STOP_S)
        self._socket.close()


class Kept(Protocol):
    """A server that ends by a way of its own."""

    def close(self) -> None: ...


OwnServer = TypeVar("OwnServer", bound=Kept)


class Servers:
    """What was started, in order."""

    def __init__(self) -> None:
        self._running: list[tuple[str, subprocess.Popen[bytes] | Kept]] = []

    def start(self, what: str, command: Sequence[str], port: int, log: Path) -> subprocess.Popen[bytes]:
        """Start a server that stays in the foreground, and wait until it accepts on ``port``."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._running.append((what, process))

        def accepts() -> bool:
            if process.poll() is not None:
                raise Failed(f"{what} ended with {process.returncode}: {log.read_text()[-2000:]}")
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return True

        eventually(accepts, f"{what} to accept on port {port}", 60)
        return process

    def keep(self, what: str, server: OwnServer) -> OwnServer:
        self._running.append((what, server))
        return server

    def close(self) -> None:
        """End what was started, the last one first: the balancer before what it asks."""
        for _, process in reversed(self._running):
            if not isinstance(process, subprocess.Popen):
                process.close()
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        self._running.clear()
