"""A network between two nodes that a test can cut: a relay on loopback that forwards bytes until the test stops it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from tests.support.fleet import free_port

__all__ = ["Relay"]

CHUNK = 1 << 16
LOOK_S = 0.2


class Relay:
    """Forwards from its own port to ``target``. While it is cut, every connection is dead and nothing listens."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._ends = threading.Event()
        self._accepting: threading.Thread | None = None
        self.mend()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def mend(self) -> None:
        assert self._accepting is None, "it is not cut"
        listener = socket.create_server(("127.0.0.1", self.port))
        listener.settimeout(LOOK_S)
        self._ends = threading.Event()
        self._accepting = threading.Thread(target=self._accept, args=(listener, self._ends), daemon=True)
        self._accepting.start()

    def cut(self) -> None:
        if self._accepting is None:
            return
        self._ends.set()
        self._accepting.join()
        self._accepting = None
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):  # the other side was faster
                    end.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket, ends: threading.Event) -> None:
        with listener:
            while not ends.is_set():
                try:
                    near, _ = listener.accept()
                except TimeoutError:
                    continue
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), timeout=60)
                except OSError:
                    near.close()
                    continue
                near.settimeout(None)
                far.settimeout(None)
                with self._lock:
                    self._open |= {near, far}
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._forward, args=(one, other), daemon=True).start()

    def _forward(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):  # cut, or ended by one side
            while data := one.recv(CHUNK):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._open.discard(one)
        one.close()
