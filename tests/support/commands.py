"""Commands and daemons of the cluster floor: each in a process of its own, without starting Python each time.

One process per test session and version of instep imports the command line and the daemon once and forks for each.
The fork is a real process with its own arguments, environment and output, is killed like one, and ends with its own
exit code; only the imports are shared. ``python -m instep.cli`` itself is what ``test_joining`` and the examples run.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

__all__ = ["Forked", "run_command", "spawn_daemon"]

ROOT = Path(__file__).resolve().parents[2]
SOURCE = str(ROOT / "src")
"""The version of instep that is tested."""
NUMBER = struct.Struct(">i")
READY_S = 60.0
KILLED_S = 20.0


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], timeout: float, source: str = SOURCE
) -> subprocess.CompletedProcess[str]:
    """Run ``instep ARGUMENTS``; its exit code and output. ``TimeoutExpired`` when it does not end, which kills it."""
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        forked = Forked("instep.cli", arguments, environment, out, err, source)
        try:
            code = forked.wait(timeout)
        except subprocess.TimeoutExpired:
            forked.kill()
            forked.wait(KILLED_S)
            raise
        return subprocess.CompletedProcess(list(arguments), code, _text(out), _text(err))


def spawn_daemon(
    directory: Path, environment: Mapping[str, str], log: IO[bytes], source: str = SOURCE
) -> Forked:
    """Start the daemon of a node directory and do not wait for it."""
    return Forked("instep.daemon", [str(directory)], environment, log, log, source)


class Forked:
    """One fork, with the part of ``Popen`` that tests need."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        out: IO[bytes],
        err: IO[bytes],
        source: str = SOURCE,
    ) -> None:
        self.returncode: int | None = None
        self._arguments = list(arguments)
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._link.settimeout(READY_S)
        self._link.connect(_server(source)[0])
        asked = {"module": module, "arguments": self._arguments, "environment": dict(environment)}
        body = json.dumps(asked).encode()
        socket.send_fds(self._link, [NUMBER.pack(len(body))], [out.fileno(), err.fileno()])
        self._link.sendall(body)
        self.pid = _number(self._link)

    def wait(self, timeout: float) -> int:
        """The exit code, negative for a signal. ``TimeoutExpired`` when the process goes on."""
        if self.returncode is None:
            self._link.settimeout(timeout)
            try:
                self.returncode = _number(self._link)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self._arguments, timeout) from None
            self._link.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def release(self) -> None:
        """Ask for it no more: it goes on by itself."""
        self._link.close()

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


def _number(link: socket.socket) -> int:
    found: int = NUMBER.unpack(_exactly(link, NUMBER.size))[0]
    return found


def _exactly(link: socket.socket, size: int) -> bytes:
    raw = b""
    while len(raw) < size:
        more = link.recv(size - len(raw))
        if not more:
            raise AssertionError("the process that forks commands and daemons has ended")
        raw += more
    return raw


@cache
def _server(source: str) -> tuple[str, subprocess.Popen[bytes]]:
    """The address of this session's server for a version of instep and the server, which is started at the first
    command and ends with us."""
    name = f"\0instep-commands-{os.getpid()}-{zlib.crc32(source.encode()):08x}"
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.commands", name[1:]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd="/",
        env={**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{ROOT}"},
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        raise AssertionError(
            f"the process that forks commands and daemons ended with {process.wait(READY_S)}"
        )
    process.stdout.close()
    atexit.register(_end, process)
    return name, process


def _end(process: subprocess.Popen[bytes]) -> None:
    """The server ends when no process holds the other end of its input, also when this process was killed."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait(READY_S)


# The server -------------------------------------------------------------------------------------------------


def _serve(name: str) -> None:
    """Accept, fork, and leave everything else to the fork."""
    import select

    _import_all()
    gc.freeze()  # memory that the forks share stays shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(f"\0{name}")
        listener.listen(16)
        os.write(sys.stdout.fileno(), b"ready\n")
        while True:
            ready, _, _ = select.select([listener, sys.stdin], [], [])
            if sys.stdin in ready:
                return
            link, _ = listener.accept()
            with link:
                if os.fork() == 0:
                    listener.close()
                    _attend(link)


def _import_all() -> None:
    import importlib

    from instep.cli.main import COMMANDS

    _daemon()

    for module in sorted(set(COMMANDS.values())):
        importlib.import_module(f"instep.cli.{module}")


def _daemon() -> Any:
    """The module that runs a daemon, with everything that it needs; an older version has it in another room."""
    import importlib
    import importlib.util

    room = "daemon" if importlib.util.find_spec("instep.daemon") else "node"
    return importlib.import_module(f"instep.{room}.process")


def _attend(link: socket.socket) -> None:
    """One process: send its id, wait for it, send its exit code. Never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raw, descriptors, _, _ = socket.recv_fds(link, NUMBER.size, 2)
        raw += _exactly(link, NUMBER.size - len(raw))
        asked = json.loads(_exactly(link, NUMBER.unpack(raw)[0]))
        pid = os.fork()
        if pid == 0:
            link.close()
            _become(asked, descriptors)
        for each in (*descriptors, 0):
            os.close(each)
        link.sendall(NUMBER.pack(pid))
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        link.sendall(NUMBER.pack(code))
    except BrokenPipeError:
        code = 0  # no caller asks for this process any more
    except BaseException:  # noqa: BLE001 - the last frame of a fork: it must not go on as the server
        traceback.print_exc()
    finally:
        os._exit(code & 0xFF)


def _become(asked: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Be the command or the daemon. Never returns."""
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((null, *descriptors)):
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.stdin = open(0)  # noqa: SIM115 - ends with the process
        sys.argv = ["instep", *asked["arguments"]]
        code = _main(asked["module"], asked["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    except BaseException:  # noqa: BLE001 - the last frame of a fork: it must not go on as the server
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code & 0xFF)


def _main(module: str, arguments: list[str]) -> int:
    if module == "instep.daemon":
        _daemon().run(Path(arguments[0]))
        return 0
    from instep.cli.main import run

    return run(arguments)


if __name__ == "__main__":
    _serve(sys.argv[1])
