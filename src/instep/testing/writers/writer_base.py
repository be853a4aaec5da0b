"""A simulated writer, as its parts know it: its restores, its rollouts, its scans and the guard outside."""

from __future__ import annotations

from typing import Any

from instep.core.publish.machine import PublishMachine
from instep.model.ids import Digest
from instep.testing.checkers.ledger import Ledger
from instep.testing.checkers.outside_guard import OutsideGuard
from instep.testing.world.node import SimNode


class WriterBase(SimNode):
    """Attributes of ``SimWriter``, which sets all of them."""

    machine: PublishMachine
    partners: tuple[str, ...]
    ledger: Ledger
    guard: OutsideGuard
    config: Any
    unreadable: dict[bytes, None]
    """Paths that a scan cannot read at the moment."""
    hot_at_ms: float
    hot_copies: dict[Digest, bytes]
    """The copies of the hot file that scans made, by digest."""
    accepting: dict[int, None]
    """Requests that accept what they remove."""
    asked_here: dict[int, None]
    """Requests of operators that this process has not answered."""

    def new_request(self) -> int:
        """The number of one more request of an operator."""
        self.ledger.requests += 1
        request = self.ledger.requests
        self.ledger.asked[request] = self.asked_here[request] = None
        return request
