"""A process between a keeper and a program: it ends the program when the keeper dies, or when a deadline passes.

The keeper (the daemon, or the command line under a lease) cannot do that itself where it was killed or stopped
(SIGSTOP). It writes deadlines into a pipe, in milliseconds since boot; the end of the pipe is the end of the keeper.
This file is run alone, with nothing but the standard library, so that it starts quickly:
``python -I -S guard.py DESCRIPTOR MARK PROGRAM ARGUMENTS...``.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

LOOK_MS = 500
"""How often a deadline is looked at: the timeout of a poll does not count the time of a suspended machine."""
READ_MAX = 4096
ROUNDS = 5
"""A process may start another one while they are looked for; after so many rounds the rest is left."""
_LEFT_ALONE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def guarded(arguments: tuple[str, ...], control: int, mark: str) -> tuple[str, ...]:
    """The command line that runs ``arguments`` under a guard which reads from ``control``."""
    return (sys.executable, "-I", "-S", __file__, str(control), mark, *arguments)


def _main(control: int, mark: str, arguments: list[str]) -> None:
    for number in _LEFT_ALONE:  # they are meant for the program, which is in this process group
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if child == 0:
        os.close(control)
        _become(arguments)
    if _is_to_end(control, os.pidfd_open(child)):
        end_marked(mark)
        os.killpg(0, signal.SIGKILL)
    _end_as(os.waitpid(child, 0)[1])


def _become(arguments: list[str]) -> None:
    for number in (*_LEFT_ALONE, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execv(arguments[0], arguments)
    except OSError as error:
        os.write(2, f"{arguments[0]} cannot be started: {error.strerror}\n".encode())
        os._exit(127)


def _is_to_end(control: int, child: int) -> bool:
    """Wait for the program's end; true when it has to be ended."""
    poll, until_ms, rest = select.poll(), 0, b""
    poll.register(control, select.POLLIN)
    poll.register(child, select.POLLIN)
    while True:
        left_ms = max(0, min(LOOK_MS, until_ms - _boot_ms())) if until_ms else None
        ready = {descriptor for descriptor, _ in poll.poll(left_ms)}
        if child in ready:
            return False
        if control in ready:
            piece = os.read(control, READ_MAX)
            if not piece:
                return True
            *lines, rest = (rest + piece).split(b"\n")
            if lines:
                until_ms = int(lines[-1])
        if until_ms and _boot_ms() >= until_ms:
            return True


def _boot_ms() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def end_marked(mark: str) -> None:
    """Kill every process that this one may look at and whose environment has ``mark``, but for itself.

    A daemon of its own that a program starts keeps the environment, also after a double fork. Only a program that
    clears it gets away."""
    for _ in range(ROUNDS):
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal() and int(name) != os.getpid()]
        if not sum(_end_one(pid, mark.encode()) for pid in pids):
            return


def _end_one(pid: int, mark: bytes) -> bool:
    """The descriptor is opened before the environment is read, so a number that is used again hits no other process.
    A process that has ended has no environment any more."""
    try:
        held = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            is_marked = mark in file.read().split(b"\0")
        if is_marked:
            signal.pidfd_send_signal(held, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(held)
    return is_marked


def _end_as(status: int) -> None:
    """End as the program did."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    os._exit(128 - code)


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
