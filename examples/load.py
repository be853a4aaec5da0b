"""A steady load of requests that keeps every answer's story: when, how long, what came, from which node."""

from __future__ import annotations

import hashlib
import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

__all__ = ["Answer", "Load", "ask", "told"]

TIMEOUT_S = 60.0
CLOSED = ("RemoteDisconnected", "ConnectionResetError", "BrokenPipeError")
"""Closed before a byte of an answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request. ``began`` and ``ended`` are seconds of the monotonic clock; ``node`` is the header ``X-Node``."""

    began: float
    ended: float
    status: int
    kind: str
    digest: str
    node: str
    error: str = ""
    tries: int = 1
    """More than one: the connection that was kept open was closed before any answer, and a new one was made."""
    head: bytes = b""
    """The first bytes of an answer that is no picture, to follow a failure."""


def ask(port: int, path: str, connection: http.client.HTTPConnection | None = None) -> Answer:
    """One GET. Without a ``connection`` it makes one of its own and closes it.

    A server may close a connection that is kept open while nothing is asked; nginx does at each reload. A client then
    asks again over a new one, as RFC 9112 (9.3.1) has it and every browser does. Nothing else is asked twice.
    """
    if connection is not None and connection.sock is not None:
        first = _asked(port, path, connection)
        if not first.error.startswith(CLOSED):
            return first
        second = _asked(port, path, connection)
        return replace(second, began=first.began, tries=2)
    return _asked(port, path, connection)


def _asked(port: int, path: str, connection: http.client.HTTPConnection | None) -> Answer:
    began = time.monotonic()
    used = connection or http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    where = ""
    try:
        used.request("GET", path)
        reply = used.getresponse()
        where = "within the answer: "
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        used.close()
        told = f"{where}{type(error).__name__}: {error}"
        return Answer(began, time.monotonic(), 0, "", "", "", error=told)
    finally:
        if connection is None:
            used.close()
    kind = reply.getheader("Content-Type", "").split(";")[0]
    head = b"" if kind.startswith("image/") else body[:300]
    node = reply.getheader("X-Node", "")
    digest = hashlib.sha256(body).hexdigest()[:16]
    return Answer(began, time.monotonic(), reply.status, kind, digest, node, head=head)


@dataclass
class Load:
    """``workers`` threads, each asking every ``every_s``; every second of them keeps its connection open."""

    port: int
    path: str
    workers: int = 4
    every_s: float = 0.1
    answers: list[Answer] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        for number in range(self.workers):
            thread = threading.Thread(target=self._work, args=(number,), name=f"load-{number}")
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT_S + 5)

    def _work(self, number: int) -> None:
        connection = (
            http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S) if number % 2 else None
        )
        following = time.monotonic() + self.every_s * number / self.workers
        while not self._stop.wait(max(0.0, following - time.monotonic())):
            self.answers.append(ask(self.port, self.path, connection))
            following = max(following + self.every_s, time.monotonic())
        if connection is not None:
            connection.close()

    def failures(self, kind: str, digests: Collection[str]) -> list[Answer]:
        """Every answer that is not 200, of that kind, with one of these contents."""
        return [
            each for each in self.answers
            if each.error or each.status != 200 or each.kind != kind or each.digest not in digests
        ]  # fmt: skip

    def report(self, kind: str, digests: Collection[str]) -> dict[str, Any]:
        failures = self.failures(kind, digests)
        return {
            "requests": len(self.answers),
            "failures": len(failures),
            "asked_again": sum(each.tries > 1 for each in self.answers),
            "first_failures": [told(each) for each in failures[:5]],
            "longest_pause_ms": self.longest_pause_ms(),
            "longest_answer_ms": self.longest_answer_ms(),
            "answered_by": self.by_node(),
        }

    def keep(self, file: Path) -> None:
        """Every answer's story, to follow a failure."""
        with file.open("w") as table:
            for each in sorted(self.answers, key=lambda each: each.began):
                table.write(f"{told(each)}\n")

    def longest_answer_ms(self) -> int:
        return round(1000 * max((each.ended - each.began for each in self.answers), default=0.0))

    def longest_pause_ms(self) -> int:
        """The longest time in which no answer came at all."""
        ends = sorted(each.ended for each in self.answers)
        return round(1000 * max((b - a for a, b in itertools.pairwise(ends)), default=0.0))

    def by_node(self) -> dict[str, int]:
        return dict(sorted(Counter(each.node for each in self.answers).items()))


def told(answer: Answer) -> str:
    """One answer for a person who follows a failure."""
    what = answer.error or f"{answer.status} {answer.kind} {answer.digest} {answer.head!r}"
    what += " (asked again)" if answer.tries > 1 else ""
    return f"{answer.began:.3f}+{answer.ended - answer.began:.3f} s from {answer.node or 'no node'}: {what}"
