"""A small web application of a node: it answers with files of the node's tree, and a moment that always differs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

__all__ = ["Application", "application"]


class Application(ThreadingHTTPServer):
    """``url`` answers ``/NAME`` with the file of that name; ``status`` is the status of all answers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.status = 200
        self.cookies: Iterator[str] = iter(())
        """What each answer sets as a cookie, until it ends."""
        self.asked: list[tuple[str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Application

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers)))
        try:
            body = (self.server.root / self.path.partition("?")[0].lstrip("/")).read_bytes()
            status = self.server.status
        except OSError:
            body, status = b"not there", 404
        if not body.startswith(b"\x89PNG"):
            body += f"\nanswered at {time.time_ns()}\n".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for cookie in islice(self.server.cookies, 1):
            self.send_header("Set-Cookie", f"{cookie}; Path=/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of http.server
        """Nothing on the test's stderr."""


@contextmanager
def application(root: Path) -> Iterator[Application]:
    """Runs until the end of the block."""
    server = Application(root)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
