"""The application whose files are moved: whether it runs, and its own programs that stop and start it."""

from __future__ import annotations

import asyncio
import errno
import os
import select
from collections.abc import Callable
from pathlib import Path

from instep.core.layout.layout import Application
from instep.errors import RefusedError, UnavailableError, UsageError
from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT, Account, run_program
from instep.node.layouts.program_user import account_for
from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import READ, Tolerated, closing_fd

PROGRAM_TIMEOUT_MS = 15 * 60_000
"""A deploy server ends its running processes before it stops."""
ENDS_WITHIN_MS = 2 * 60_000
"""After its stop program has ended."""
_PID_MAX = 1 << 22
"""The kernel gives out no higher one, and takes none that is beyond 31 bits as an argument."""


def opened(source: Path) -> Root:
    """The source, held. ``UsageError`` where it is no directory."""
    try:
        return Root(source)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        raise UsageError(
            f"{source} is not a directory", hint="name the folder of the installation", code="no_source"
        ) from None


class MovedApplication:
    """The application in ``source``."""

    def __init__(self, application: Application, source: Path, say: Callable[[str], None]) -> None:
        self._application, self._source, self._say = application, source, say

    def check_stoppable(self) -> None:
        """``RefusedError`` ``application_runs`` where it runs and no program here can stop it; ``unsafe_program`` where
        one that is needed, now or at the end, is not to be run."""
        pid, stop = self._running(0), self._program(self._application.stop)
        if pid is not None and stop is None:
            raise self._still_runs(pid)
        if stop is not None and (pid is not None or self._application.pid_file is None):
            for program in (stop, self._program(self._application.start)):
                if program is not None:
                    self._account(program, "stop")

    def stop(self, note: Callable[[], None]) -> None:
        """Stop it where it runs, or where only its program knows. ``note`` is called before."""
        program = self._program(self._application.stop)
        if program is None or (self._application.pid_file is not None and self._running(0) is None):
            return
        note()
        self._say(f"stopping: {' '.join(program)}")
        self._run(program, "stop")
        pid = self._running(ENDS_WITHIN_MS)
        if pid is not None:
            raise self._still_runs(pid)

    def start(self) -> None:
        """Start it where it does not run."""
        program = self._program(self._application.start)
        if program is not None and self._running(0) is None:
            self._say(f"starting: {' '.join(program)}")
            self._run(program, "start")

    def _still_runs(self, pid: int) -> RefusedError:
        return RefusedError(
            f"the application in {self._source} runs as process {pid}",
            hint="stop it, then repeat the command",
            code="application_runs",
            pid=pid,
        )

    def _running(self, wait_ms: int) -> int | None:
        """The process that the application's own file names, unless it ends within this time."""
        file = self._application.pid_file
        if file is None:
            return None
        with opened(self._source) as tree, Tolerated(*NOT_BENEATH, errno.ESRCH):
            with closing_fd(tree.open(file, READ)) as fd:
                text = os.read(fd, 32).strip()
            if not text.isdigit() or not 0 < int(text) <= _PID_MAX:
                return None
            with closing_fd(os.pidfd_open(int(text))) as process:
                poll = select.poll()
                poll.register(process, select.POLLIN)
                return None if poll.poll(wait_ms) else int(text)
        return None

    def _program(self, words: tuple[str, ...]) -> tuple[str, ...] | None:
        """The argument list; None where the layout has none, or where the installation lacks the program."""
        if not words:
            return None
        path = self._source / words[0]
        return (str(path), *words[1:]) if path.is_file() and os.access(path, os.X_OK) else None

    def _account(self, program: tuple[str, ...], verb: str) -> Account | None:
        is_known = self._application.pid_file is not None
        by_hand = f"; or {verb} the application yourself, then repeat the command" if is_known else ""
        return account_for(Path(program[0]), self._source, by_hand)

    def _run(self, program: tuple[str, ...], verb: str) -> None:
        account = self._account(program, verb)
        with open(os.devnull, "rb") as nothing:
            found = asyncio.run(
                run_program(program, nothing.fileno(), MINIMAL_ENVIRONMENT, PROGRAM_TIMEOUT_MS, account)
            )
        if not found.ok:
            raise UnavailableError(
                f"the application did not {verb}: {program[0]} {found.reason}",
                hint=f"{verb} it by hand, then repeat the command",
                code="application_program",
                program=list(program),
                output=found.output.decode("utf-8", "replace")[-2000:],
            )
