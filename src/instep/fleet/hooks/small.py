"""The kinds of hook that need neither a program nor a request of the operator's: a signal, a touched file."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path

from instep.fleet.hooks.spec import Attempt

SIGNALS = ("HUP", "USR1", "USR2", "WINCH", "TERM")
"""The signals that a ``signal`` hook may send: services take them as "read again" or "start again"."""
_PID_BYTES_MAX = 64
_WRITTEN_WITHIN_S = 1.0
_LOOK_S = 0.02
Pause = Callable[[float], object]


class _Refused(Exception):
    """Why nothing was sent or touched."""


class _Unwritten(_Refused):
    """The pid file is empty: a service truncates it, then writes its number."""


def send_signal(name: str, pid_file: Path, pause: Pause | None = None) -> Attempt:
    """Send one of ``SIGNALS`` to the process that a pid file names.

    A service that reloads removes or truncates its pid file and writes it again. So a file that is missing or empty is
    read again for a second before it counts as such; ``pause`` waits between two looks.

    The file must be of root, of this daemon's user or of the user whose process it names, and writable by no
    other user: a user who writes it would choose the process that root signals.
    """
    assert name in SIGNALS
    pid = 0
    try:
        pid, owner = _written_pid(pid_file, pause or threading.Event().wait)
        if pid in (1, os.getpid()):
            whose = "init" if pid == 1 else "this daemon itself"
            raise _Refused(f"pid_file {pid_file} names {pid}, which is {whose}")
        descriptor = os.pidfd_open(pid)
    except _Refused as error:
        return Attempt(str(error))
    except ProcessLookupError:
        return Attempt(f"pid_file {pid_file} names {pid}, but no such process runs")
    except OSError as error:
        return Attempt(f"pid_file {pid_file}: {error.strerror}")
    try:
        runs_as = os.stat(f"/proc/{pid}").st_uid
        if owner not in (0, os.geteuid(), runs_as):
            return Attempt(
                f"pid_file {pid_file} belongs to user {owner}, but process {pid} runs as user {runs_as}"
            )
        # The descriptor holds the process that was looked at: a number used again cannot be hit.
        signal.pidfd_send_signal(descriptor, signal.Signals[f"SIG{name}"])
    except (ProcessLookupError, FileNotFoundError):
        return Attempt(f"pid_file {pid_file} names {pid}, but no such process runs")
    except OSError as error:
        return Attempt(f"SIG{name} to process {pid}: {error.strerror}")
    finally:
        os.close(descriptor)
    return Attempt("")


def _written_pid(path: Path, pause: Pause) -> tuple[int, int]:
    """``_pid``, once the service has written it."""
    for _ in range(round(_WRITTEN_WITHIN_S / _LOOK_S)):
        try:
            return _pid(path)
        except (FileNotFoundError, _Unwritten):
            pause(_LOOK_S)
    return _pid(path)


def _pid(path: Path) -> tuple[int, int]:
    """The number in a pid file, and the user it belongs to."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _Refused(f"pid_file {path} is not a regular file")
        if found.st_mode & 0o022:
            mode = stat.S_IMODE(found.st_mode)
            raise _Refused(f"pid_file {path} has mode {mode:04o}, others may write it; make it 0644")
        raw = os.read(descriptor, _PID_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    text = raw.strip()
    if not text:
        raise _Unwritten(f"pid_file {path} is empty")
    if len(raw) > _PID_BYTES_MAX or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise _Refused(f"pid_file {path} does not hold the number of a process")
    return int(text), found.st_uid


def touch(path: Path) -> Attempt:
    """Set the file's times to now, making it when it is missing; no part of the path may be a symbolic link."""
    opened = []
    try:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        opened.append(os.open("/", os.O_RDONLY | os.O_DIRECTORY | flags))
        for part in path.parts[1:-1]:
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | flags, dir_fd=opened[-1]))
        last = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | flags
        opened.append(os.open(path.name, last, 0o644, dir_fd=opened[-1]))
        if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
            return Attempt(f"{path} is not a regular file")
        os.utime(opened[-1])
    except OSError as error:
        return Attempt(f"{path} cannot be touched: {error.strerror} (symbolic links are not followed)")
    finally:
        for descriptor in reversed(opened):
            os.close(descriptor)
    return Attempt("")
