"""The daemon as a process: one a node directory, signals, the event loop, and its exit code."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import uvloop

from instep.daemon.daemon import Daemon
from instep.errors import ConfigError, ContentionError, InstepError, ResourceError
from instep.fleet.scratch import sweep_scratch
from instep.model.counts import counted
from instep.model.ids import NodeName
from instep.net.trust.pki import Pki
from instep.node.config.loading import load
from instep.node.config.settings import Settings
from instep.node.directory import NodeDirectory
from instep.node.last_end import forget_end, record_end
from instep.node.node import Node
from instep.node.runtime.driver import shift_wall_clock, wall_ms
from instep.node.runtime.logs import set_up_logs
from instep.node.runtime.state import StateLost, open_state
from instep.tree.root.failpoints import arm_from_text

LOSSES_MAX = 5
LOSSES_WITHIN_S = 300.0
REOPEN_S = 5.0
REOPENED_MAX = 24
DAEMON_RUNS = "daemon_running"
SWITCH_INTERVAL_S = 0.0005
log = logging.getLogger(__name__)


def _lock(directory: NodeDirectory) -> int:
    """Hold ``daemon.pid`` as long as this process lives: one daemon a node directory."""
    fd = os.open(directory.pid, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise ContentionError(
                f"a daemon runs already for {directory.path}", hint="instep status", code=DAEMON_RUNS
            ) from error
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def require_own_name(pki: Pki, name: NodeName) -> None:
    """``ConfigError`` where the certificates here are another node's: neither other nodes nor markers know this
    one by its name. A rename that did not end leaves that."""
    try:
        certified = pki.name
    except InstepError:
        return  # ``check`` names missing and damaged certificates
    if certified != name:
        raise ConfigError(
            f"instep.toml names this node {name}, and its certificates are for {certified}",
            hint=f"after a rename that was interrupted: instep node rename {name} {certified}; "
            f'or, where only the file was edited: set name = "{certified}" there',
            code="name_differs",
        )


def _sweep() -> None:
    """What killed daemons of this user left in the system's temporary directory."""
    try:
        count = sweep_scratch()
    except OSError as error:
        log.warning("folders of killed daemons could not be looked for: %s", error)
    else:
        if count:
            log.info("removed %s that killed daemons left", counted(count, "temporary folder"))


async def _main(directory: NodeDirectory, settings: Settings) -> None:
    daemon = Daemon(Node(directory, settings, open_state(directory, settings)))
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, daemon.node.stopping.set)
    loop.add_signal_handler(signal.SIGHUP, daemon.node.reload_edited)
    try:
        await daemon.run()
    finally:
        daemon.node.runtime.close()


def _serve(directory: NodeDirectory, settings: Settings) -> None:
    """Until it is stopped; again from the beginning when the state was lost. ``StateLost`` when that happens too
    often: then a person or program removes it, and an operator has to look."""
    losses: list[float] = []
    tries = 0
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
        except ResourceError as error:
            # The state was lost, and its disk has no room for a new one: the node waits for that, and ends when it
            # takes too long, so that its supervisor reports it.
            tries += 1
            if not losses or tries > REOPENED_MAX:
                raise
            log.error("%s; it is retried in %g s", error.reason, REOPEN_S)
            threading.Event().wait(REOPEN_S)


def run(path: Path) -> None:
    """Run the node in ``path`` until it is stopped; exits with the error's code when it cannot start."""
    directory = NodeDirectory(path)
    set_up_logs(directory.log)
    arm_from_text(os.environ.get("INSTEP_FAILPOINT", ""))
    shift_wall_clock(int(os.environ.get("INSTEP_DEBUG_CLOCK_MS", "0")))
    try:
        directory.require()
        directory.create()
        settings = load(path)
        lock = _lock(directory)
        forget_end(directory)
        require_own_name(Pki(directory.pki), settings.name)
        _sweep()
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
        if directory.holds_node and error.error_code != DAEMON_RUNS:
            record_end(directory, error, wall_ms())
        sys.exit(error.exit_code)
