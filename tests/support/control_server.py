"""A control server for tests of the command line: speaks the real protocol, answers what the test says."""

from __future__ import annotations

import json
import os
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from instep.api.catalog import COMMANDS
from instep.api.command import command_from, result_from
from instep.errors import UsageError

__all__ = ["FakeDaemon"]

Answer = Callable[[dict[str, Any]], list[dict[str, Any]]]


class FakeDaemon:
    """Commands to answers, and every call that came in, in order."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self._answers: dict[str, Answer] = {}
        self.answer("ping", {"node": "main", "pid": os.getpid()})

    def answer(self, command: str, result: dict[str, Any]) -> None:
        """Answer so from now on; a document that the real daemon could not send is refused here."""
        result_from(COMMANDS[command], result)
        self._answers[command] = lambda _: [{"result": result}]

    def lines(self, command: str, *lines: dict[str, Any]) -> None:
        self._answers[command] = lambda _: list(lines)

    def replies(self, command: str, answer: Answer) -> None:
        """Answer by the parameters."""
        self._answers[command] = answer

    def answers(self, command: str, params: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            command_from(COMMANDS[command], params)
        except UsageError as error:
            return [{"error": error.as_json()}]
        if command in self._answers:
            return self._answers[command](params)
        return [{"error": {"exit_code": 2, "reason": f"no command {command}", "code": "unknown"}}]

    def params(self, command: str) -> dict[str, Any]:
        """The parameters of the last call of this command."""
        return next(params for name, params in reversed(self.calls) if name == command)

    @contextmanager
    def running(self) -> Iterator[FakeDaemon]:
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                command = self.path.rpartition("/")[2]
                params = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                daemon.calls.append((command, params))
                self.send_response(200)
                self.end_headers()
                for line in daemon.answers(command, params):
                    self.wfile.write(json.dumps(line).encode() + b"\n")

            def log_message(self, *_: object) -> None:
                """Tests look at ``calls``."""

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A caller that has read its last line may be gone before ours is written."""
                if not isinstance(sys.exc_info()[1], ConnectionError):
                    super().handle_error(request, client_address)

        with Server(str(self.path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
                self.path.unlink()
