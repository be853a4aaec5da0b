"""Starting and stopping the daemon process, with deadlines and the log's end when it fails."""

from __future__ import annotations

import os
import pwd
import select
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.api.looking import PingCommand, StopCommand
from instep.cli.cluster.service import closed_to_others, give, has_unit, start_unit
from instep.cli.control import Control, refuse_halted
from instep.errors import InstepError, RefusedError, UnavailableError
from instep.node.directory import NodeDirectory, user_name
from instep.node.last_end import forget_end, last_end
from instep.node.upkeep.after_reboot import DETACHED, Host
from instep.tree.root.descriptors import closing_fd

START_S = 60.0
LOG_LINES = 15
_PAUSE_S = 0.02


def start_daemon(node: NodeDirectory, timeout_s: float = START_S) -> bool:
    """Start the node's daemon and wait until it answers; False when one runs already."""
    control = Control(node.socket)
    if control.is_up():
        return False
    if node.daemon_pid is not None:  # one that begins, or hangs
        refuse_halted(node.path)
        _await_answer(node, control, None, timeout_s, 0)
        return False
    host = Host()
    forget_end(node)
    if has_unit(node, host):
        try:
            start_unit(host, timeout_s)
        except UnavailableError as error:
            _raise_end(node, error)
            raise
        _await_answer(node, control, None, timeout_s, 0)
        return True
    user = owner_of(node, host)
    log_begin = node.log.stat().st_size if node.log.exists() else 0
    with os.fdopen(open_log(node, user), "ab") as log:
        if user is not None:
            give(node.path, user.uid, user.gid)
        process = subprocess.Popen(
            [sys.executable, "-m", "instep.daemon", str(node.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=_environment(os.environ, user),
            start_new_session=True,
            user=None if user is None else user.uid,
            group=None if user is None else user.gid,
            extra_groups=None if user is None else user.groups,
        )
    _await_answer(node, control, process, timeout_s, log_begin)
    return True


def open_log(node: NodeDirectory, user: DaemonUser | None) -> int:
    """The log, opened to append. ``RefusedError`` for anything but a plain file of the daemon's user or of the caller:
    the user would else have root write where the user may not."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with closing_fd(os.open(node.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
            fd = os.open(node.log.name, flags, 0o600, dir_fd=folder)
    except OSError as error:
        raise _no_log(node, os.strerror(error.errno or 0)) from error
    found = os.fstat(fd)
    owners = {os.geteuid(), user.uid if user is not None else os.geteuid()}
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid not in owners:
        os.close(fd)
        raise _no_log(node, "it is no plain file of the daemon's user")
    os.set_blocking(fd, True)
    return fd


def _no_log(node: NodeDirectory, why: str) -> RefusedError:
    return RefusedError(
        f"the log {node.log} cannot be written: {why}",
        hint=f"look at it with: ls -l {node.log}; move it away, then: instep --dir {node.path} start",
        code="bad_log",
        path=str(node.log),
    )


@dataclass(frozen=True, slots=True)
class DaemonUser:
    """The user that root starts a daemon as."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def owner_of(node: NodeDirectory, host: Host) -> DaemonUser | None:
    """The owner of a node that root starts; None when root or the caller owns it. A daemon of root's would make files
    that the owner's daemon could not read. ``RefusedError`` when the owner cannot run this installation."""
    if node.owner is None:
        return None
    uid, gid = node.owner
    name = user_name(uid)
    closed = closed_to_others(host.installation)
    if closed is not None:
        raise RefusedError(
            f"the node in {node.path} belongs to {name}; instep is installed below {closed}, which {name} cannot enter",
            hint="install instep in /opt/instep or by its package, then: instep start",
            code="installation_closed",
            user=name,
            path=str(closed),
        )
    try:
        known = pwd.getpwuid(uid)
    except KeyError:
        return DaemonUser(name, uid, gid, (gid,), "/")
    return DaemonUser(name, uid, gid, tuple(os.getgrouplist(known.pw_name, gid)), known.pw_dir)


def stop_daemon(control: Control, timeout_s: float) -> None:
    """Ask the daemon to stop and wait until its process is gone. ``DaemonDown`` when none runs."""
    deadline = time.monotonic() + timeout_s
    pid = control.ask(PingCommand(), timeout_s=timeout_s).pid
    process = os.pidfd_open(pid) if Path(f"/proc/{pid}").exists() else None
    control.ask(StopCommand(), timeout_s=max(0.1, deadline - time.monotonic()))
    if process is None:
        return
    try:
        gone, _, _ = select.select([process], [], [], max(0.0, deadline - time.monotonic()))
    finally:
        os.close(process)
    if not gone:
        raise UnavailableError(
            f"the daemon (process {pid}) did not end within {timeout_s:g} s",
            hint="a longer --timeout, or look at its log",
            code="timeout",
            waiting_for=[f"process {pid}"],
        )


def _environment(ours: Mapping[str, str], user: DaemonUser | None) -> dict[str, str]:
    """Ours, with absolute import paths, because the daemon works in ``/``, and the word that it is detached."""
    ours = {**ours, DETACHED: "1"}
    if user is not None:
        ours |= {"HOME": user.home, "USER": user.name, "LOGNAME": user.name}
    paths = ours.get("PYTHONPATH")
    if not paths:
        return ours
    absolute = os.pathsep.join(os.path.abspath(path) for path in paths.split(os.pathsep) if path)
    return {**ours, "PYTHONPATH": absolute}


def _await_answer(
    node: NodeDirectory,
    control: Control,
    process: subprocess.Popen[bytes] | None,
    timeout_s: float,
    log_begin: int,
) -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while time.monotonic() < deadline:
        if node.socket.exists() and control.is_up():
            return
        _raise_end(node)
        if process is not None and process.poll() is not None:
            raise _failed(f"the daemon ended at once with exit code {process.returncode}", node, log_begin)
        pause.wait(_PAUSE_S)
    if process is None and node.daemon_pid is not None:
        raise UnavailableError(
            f"the daemon (process {node.daemon_pid}) runs and did not answer within {timeout_s:g} s",
            hint=f"look at its log, then: kill -9 {node.daemon_pid}; then: instep start",
            code="daemon_silent",
            log=str(node.log),
        )
    raise _failed(f"the daemon did not answer within {timeout_s:g} s", node, log_begin)


def _raise_end(node: NodeDirectory, cause: Exception | None = None) -> None:
    """``UnavailableError`` with the daemon's own reason and hint, where it ended with one."""
    end = last_end(node)
    if end is not None:
        hint = end.hint or f"then: instep --dir {node.path} start"
        raise UnavailableError(
            f"the daemon ended at once: {end.reason}", hint=hint, code="daemon_failed", log=str(node.log)
        ) from cause


def _failed(reason: str, node: NodeDirectory, log_begin: int) -> InstepError:
    tail: list[str] = []
    if node.log.exists():
        with node.log.open("rb") as log:
            log.seek(log_begin if log_begin <= os.fstat(log.fileno()).st_size else 0)
            tail = log.read().decode("utf-8", "replace").splitlines()[-LOG_LINES:]
    return UnavailableError(
        reason,
        hint=f"mend what the log names, then: instep --dir {node.path} start",
        code="daemon_failed",
        log=str(node.log),
        last_lines=tail,
    )
