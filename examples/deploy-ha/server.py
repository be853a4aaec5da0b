"""A small deploy server: components as files in its application data, their names in a database, users by a cookie.

It stands for any server of this kind. Its installation has ``bin/server``, a properties file that says where its
application data lies, and a pid file; sessions live in its memory, so a user has to stay on one server. Files are
written before the row that names them, and removed after it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg

VERSION = "8.1.0"
PROPERTIES = "conf/server/installed.properties"
TABLES = (
    "CREATE TABLE IF NOT EXISTS component (path text PRIMARY KEY, made_by text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS cleaning (tick text NOT NULL, node text NOT NULL)",
)
START_S, STOP_S, QUERY_S = 30.0, 20.0, 30.0
NO_PLACE, AWAY = 6, 7
"""Exit codes of ``instep seat acquire``."""


def install(home: Path, answers: argparse.Namespace) -> None:
    """What the installer of such a server asks for and writes. The address of the database has a file of its own."""
    for folder in ("bin", "conf/server", "var"):
        (home / folder).mkdir(parents=True)
    lines = [
        "# Written by the installer.",
        f"server.name={answers.name}",
        f"http.port={answers.http_port}",
        f"https.port={answers.https_port}",
        "# Where plugins, components and logs lie.",
        f"server.appdata.dir={answers.appdata or home / 'appdata'}",
        f"server.keystore.dir={answers.keystore}",
        f"server.keystore.alias={answers.name}",
        "trusted.proxies=127.0.0.1",
        f"database.file={answers.database}",
        f"instep.dir={answers.instep}",
    ]
    (home / PROPERTIES).write_text("\n".join(lines) + "\n")
    (home / "conf/installed.version").write_text(VERSION + "\n")
    if answers.appdata is None:
        (home / "appdata/var/repository").mkdir(parents=True)
        (home / "appdata/conf").mkdir()
        (home / "appdata/conf/installed.version").write_text(VERSION + "\n")
    program = home / "bin/server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} --home {home} "$@"\n')
    program.chmod(0o755)


def properties_of(home: Path) -> dict[str, str]:
    lines = (home / PROPERTIES).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


class Database:
    """The application's database, asked from the threads that answer users."""

    def __init__(self, address: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="database", daemon=True).start()
        self._pool: asyncpg.Pool = self._wait(self._opened(address))

    async def _opened(self, address: str) -> asyncpg.Pool:
        return await asyncpg.create_pool(address, min_size=1, max_size=4)

    def _wait(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(QUERY_S)

    def rows(self, statement: str, *values: str) -> list[Any]:
        found: list[Any] = self._wait(self._pool.fetch(statement, *values))
        return found


class Application:
    """What users ask of one server. Every answer is a status, a type and bytes."""

    def __init__(self, home: Path) -> None:
        self.settings = properties_of(home)
        self.name = self.settings["server.name"]
        self.repository = Path(self.settings["server.appdata.dir"]) / "var/repository"
        self.trusted = set(self.settings["trusted.proxies"].split(","))
        self.database = Database(Path(self.settings["database.file"]).read_text().strip())
        self.sessions: dict[str, str] = {}

    def put(self, path: str, data: bytes) -> int:
        """The file first, whole and on the disk, then the row."""
        file = self.repository / path
        new = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
        with new.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        new.rename(file)
        self.database.rows(
            "INSERT INTO component VALUES ($1, $2) ON CONFLICT (path) DO UPDATE SET made_by = $2",
            path,
            self.name,
        )
        return 200

    def get(self, path: str) -> tuple[int, bytes]:
        if not self.database.rows("SELECT 1 FROM component WHERE path = $1", path):
            return 404, b"no such component\n"
        try:
            return 200, (self.repository / path).read_bytes()
        except FileNotFoundError:
            return 500, b"the database names a file that is not there\n"

    def log_in(self, user: str) -> tuple[int, str]:
        """A session for a user who has a place, at this node of the cluster."""
        done = self._instep("seat", "acquire", "editors", user)
        if done in (NO_PLACE, AWAY):
            return 503, ""
        session = secrets.token_hex(16)
        self.sessions[session] = user
        return 200, session

    def log_out(self, session: str) -> int:
        user = self.sessions.pop(session, None)
        return 401 if user is None or self._instep("seat", "release", "editors", user) else 200

    def client(self, peer: str, forwarded: str | None) -> str:
        """The user's address, as the balancer reports it: no other sender of such a header is believed."""
        return forwarded.split(",")[-1].strip() if forwarded and peer in self.trusted else peer

    def _instep(self, *words: str) -> int:
        command = [sys.executable, "-m", "instep.cli", "--dir", self.settings["instep.dir"], *words]
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    app: Application

    def answer(self, status: int, body: bytes = b"", *, kind: str = "text/plain", cookie: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Node", self.app.name)
        if cookie:
            self.send_header("Set-Cookie", f"session={cookie}; Path=/; HttpOnly")
        self.end_headers()
        self.wfile.write(body)

    @property
    def session(self) -> str:
        cookies = dict(
            each.strip().partition("=")[::2]
            for each in self.headers.get("Cookie", "").split(";")
            if each.strip()
        )
        return cookies.get("session", "")

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        folder, _, name = asked.path.removeprefix("/").partition("/")
        match folder:
            case "component":
                self.answer(*self.app.get(name))
            case "login":
                status, session = self.app.log_in(parse_qs(asked.query)["user"][0])
                self.answer(status, cookie=session)
            case "logout":
                self.answer(self.app.log_out(self.session))
            case "session":
                user = self.app.sessions.get(self.session)
                self.answer(401 if user is None else 200, (user or "nobody is signed in here").encode())
            case "client":
                peer = self.client_address[0]
                self.answer(200, self.app.client(peer, self.headers.get("X-Forwarded-For")).encode())
            case _:
                self.answer(404)

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(self.app.put(self.path.removeprefix("/component/"), data))

    def log_message(self, *_: Any) -> None:
        """The load of the example would fill the disk."""


class TlsServer(ThreadingHTTPServer):
    """HTTPS with the certificate in the keystore; SIGHUP reads it again."""

    def __init__(self, port: int, handler: type[Handler], keystore: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._keystore = keystore
        super().__init__(("127.0.0.1", port), handler)

    def load(self) -> None:
        self._context.load_cert_chain(self._keystore / "server.crt", self._keystore / "server.key")

    def get_request(self) -> tuple[socket.socket, Any]:
        """The handshake happens in the thread of its client."""
        taken, address = super().get_request()
        return self._context.wrap_socket(taken, server_side=True, do_handshake_on_connect=False), address


class Listeners:
    """What accepts users, each in a thread of its own."""

    def __init__(self) -> None:
        self._open: list[ThreadingHTTPServer] = []
        self.tls: TlsServer | None = None

    def open(self, server: ThreadingHTTPServer) -> None:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self._open.append(server)

    def close(self) -> None:
        for server in self._open:
            server.shutdown()


def run(home: Path) -> None:
    app = Application(home)
    for table in TABLES:
        app.database.rows(table)
    handler = type("AppHandler", (Handler,), {"app": app})
    keystore, servers = Path(app.settings["server.keystore.dir"]), Listeners()
    servers.open(ThreadingHTTPServer(("127.0.0.1", int(app.settings["http.port"])), handler))

    def reload(*_: object) -> None:
        """HTTPS begins with the first certificate."""
        if not (keystore / "server.key").exists():
            return
        if servers.tls is None:
            servers.tls = TlsServer(int(app.settings["https.port"]), handler, keystore)
            servers.open(servers.tls)
        servers.tls.load()

    reload()
    over = threading.Event()
    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    (home / "var/server.pid").write_text(f"{os.getpid()}\n")
    over.wait()
    servers.close()
    (home / "var/server.pid").unlink()


def running(home: Path) -> int | None:
    try:
        pid = int((home / "var/server.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def start(home: Path) -> int:
    with (home / "var/server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, "--home", str(home), "run"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip
    return awaited(lambda: process.poll() is not None or running(home) == process.pid, START_S) or (
        1 if process.poll() is not None else 0
    )


def stop(home: Path) -> int:
    pid = running(home)
    if pid is None:
        return 0
    os.kill(pid, signal.SIGTERM)
    return awaited(lambda: running(home) is None, STOP_S)


def awaited(check: Any, seconds: float) -> int:
    """0 once it holds, 1 when it never did."""
    deadline, clock = time.monotonic() + seconds, threading.Event()
    while not check():
        if time.monotonic() > deadline:
            return 1
        clock.wait(0.02)
    return 0


def once(home: Path, what: str) -> None:
    """What the cluster starts on one server: a job at its tick, or a request with its payload on standard input."""
    settings = properties_of(home)
    database = Database(Path(settings["database.file"]).read_text().strip())
    if what == "clean":
        tick, node = os.environ["INSTEP_TICK"], os.environ["INSTEP_NODE"]
        database.rows("INSERT INTO cleaning VALUES ($1, $2)", tick, node)
        print(f"cleaned for {tick}")
    else:
        asked = json.loads(sys.stdin.read())
        repository = Path(settings["server.appdata.dir"]) / "var/repository"
        (repository / asked["path"]).write_text(asked["text"])
        database.rows("INSERT INTO component VALUES ($1, $2)", asked["path"], settings["server.name"])
        print(f"imported {asked['path']}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("start", "stop", "run", "clean", "import"):
        verbs.add_parser(name)
    installer = verbs.add_parser("install")
    for option in ("--name", "--http-port", "--https-port", "--keystore", "--database", "--instep"):
        installer.add_argument(option, required=True)
    installer.add_argument("--appdata")
    given = parser.parse_args()
    match given.verb:
        case "install":
            install(given.home, given)
        case "start":
            return start(given.home)
        case "stop":
            return stop(given.home)
        case "run":
            run(given.home)
        case _:
            once(given.home, given.verb)
    return 0


if __name__ == "__main__":
    sys.exit(main())
