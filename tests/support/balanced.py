"""An application behind a balancer, for the cluster floor: servers that count, and clients that never stop asking."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Clients", "application", "asked"]

ANSWER_S = 60.0


@contextmanager
def application(host: str, port: int, name: str, sick: Container[str] = ()) -> Iterator[None]:
    """Answers every request with its name, the path and the forwarded headers about the client; ``/health`` with 503
    while it is among the sick."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told = f"{name} {self.path} {self.headers.get('X-Forwarded-For', '-')}".encode()
            is_well = not (self.path.startswith("/health") and name in sick)
            self.send_response(200 if is_well else 503)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def handle(self) -> None:
            with suppress(ConnectionError):  # a balancer ends idle connections as it likes
                super().handle()

        def log_message(self, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(60)


def asked(
    port: int, path: str = "/", headers: dict[str, str] | None = None
) -> tuple[int, list[str], dict[str, str]]:
    """Status, the words of the answer, its headers by name in small letters; over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode().split(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


class Clients:
    """Some clients that ask one after the other until the test stops them; each answer and each failure is counted.
    They take a new cookie like a browser."""

    def __init__(self, port: int, count: int = 4, headers: dict[str, str] | None = None) -> None:
        self._port = port
        self._headers = headers
        self.sequence: list[str] = []
        """The nodes that answered, in order."""
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._served: Counter[str] = Counter()
        self.total = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(ANSWER_S + 5)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                status, words, told = asked(self._port, "/", self._headers)
                who = words[0] if status == 200 else ""
                why = "" if who else f"status {status}"
            except (OSError, http.client.HTTPException) as error:
                who, why, told = "", repr(error), {}
            with self._lock:
                if who:
                    self._served[who] += 1
                    self.total += 1
                    self.sequence.append(who)
                    if self._headers is not None and "set-cookie" in told:
                        self._headers = {"Cookie": told["set-cookie"].partition(";")[0]}
                else:
                    self.failures.append(why)
            self._stop.wait(0.002)

    def has_served(self, total: int) -> bool:
        """Whether so many requests were answered since the beginning."""
        return self.total >= total

    def take(self) -> Counter[str]:
        """How often each node answered since the last call."""
        with self._lock:
            taken, self._served = self._served, Counter()
        return taken
