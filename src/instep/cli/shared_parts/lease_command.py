"""A command under a lease: started when the lease is held, and ended before another node can have it.

One thread reads what the daemon says, another waits for the command; the main thread acts. All moments are by the
machine's clock since boot, which the daemon uses too. Whatever the command starts stays below this process, because
orphans come back to it: so it can be found, and ended. A guard between this process and the command ends all of it
where this process and the daemon are killed or stopped.
"""

from __future__ import annotations

import ctypes
import os
import queue
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from instep.api.shared_parts.leases import (
    LeaseGuardCommand,
    LeaseHoldCommand,
    LeaseReleaseCommand,
    LeaseStateDocument,
)
from instep.cli.control import Control
from instep.errors import ContentionError, InstepError, ResourceError, UnavailableError
from instep.fleet.hooks.guard import guarded
from instep.node.directory import NodeDirectory
from instep.tree.root.descriptors import closing_fd

_PR_SET_CHILD_SUBREAPER = 36
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SIGNALLED = 128
LOOK_MS = 1_000
"""How often the main thread looks without any news."""
GUARD_MS = 200
"""So long before the end of a grant the guard ends the command."""
_libc = ctypes.CDLL(None, use_errno=True)


def boot_ms() -> int:
    """The clock since boot, as the daemon reads it."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def run_under_lease(
    control: Control,
    node: NodeDirectory,
    asked: LeaseHoldCommand,
    program: Sequence[str],
    timeout_ms: int | None,
    say: Callable[[str], None],
    prepare: Callable[[str], None] | None = None,
) -> int:
    """The exit code of the command. ``prepare`` is called with the key of the held lease before the command starts.
    ``ContentionError`` ``lease_held`` or ``lease_lost``; the daemon's own errors, and those of ``prepare``."""
    if not node.socket.exists():
        node.require()
    return _Run(control, asked, program, say, node.path, prepare).to_the_end(timeout_ms)


class _Run:
    def __init__(
        self,
        control: Control,
        asked: LeaseHoldCommand,
        program: Sequence[str],
        say: Callable[[str], None],
        directory: Path,
        prepare: Callable[[str], None] | None,
    ) -> None:
        self._directory, self._prepare = directory, prepare
        self._control, self._asked, self._program, self._say = control, asked, tuple(program), say
        self._news: queue.SimpleQueue[LeaseStateDocument | InstepError | int | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        """The guard of the command."""
        self._deadlines: int | None = None
        """The pipe to it."""
        self._hold = ""
        self._stop_at_ms: int | None = None
        self._until_ms = 0
        self._told = ""
        self._error: InstepError | None = None

    def to_the_end(self, timeout_ms: int | None) -> int:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        give_up_ms = None if timeout_ms is None else boot_ms() + timeout_ms
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            return self._until_done(give_up_ms, timeout_ms)
        finally:
            if self._deadlines is not None:
                os.close(self._deadlines)
            if self._child is not None and os.isatty(0):
                with suppress(OSError):
                    os.tcsetpgrp(0, os.getpgrp())

    def _until_done(self, give_up_ms: int | None, timeout_ms: int | None) -> int:
        while True:
            news = self._next(give_up_ms)
            if isinstance(news, int):
                return self._finished(news)
            if isinstance(news, LeaseStateDocument):
                self._take(news)
                if news.state == "stop" and self._child is None:
                    self._release()
                    raise self._lost()
            elif self._child is None:
                raise news or self._gone()
            elif isinstance(news, InstepError):
                self._error = news  # the daemon is gone: the command has the time that was granted
            now_ms = boot_ms()
            if self._child is None and give_up_ms is not None and now_ms >= give_up_ms:
                self._release()
                raise UnavailableError(
                    f"the lease {self._asked.name} was not free within {(timeout_ms or 0) / 1000:g} s",
                    code="timeout",
                    hint="see who has it: instep lease list",
                    waiting_for=[self._told or self._asked.name],
                )
            if self._child is not None and self._stop_at_ms is not None and now_ms >= self._stop_at_ms:
                self._end_all()
                self._release()
                raise self._lost()

    def _next(self, give_up_ms: int | None) -> LeaseStateDocument | InstepError | int | None:
        due = [boot_ms() + LOOK_MS]
        due += [
            at for at in (give_up_ms if self._child is None else None, self._stop_at_ms) if at is not None
        ]
        try:
            return self._news.get(timeout=max(0, min(due) - boot_ms()) / 1000)
        except queue.Empty:
            return LeaseStateDocument(self._hold, "unchanged")

    def _listen(self) -> None:
        """In a thread: what the daemon says, and why it says no more."""
        try:
            for document in self._control.watch(self._asked):
                self._news.put(document)
        except InstepError as error:
            self._news.put(error)
        else:
            self._news.put(self._gone())

    def _take(self, document: LeaseStateDocument) -> None:
        self._hold = document.hold
        if document.state == "waiting":
            self._tell(document.holder or "")
        elif document.state == "held" and document.stop_at_ms is not None and document.until_ms is not None:
            self._stop_at_ms, self._until_ms = document.stop_at_ms, document.until_ms
            self._tell_guard()
            if self._child is None and boot_ms() < self._stop_at_ms:
                self._start(document.fence or "")
        elif document.state == "stop":
            self._stop_at_ms = boot_ms()
            self._until_ms = min(self._until_ms, document.until_ms or self._until_ms)
            self._tell_guard()
            self._told = document.why or ""

    def _tell(self, holder: str) -> None:
        if holder and holder != self._told:
            self._told = holder
            self._say(f"instep: waiting for the lease {self._asked.name}, which {holder} holds")

    # The command ----------------------------------------------------------------------------------------------------

    def _start(self, fence: str) -> None:
        if self._prepare is not None:
            try:
                self._prepare(self._hold)
            except InstepError:
                self._release()
                raise
            self._prepare = None
            return  # the next word of the daemon says whether the lease is still held
        is_terminal = os.isatty(0)
        found = shutil.which(self._program[0])
        if found is None:
            self._release()
            raise ResourceError(
                f"{self._program[0]} cannot be started: no such program",
                code="command_not_started",
                hint="give the command after --, with its whole path",
                command=self._program[0],
            )
        control, self._deadlines = os.pipe2(os.O_CLOEXEC)
        mark = f"INSTEP_LEASE_HOLD={self._hold}"
        program = (os.path.abspath(found), *self._program[1:])
        with closing_fd(control):
            self._child = subprocess.Popen(
                guarded(program, control, mark),
                process_group=0,
                env={**os.environ, **self._environment(fence)},
                pass_fds=(control,),
            )
        self._tell_guard()
        for number in _FORWARDED:
            signal.signal(number, self._forward)
        if is_terminal:
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)
            with suppress(OSError):
                os.tcsetpgrp(0, self._child.pid)
        threading.Thread(target=self._await_child, daemon=True).start()
        with suppress(InstepError):  # the second guard; this process is the first
            self._control.ask(LeaseGuardCommand(hold=self._hold, group=self._child.pid), timeout_s=5.0)

    def _tell_guard(self) -> None:
        if self._deadlines is not None:
            with suppress(BrokenPipeError):  # the command has ended
                os.write(self._deadlines, b"%d\n" % (self._until_ms - GUARD_MS))

    def _environment(self, fence: str) -> dict[str, str]:
        """For the command: the lease, and how ``instep lease check`` in it finds this daemon and this holder."""
        return {
            "INSTEP_LEASE": self._asked.name,
            "INSTEP_LEASE_FENCE": fence,
            "INSTEP_LEASE_HOLD": self._hold,
            "INSTEP_DIR": str(self._directory),
        }

    def _await_child(self) -> None:
        assert self._child is not None
        self._news.put(self._child.wait())

    def _forward(self, number: int, _: object) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def _finished(self, status: int) -> int:
        """The command has ended by itself; what it left running ends too, for the lease is given back."""
        if _below(os.getpid()):
            self._say(f"instep: ends what {self._program[0]} left running")
            self._end_all()
        self._release()
        return status if status >= 0 else _SIGNALLED - status

    def _end_all(self) -> None:
        """SIGTERM, then in time SIGKILL, to everything below this process, until nothing is left."""
        kill_at_ms = boot_ms() + max(0, self._until_ms - boot_ms()) // 2
        _signal_all(signal.SIGTERM)
        clock = threading.Event()
        while _reaped_below():
            if boot_ms() >= kill_at_ms:
                _signal_all(signal.SIGKILL)
            clock.wait(0.02)

    def _release(self) -> None:
        with suppress(InstepError):  # it runs out by itself
            self._control.ask(LeaseReleaseCommand(hold=self._hold), timeout_s=5.0)

    def _lost(self) -> ContentionError:
        why = (
            self._error.reason
            if self._error is not None
            else _WHY.get(self._told, "it was not renewed in time")
        )
        return ContentionError(
            f"the lease {self._asked.name} was lost, and {self._program[0]} was stopped: {why}",
            code="lease_lost",
            hint="see the holder: instep lease list",
            lease=self._asked.name,
        )

    def _gone(self) -> UnavailableError:
        return UnavailableError(
            "the daemon has ended", code="daemon_ended", hint="instep status; then look at its log"
        )


_WHY = {
    "expired": "the cluster's database did not renew it in time",
    "taken": "it was broken, or another holder has it",
    "newer_era": "the cluster's database has moved to another server",
    "released": "it was given back",
}


def _below(process: int) -> list[int]:
    """All processes that descend from this one, without those that have ended."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found: list[int] = []
    todo = [process]
    while todo:
        children = parents.get(todo.pop(), [])
        found += children
        todo += children
    return found


def _signal_all(number: signal.Signals) -> None:
    for process in _below(os.getpid()):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
        if number is signal.SIGTERM:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGCONT)


def _reaped_below() -> list[int]:
    """What still runs below this process; orphans that ended are taken leave of on the way."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    return _below(os.getpid())
