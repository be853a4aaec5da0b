"""A bare git repository that holds the generations of one line, and the ``git`` program that writes it.

No shell and no hook runs; the settings of users and of the machine are not read. The directory is held by a descriptor.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import tempfile
from collections.abc import Mapping
from typing import IO

from instep.errors import ContentionError, RefusedError, ResourceError
from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT
from instep.model.ids import LineId
from instep.model.paths import shown
from instep.node.retrieval.git_stream import BRANCH, DONE, FEATURES, ExportedGeneration, written_of
from instep.tree.archive.outlet import open_outlet
from instep.tree.root.beneath import Root

_WITHIN_S = 60.0
_FINISH_S = 600.0
"""Writing the index of a pack of many gigabytes takes minutes."""
_LINES_KEPT = 2_000
_NO_REPOSITORY = 128
_KEY = "instep.line"
_ENVIRONMENT: Mapping[str, str] = {
    **MINIMAL_ENVIRONMENT, "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0",
}  # fmt: skip
_GIT = ("git", "--git-dir=.", "-c", f"core.hooksPath={os.devnull}")


class GitRepository:
    """Blocks: for a thread. One process at a time writes it."""

    def __init__(self, to: bytes, line: LineId) -> None:
        """Open or begin the repository of ``line``. ``RefusedError`` where the directory holds anything else,
        ``ContentionError`` while another export writes it."""
        self.name = shown(to)
        self._outlet: Root = open_outlet(to)
        self._folder = -1
        self._import: subprocess.Popen[bytes] | None = None
        self._said = os.memfd_create("git", os.MFD_CLOEXEC)
        """The errors of the program that was started last."""
        try:
            self._open(line)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End a program that still runs: then the branch stays where its last checkpoint left it."""
        if self._import is not None:
            self._import.kill()
            self._import.wait(_WITHIN_S)
            assert self._import.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # the rest of its buffer has no reader any more
                self._import.stdin.close()
            self._import = None
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1
        self._outlet.close()
        os.close(self._said)

    def _open(self, line: LineId) -> None:
        found = os.fstat(self._outlet.fd)
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise RefusedError(
                f"{self.name} belongs to another user, or other users may write there",
                hint="name a directory that is not there yet",
                code="directory_not_ours",
            )
        self._folder = self._outlet.open_dir(b"")
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ContentionError(
                f"another export writes {self.name}", hint="wait until it has ended", code="busy"
            ) from error
        if not self._outlet.names(b""):
            self._run("git", "init", "--quiet", "--bare", "--initial-branch=main", "--template=", ".")
            self._run(*_GIT, "config", _KEY, str(line))
        elif self._answer(*_GIT, "config", "--get", _KEY, nothing=(1, _NO_REPOSITORY)) != str(line):
            raise RefusedError(
                f"{self.name} holds something else than the generations of {line}",
                hint="name an empty directory, or the one of an earlier export of this fileset",
                code="not_this_line",
            )

    def newest(self) -> ExportedGeneration | None:
        """The newest generation that is a commit."""
        if self._answer(*_GIT, "show-ref", "--verify", "--quiet", BRANCH) is None:
            return None
        message = self._answer(*_GIT, "log", "-1", "--format=%B", BRANCH, "--", nothing=())
        return written_of(message) if message is not None else None

    def write(self, *pieces: bytes) -> None:
        """Hand pieces to ``git fast-import``, which is started at the first. ``ResourceError`` once it has failed."""
        if self._import is None:
            self._import = self._started(*_GIT, "fast-import", "--quiet", "--date-format=raw")
            pieces = FEATURES, *pieces
        assert self._import.stdin is not None
        try:
            for piece in pieces:
                self._import.stdin.write(piece)
        except BrokenPipeError as error:
            self._ended(_WITHIN_S)
            raise self._failed("fast-import") from error

    def write_from(self, fd: int, size: int) -> None:
        """Hand over the first ``size`` bytes of an open file."""
        at = 0
        while at < size and (piece := os.pread(fd, min(1 << 20, size - at), at)):
            self.write(piece)
            at += len(piece)
        self.write(b"\n")

    def finish(self) -> None:
        """Wait until everything that was handed over is in the repository, and the branch names it."""
        if self._import is None:
            return
        self.write(DONE)
        assert self._import.stdin is not None
        try:
            self._import.stdin.close()
        except BrokenPipeError as error:
            raise self._failed("fast-import") from error
        if self._ended(_FINISH_S) != 0:
            raise self._failed("fast-import")
        self._import = None

    def _ended(self, within_s: float) -> int:
        assert self._import is not None
        try:
            return self._import.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise self._too_long("fast-import", within_s) from error

    def spool(self) -> IO[bytes]:
        """A file without a name on the disk of the repository."""
        return tempfile.TemporaryFile(dir=f"/proc/self/fd/{self._folder}")

    def _started(self, *words: str) -> subprocess.Popen[bytes]:
        os.ftruncate(self._said, os.lseek(self._said, 0, os.SEEK_SET))
        try:
            return subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                cwd=f"/proc/self/fd/{self._folder}",
                env=dict(_ENVIRONMENT),
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise _no_git() from error

    def _run(self, *words: str) -> None:
        process = self._started(*words)
        assert process.stdin is not None
        process.stdin.close()
        try:
            code = process.wait(_WITHIN_S)
        except subprocess.TimeoutExpired as error:
            process.kill()
            raise self._too_long(words[1], _WITHIN_S) from error
        if code != 0:
            raise self._failed(words[1])

    def _answer(self, *words: str, nothing: tuple[int, ...] = (1,)) -> str | None:
        """What a question to git prints, without the last line end; None where it ends with one of the codes that mean
        ``nothing``. ``ResourceError`` where it fails."""
        try:
            found = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                cwd=f"/proc/self/fd/{self._folder}",
                env=dict(_ENVIRONMENT),
                timeout=_WITHIN_S,
            )
        except FileNotFoundError as error:
            raise _no_git() from error
        except subprocess.TimeoutExpired as error:
            raise self._too_long(words[len(_GIT)], _WITHIN_S) from error
        if found.returncode == 0:
            return found.stdout.decode("utf-8", "replace").rstrip("\n")
        if found.returncode in nothing:
            return None
        raise self._failed(words[len(_GIT)], found.stderr)

    def _too_long(self, what: str, within_s: float) -> ResourceError:
        return ResourceError(
            f"git {what} did not end within {within_s:g} s in {self.name}",
            hint="look at the disk of that directory, then run the command again",
            code="git_failed",
        )

    def _failed(self, what: str, said: bytes | None = None) -> ResourceError:
        size = os.fstat(self._said).st_size
        if said is None:
            said = os.pread(self._said, _LINES_KEPT, max(0, size - _LINES_KEPT))
        words = said.decode("utf-8", "replace").strip()
        return ResourceError(
            f"git {what} failed in {self.name}: {words or 'it says nothing'}",
            hint="mend that, and run the command again: it goes on behind the newest commit",
            code="git_failed",
        )


def _no_git() -> ResourceError:
    return ResourceError(
        "the program git is not installed here", hint="apt-get install git, then again", code="no_program"
    )
