"""Real servers of PostgreSQL, and pgbouncer before them, as another user than root and on Unix sockets only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.waiting import eventually

__all__ = ["Bouncer", "PostgresServer", "missing_postgres", "postgres_server"]

NOBODY = 65534
USER = "instep"
PORT = 5432
SETTINGS = {
    "listen_addresses": "''", "fsync": "off", "full_page_writes": "off",
    "shared_buffers": "16MB", "max_connections": "100", "wal_level": "replica", "max_wal_senders": "4",
    "wal_keep_size": "64MB", "autovacuum": "off", "logging_collector": "off", "log_min_messages": "warning",
}  # fmt: skip


def _binaries() -> Path | None:
    """The newest installed version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def missing_postgres() -> str:
    """Why no server can be started here; empty when one can."""
    if _binaries() is None:
        return "postgresql is not installed"
    return "" if shutil.which("pgbouncer", path=_PATH) else "pgbouncer is not installed"


_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


def _as_other(command: list[str]) -> list[str]:
    """A server of PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return command
    return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]


class PostgresServer:
    """One server in a folder of its own; ``socket`` is the folder of its Unix socket."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.socket = folder / "socket"
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        self._private_folders()
        self._run(
            "initdb",
            "-D",
            str(self.data),
            "-U",
            USER,
            "-A",
            "trust",
            "--no-sync",
            "--locale=C.UTF-8",
            "-E",
            "UTF8",
        )
        self.configure(SETTINGS)

    def _private_folders(self) -> None:
        for folder in (self.folder, self.socket):
            folder.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                os.chown(folder, NOBODY, NOBODY)

    def configure(self, settings: dict[str, str]) -> None:
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def _run(self, program: str, *arguments: str) -> None:
        binaries = _binaries()
        assert binaries is not None
        done = subprocess.run(
            _as_other([str(binaries / program), *arguments]),
            capture_output=True,
            text=True,
            timeout=120,
            cwd="/",
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def start(self) -> None:
        """Start it, and wait until it answers."""
        binaries = _binaries()
        assert binaries is not None
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            _as_other([str(binaries / "postgres"), "-D", str(self.data), "-k", str(self.socket)]),
            stdout=log, stderr=log, cwd="/", start_new_session=True,
        )  # fmt: skip
        log.close()
        ready = _as_other([str(binaries / "pg_isready"), "-q", "-h", str(self.socket)])
        eventually(lambda: subprocess.run(ready, cwd="/").returncode == 0, describe=lambda: self.log())

    def log(self) -> str:
        path = self.folder / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def clone(self, folder: Path) -> PostgresServer:
        """A standby of this server, not started yet."""
        made = PostgresServer(folder)
        shutil.rmtree(made.data, ignore_errors=True)
        made._private_folders()
        self._run(
            "pg_basebackup",
            "-D",
            str(made.data),
            "-h",
            str(self.socket),
            "-U",
            USER,
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
        )
        return made

    def ask(self, sql: str, database: str = "postgres") -> str:
        """The only value that a statement returns, as text."""
        binaries = _binaries()
        assert binaries is not None
        done = subprocess.run(
            _as_other([str(binaries / "psql"), "-AtqX", "-v", "ON_ERROR_STOP=1", "-c", sql, self.dsn(database)]),
            capture_output=True, text=True, timeout=60, cwd="/",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def stop_receiving(self) -> None:
        """On a standby: whatever the primary commits from now on never comes here."""
        self.ask("ALTER SYSTEM SET primary_conninfo = ''")
        self.ask("SELECT pg_reload_conf()")
        eventually(
            lambda: self.ask("SELECT count(*) FROM pg_stat_wal_receiver") == "0", describe="no receiver"
        )

    def await_all_of(self, primary: PostgresServer) -> None:
        """On a standby: wait until it has what the primary has committed by now."""
        wanted = primary.ask("SELECT pg_current_wal_lsn()")
        eventually(
            lambda: self.ask(f"SELECT pg_last_wal_replay_lsn() >= '{wanted}'") == "t", describe="replication"
        )

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "-D", str(self.data), "-w", "-t", "60")

    def kill(self) -> None:
        """As a lost machine: no process of it lives on."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)
            self._process = None
            # Its children lead process groups of their own, and end when they see that it is gone.
            eventually(lambda: not self._children(), describe="the end of the server's processes")
            (self.data / "postmaster.pid").unlink(missing_ok=True)
            for left in self.socket.glob(".s.PGSQL*"):
                left.unlink()

    def _children(self) -> list[str]:
        """Processes that work in its folder of data."""
        here = str(self.data)
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "cwd") == here:
                    found.append(process.name)
            except OSError:
                continue
        return found

    def signal(self, number: signal.Signals) -> None:
        """To its main process, which starts all others."""
        assert self._process is not None
        os.kill(self._process.pid, number)

    def dsn(self, database: str = "postgres", user: str = USER) -> str:
        return f"postgresql://{user}@/{database}?host={self.socket}&port={PORT}"


class Bouncer:
    """pgbouncer in transaction mode before a server, with fewer connections than clients."""

    def __init__(self, folder: Path, server: PostgresServer) -> None:
        self.folder = folder
        folder.mkdir()
        users = folder / "users"
        users.write_text(f'"{USER}" ""\n')
        self._configuration = folder / "pgbouncer.ini"
        self._configuration.write_text(
            f"[databases]\n* = host={server.socket} port={PORT}\n[pgbouncer]\nlisten_addr =\nlisten_port = {PORT}\n"
            f"unix_socket_dir = {folder}\nauth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            "default_pool_size = 3\nmax_client_conn = 200\nlog_connections = 0\nlog_disconnections = 0\n"
        )
        if os.geteuid() == 0:
            for path in (folder, users, self._configuration):
                os.chown(path, NOBODY, NOBODY)
        program = shutil.which("pgbouncer", path=_PATH)
        assert program is not None
        self._log = (folder / "log").open("ab")
        self._process = subprocess.Popen(
            _as_other([program, str(self._configuration)]), stdout=self._log, stderr=self._log, cwd="/"
        )
        eventually(lambda: (folder / f".s.PGSQL.{PORT}").exists(), describe="pgbouncer's socket")

    def dsn(self, database: str) -> str:
        return f"postgresql://{USER}@/{database}?host={self.folder}&port={PORT}"

    def close(self) -> None:
        self._process.kill()
        self._process.wait(60)
        self._log.close()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A server that runs until the end of the block, in a short path: a socket's may have 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    os.chmod(folder, 0o755)
    server = PostgresServer(folder / "one")
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder)
