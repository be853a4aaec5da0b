"""The daemon: the only place that wires store, tree, net and machines together, and supervises them."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import uvloop

from instep.errors import ConfigError, ContentionError, InstepError
from instep.model.ids import FilesetName
from instep.net.client import PeerClient
from instep.net.messages import RenewRequest
from instep.net.pki import Pki
from instep.net.server import PeerServer, Refusal
from instep.net.tls import TlsContexts
from instep.node.commands import commands_of
from instep.node.config import load
from instep.node.config_file import ConfigFile
from instep.node.control import ControlServer
from instep.node.directory import NodeDirectory
from instep.node.driver import wall_ms
from instep.node.follower import FollowService
from instep.node.housekeeping import Housekeeping
from instep.node.logs import set_up_logs
from instep.node.membership import Membership
from instep.node.peers import Peers
from instep.node.placing import forget_marker
from instep.node.runtime import Runtime
from instep.node.settings import FilesetSettings, Settings
from instep.node.state import StateLost, open_state, watch_state
from instep.node.writer import WriterService
from instep.tree.failpoints import arm_from_text

__all__ = ["Daemon", "run"]

RENEW_LOOK_S = 3_600.0
STOP_S = 20.0
LOSSES_MAX = 5
LOSSES_WITHIN_S = 300.0
SWITCH_INTERVAL_S = 0.0005
log = logging.getLogger(__name__)

Service = WriterService | FollowService
P = ParamSpec("P")
R = TypeVar("R")


class Daemon:
    """One node while it runs."""

    def __init__(self, directory: NodeDirectory, settings: Settings, state_note: str | None = None) -> None:
        self.directory = directory
        self.pki = Pki(directory.pki)
        self.runtime = Runtime(directory, settings, self.pki, secrets.token_bytes(16), state_note)
        self.tls = TlsContexts(self.pki)
        self.membership = Membership(self.runtime, self.tls, self.reload)
        self.peers = Peers(self.runtime, self.tls, self.membership)
        self.peers.on_revoked = self.trust_changed
        self.services: dict[FilesetName, Service] = {}
        self.config_problem: ConfigError | None = None
        self.started_ms = wall_ms()
        self.stopping = asyncio.Event()
        self._config_file = ConfigFile(directory.config)
        self._tasks: dict[FilesetName, asyncio.Task[None]] = {}
        self._server: PeerServer | None = None
        self._lost: asyncio.Future[None] | None = None

    # Life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until ``stopping`` is set; then stop gracefully. ``StateLost`` when the database went away."""
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        self._server = PeerServer(
            self.peers,
            self.tls,
            self.membership.allow_list,
            rate_bytes_s=lambda: self.runtime.settings.rate_limit,
            on_refused=self._refused,
        )
        listen = self.runtime.settings.listen
        self._server.bind(listen.host, listen.port)
        self._follow_settings()
        control = ControlServer(self.directory.socket, commands_of(self))
        await control.start()
        background = [
            loop.create_task(self._server.serve()),
            loop.create_task(self._keep_certificates()),
            loop.create_task(self._config_file.mind(self.reload)),
            loop.create_task(Housekeeping(self).run()),
            loop.create_task(watch_state(self.runtime.store)),
        ]
        self.peers.offers_changed()
        _notify("READY=1")
        log.info("%s serves on %s", self.runtime.name, listen)
        self.runtime.note("started", f"{self.runtime.name} started")
        if self.runtime.state_note is not None:
            self.runtime.note("state_rebuilt", self.runtime.state_note)
        is_whole = True
        stop = loop.create_task(self.stopping.wait())
        try:
            ends: list[asyncio.Future[Any]] = [self._lost, *background]
            await asyncio.wait([stop, *ends], return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    end.result()
        except StateLost as error:
            is_whole = False
            log.error("%s", error.reason)
            raise
        finally:
            stop.cancel()
            self._lost.cancel()
            _notify("STOPPING=1" if is_whole else "RELOADING=1")
            await self._stop(control, background)
            if is_whole:
                self.runtime.note("stopped", f"{self.runtime.name} stopped")

    async def _stop(self, control: ControlServer, background: list[asyncio.Task[None]]) -> None:
        """End everything within ``STOP_S``. What a thread still does with a tree then is cut off, as a crash would,
        and finished by the next start."""
        log.info("%s stops", self.runtime.name)
        try:
            async with asyncio.timeout(STOP_S):
                await self.peers.close()
                for task in (*self._tasks.values(), *background):
                    task.cancel()
                await asyncio.gather(*self._tasks.values(), *background, return_exceptions=True)
                await control.stop()
        except TimeoutError:
            log.error("%s did not end within %g s and is cut off", self.runtime.name, STOP_S)
            logging.shutdown()
            os._exit(0)

    # Settings -----------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read ``instep.toml`` again. A bad file changes nothing: the old one goes on and status says so."""
        self._config_file.note()
        try:
            settings = load(self.directory.path)
            self._check_reloadable(settings)
        except ConfigError as error:
            self.config_problem = error
            self.runtime.note("config_refused", error.reason, problems=error.facts.get("problems"))
            self.runtime.tell()
            raise
        self.config_problem = None
        old = self.runtime.settings
        self.runtime.settings = settings
        self._follow_settings()
        for name in old.partners:
            if name not in settings.partners:
                self.peers.cut(name)
                if self._server is not None:
                    self._server.drop(name)
        if self._server is not None:
            self._server.drop_disallowed()
        self.peers.offers_changed()
        self.runtime.tell()

    def _check_reloadable(self, settings: Settings) -> None:
        running = self.runtime.settings
        fixed = {"name": (running.name, settings.name), "listen": (running.listen, settings.listen)}
        problems = [
            {
                "line": None,
                "key": key,
                "value": str(new),
                "why": f"is {old} while the daemon runs; restart it",
            }
            for key, (old, new) in fixed.items()
            if old != new
        ]
        if problems:
            raise ConfigError(
                f"{len(problems)} settings need a restart",
                hint="instep stop, then: instep start",
                code="needs_restart",
                problems=problems,
            )

    def _follow_settings(self) -> None:
        """Level: start, stop and reconfigure services until they are what the settings say."""
        wanted = self.runtime.settings.filesets
        for name in list(self.services):
            fileset = wanted.get(name)
            service = self.services[name]
            if fileset is None or _is_other(service.fileset, fileset):
                self._end(name)
        for name, fileset in wanted.items():
            running = self.services.get(name)
            if running is None:
                self._begin(fileset)
            else:
                running.reconfigure(fileset)

    def _begin(self, fileset: FilesetSettings) -> None:
        kind = WriterService if fileset.is_written_here else FollowService
        service: Service = kind(self.runtime, fileset, self.peers)
        self.services[fileset.name] = service
        self.peers.lines[fileset.name] = service
        before = self._tasks.get(fileset.name)
        self._tasks[fileset.name] = asyncio.get_running_loop().create_task(self._supervise(service, before))
        for uplink in self.peers.uplinks.values():
            uplink.take_up(service.line)

    def _end(self, name: FilesetName) -> None:
        service = self.services.pop(name)
        self.peers.lines.pop(name, None)
        for uplink in self.peers.uplinks.values():
            uplink.let_go(service.line)
        self._tasks[name].cancel()
        if name not in self.runtime.settings.filesets:
            forget_marker(self.runtime.store, name)

    async def _supervise(self, service: Service, before: asyncio.Task[None] | None) -> None:
        """Run a line's service. A broken invariant stops this line only, loudly; the others go on."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            await service.run()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the supervisor: named in status and log, never swallowed
            log.exception("%s broke", service.line)
            service.broke(error)

    def arm_resume(self, service: Service, until_ms: int | None) -> None:
        """A pause with an end resumes by itself; asked again after a restart."""
        if until_ms is None:
            return
        delay = max(0, until_ms - wall_ms()) / 1000
        asyncio.get_running_loop().call_later(delay, service.resume_after, until_ms)

    async def services_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Work on a tree that no service owns yet."""
        return await asyncio.to_thread(call, *args, **kwargs)

    # Trust --------------------------------------------------------------------------------------------------

    async def trust_changed(self) -> None:
        """Certificates or revocations changed: new handshakes see it at once, open connections are checked."""
        self.tls.reload()
        if self._server is not None:
            self._server.drop_untrusted()

    async def _keep_certificates(self) -> None:
        while True:
            try:
                await self.renew()
            except InstepError as error:
                log.warning("certificates could not be renewed: %s", error.reason)
            await asyncio.sleep(RENEW_LOOK_S)

    async def renew(self, *, force: bool = False) -> bool:
        """Renew when two thirds of a certificate's life are over; whether anything was renewed."""
        if not force and not self.pki.is_renewal_due(wall_ms()):
            return False
        if self.pki.is_ca:
            self.pki.renew_own(wall_ms())
        else:
            await self._renew_at_ca()
        await self.trust_changed()
        self.runtime.note("renewed", "this node's certificates were renewed")
        return True

    async def _renew_at_ca(self) -> None:
        from instep.errors import UnavailableError
        from instep.net.pki import Issued

        trouble: InstepError = UnavailableError("no partner is dialled that could renew", code="no_ca")
        for uplink in self.peers.uplinks.values():
            client: PeerClient = uplink.client
            try:
                tls_csr, sign_csr = self.pki.requests(self.runtime.name)
                reply = await client.renew(RenewRequest(tls_csr, sign_csr))
            except InstepError as error:
                trouble = error
                continue
            issued = Issued(reply.tls_cert, reply.sign_cert)
            self.pki.install(self.runtime.name, self.pki.authorities_pem(), issued, self.pki.crl_pem())
            return
        raise trouble

    def _refused(self, refusal: Refusal) -> None:
        """A peer was cut before it could ask anything."""
        why = f"{refusal.why} ({refusal.detail})" if refusal.detail else refusal.why
        text = f"{refusal.address} was refused: {why}"
        self.runtime.note_of_peer(
            refusal.address, "peer_refused", text, address=refusal.address, code=refusal.why
        )


def _is_other(running: FilesetSettings, wanted: FilesetSettings) -> bool:
    """Whether the change is too deep for a running service: another tree, another writer."""
    return (running.path, running.writer, running.stage) != (wanted.path, wanted.writer, wanted.stage)


def _notify(state: str) -> None:
    """Tell systemd, where it listens."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        try:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall(state.encode())
        except OSError as error:
            log.warning("systemd could not be told %s: %s", state, error)


def _lock(directory: NodeDirectory) -> int:
    """Hold ``daemon.pid`` as long as this process lives: one daemon a node directory."""
    fd = os.open(directory.pid, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise ContentionError(
                f"a daemon runs already for {directory.path}", hint="instep status", code="daemon_running"
            ) from error
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


async def _main(directory: NodeDirectory, settings: Settings) -> None:
    daemon = Daemon(directory, settings, open_state(directory, settings))
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, daemon.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, _reload_quietly, daemon)
    try:
        await daemon.run()
    finally:
        daemon.runtime.close()


def _reload_quietly(daemon: Daemon) -> None:
    try:
        daemon.reload()
    except InstepError as error:
        log.error("the configuration was not taken: %s", error.reason)


def _serve(directory: NodeDirectory, settings: Settings) -> None:
    """Until it is stopped; again from the beginning when the state was lost. ``StateLost`` when that happens too
    often: then somebody removes it, and a person has to look."""
    losses: list[float] = []
    while True:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_main(directory, settings))
            return
        except StateLost:
            now = time.monotonic()
            losses = [at for at in losses if now - at < LOSSES_WITHIN_S] + [now]
            if len(losses) >= LOSSES_MAX:
                raise
            settings = load(directory.path)


def run(path: Path) -> None:
    """Run the node in ``path`` until it is stopped; exits with the error's code when it cannot start."""
    set_up_logs()
    arm_from_text(os.environ.get("INSTEP_FAILPOINT", ""))
    directory = NodeDirectory(path)
    try:
        directory.require()
        directory.create()
        settings = load(path)
        lock = _lock(directory)
        try:
            # A thread that comes back from a system call waits up to this long for one that computes: with the usual
            # 5 ms, laying 20,000 small files took 1.2 s beside the event loop instead of 0.7 s.
            sys.setswitchinterval(SWITCH_INTERVAL_S)
            _serve(directory, settings)
        finally:
            os.close(lock)
    except InstepError as error:
        log.error("%s%s", error.reason, f"; {error.hint}" if error.hint else "")
        for problem in error.facts.get("problems", ()):  # type: ignore[attr-defined]
            log.error("line %s: %s: %s %s", problem["line"], problem["key"], problem["value"], problem["why"])
        sys.exit(error.exit_code)
