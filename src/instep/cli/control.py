"""The caller's side of the control socket: HTTP/1.0 over a Unix socket, answers in JSON lines.

``POST /v1/<command>`` with JSON parameters is answered by ``{"progress": ...}`` or ``{"item": ...}`` lines and a last
``{"result": ...}`` or ``{"error": ...}``. A call without a deadline of its own ends after two minutes of silence.
Nothing heavy is imported, because every command starts here.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from instep.api.command import OTHER_VERSION, Command, Result, as_json, result_from
from instep.api.looking import PingCommand
from instep.errors import InstepError, UnavailableError, family_of
from instep.model.counts import lasting

SILENCE_S = 120.0
CONNECT_S = 5.0
LINE_MAX = 64 << 20
HEADER_MAX = 8 << 10
HALTED = "daemon_halted"


class DaemonDown(UnavailableError):
    """No daemon answers on the control socket."""

    code = "daemon_down"


def error_from_json(told: Mapping[str, Any]) -> InstepError:
    """The error that the daemon sent, as an exception of its family."""
    family = family_of(told.get("exit_code"))
    error = family(str(told.get("reason")), hint=told.get("hint"), code=told.get("code"))
    error.facts = dict(told.get("facts") or {})
    if error.error_code == "unknown_command":  # daemons of before say only that
        error.hint = error.hint or OTHER_VERSION
    return error


def _short(path: Path) -> str:
    """A name for the socket that fits into the 107 bytes of ``sockaddr_un``."""
    name = str(path)
    if len(name.encode()) <= 107:
        return name
    import os

    # The descriptor stays open until the process ends: a command makes few connections.
    return f"/proc/self/fd/{os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}/{path.name}"


def refuse_halted(directory: Path) -> None:
    """``UnavailableError`` at once: a halted daemon answers after any deadline, or never."""
    from instep.node.directory import NodeDirectory

    pid = NodeDirectory(directory).halted_pid
    if pid is not None:
        reason = f"the daemon does nothing: a signal (SIGSTOP) or a debugger halted its process {pid}"
        raise UnavailableError(reason, hint=f"kill -CONT {pid}", code="daemon_halted", pid=pid)


class Control:
    """Calls to one node's daemon."""

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def is_up(self) -> bool:
        """Whether a daemon answers."""
        try:
            self.ask(PingCommand(), timeout_s=CONNECT_S)
        except UnavailableError:
            return False
        return True

    def call(
        self,
        command: str,
        params: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """The result of one command. ``DaemonDown`` when no daemon listens, else the error of the daemon."""
        for line in self._lines(command, params, timeout_s):
            if "result" in line:
                result: dict[str, Any] = line["result"]
                return result
            if "progress" in line and on_progress is not None:
                on_progress(line["progress"])
        raise UnavailableError(
            f"the daemon ended during {command}",
            hint="instep status; then look at its log",
            code="daemon_ended",
        )

    def ask(
        self,
        command: Command[Result],
        *,
        timeout_s: float | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> Result:
        """The result of one command; ``timeout_s`` is the caller's patience, the command has its own."""
        told = self.call(command.command, as_json(command), timeout_s=timeout_s, on_progress=on_progress)
        return result_from(type(command), told)

    def watch(self, command: Command[Result]) -> Iterator[Result]:
        """The items of a watching command, until the caller stops or the daemon ends."""
        for line in self._lines(command.command, as_json(command), None):
            if "item" in line:
                yield result_from(type(command), line["item"])
            elif "result" in line:
                return

    def _lines(
        self, command: str, params: Mapping[str, Any], timeout_s: float | None
    ) -> Iterator[dict[str, Any]]:
        refuse_halted(self._path.parent)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        silence_s = SILENCE_S if timeout_s is None else timeout_s
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        answer = link.makefile("rb")
        try:
            _ask(link, answer, self._path, command, json.dumps(params).encode(), silence_s)
            while True:
                if deadline is not None and time.monotonic() > deadline:
                    raise TimeoutError
                raw = answer.readline(LINE_MAX)
                if not raw:
                    return
                line = json.loads(raw)
                if "error" in line:
                    raise error_from_json(line["error"])
                yield line
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise DaemonDown(
                f"no daemon runs for {self._path.parent}",
                hint=f"instep --dir {self._path.parent} start",
                directory=str(self._path.parent),
            ) from error
        except TimeoutError as error:
            waited = lasting((silence_s if timeout_s is None else timeout_s) * 1000)
            raise UnavailableError(
                f"waited {waited} for the daemon to answer {command}",
                hint="instep status; or a longer --timeout",
                code="timeout",
                waiting_for=[command],
            ) from error
        except PermissionError as error:
            from instep.node.directory import not_allowed

            raise not_allowed(self._path.parent) from error
        except (OSError, ValueError) as error:
            raise UnavailableError(
                f"the daemon ended during {command}, or its answer cannot be read",
                hint="instep status; then look at the daemon's log",
                code="daemon_ended",
                why=f"{type(error).__name__}: {error}",
            ) from error
        finally:
            answer.close()
            link.close()


def _ask(
    link: socket.socket, answer: BinaryIO, path: Path, command: str, body: bytes, silence_s: float
) -> None:
    """Send the request and read on to the lines of the answer, which in HTTP/1.0 end with the connection."""
    link.settimeout(CONNECT_S)
    link.connect(_short(path))
    link.settimeout(silence_s)
    about = f"Content-Type: application/json\r\nContent-Length: {len(body)}"
    link.sendall(f"POST /v1/{command} HTTP/1.0\r\n{about}\r\n\r\n".encode() + body)
    status = answer.readline(HEADER_MAX)
    if status and status.split()[1:2] != [b"200"]:
        raise ValueError(f"it answered {status!r}")
    while answer.readline(HEADER_MAX).strip():
        pass
