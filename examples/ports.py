"""Ports on loopback for servers that are started later: no two processes that ask here are given the same one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

__all__ = ["NoPortFree", "Ports"]

BLOCK = 25
"""So many ports are claimed at once: one open socket stands for all of them."""


class NoPortFree(AssertionError):
    """Every port of the range is claimed or in use."""


class Ports:
    """Free ports from ``first`` up to ``last``, each given once. They should lie below those that the kernel hands out
    for outgoing connections (32,768 and more), so that what is free now is still free when a server listens there.

    Between the two no process listens, and another process that looks finds it free as well. So a block of ports is
    claimed first: by a Unix socket with an abstract name, which is known in this network namespace alone, as the
    ports are, is bound by one process at a time, and goes with that process, however it ends. Children do not inherit
    it."""

    def __init__(self, first: int, last: int) -> None:
        self._first = first
        self._blocks = (last - first) // BLOCK
        self._next = os.getpid()
        """Where the search begins; where it is does not matter, it only saves looking at what others have claimed."""
        self._claims: list[socket.socket] = []
        self._given = self._all()

    def take(self) -> int:
        """A port that no process uses now and no other caller is given while this process lives; another one at each
        call."""
        for port in self._given:
            if _is_unused(port):
                return port
        raise NoPortFree(
            f"no port from {self._first} to {self._first + self._blocks * BLOCK - 1} is free: "
            f"{len(self._claims)} of {self._blocks} blocks of {BLOCK} are claimed by this process"
        )

    def _all(self) -> Iterator[int]:
        for step in range(self._blocks):
            block = self._first + (self._next + step) % self._blocks * BLOCK
            claim = _claimed(block)
            if claim is not None:
                self._claims.append(claim)
                yield from range(block, block + BLOCK)


def _claimed(block: int) -> socket.socket | None:
    """The socket that holds the claim for as long as it is open; None where another process has it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0instep-ports-{block}")
    except OSError as error:
        claim.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return claim


def _is_unused(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
