"""A simulated writer, as its parts know it: its restores, its rollouts, its scans and the guard outside."""

from __future__ import annotations

from instep.core.publish.machine import PublishMachine
from instep.model.ids import Digest, LineId
from instep.testing.checkers.ledger import Ledger
from instep.testing.checkers.outside_guard import OutsideGuard
from instep.testing.world.hook_writes import SimHookWrites
from instep.testing.world.network import Network
from instep.testing.world.node import SimNode
from instep.testing.world.world import World


class WriterBase(SimNode):
    """The state of ``SimWriter`` that its parts share."""

    machine: PublishMachine
    guard: OutsideGuard

    def __init__(
        self, world: World, net: Network, name: str, line: LineId, partners: tuple[str, ...], ledger: Ledger
    ) -> None:
        super().__init__(world, net, name, line)
        self.partners = partners
        self.ledger = ledger
        self.unreadable: dict[bytes, None] = {}
        """Paths that a scan cannot read at the moment."""
        self.hook_writes = SimHookWrites(self)
        self.hot_at_ms = 0
        self.hot_copies: dict[Digest, bytes] = {}
        """The copies of the hot file that scans made, by digest."""
        self.accepting: dict[int, None] = {}
        """Requests that accept what they remove."""
        self.asked_here: dict[int, None] = {}
        """Requests of operators that this process has not answered."""

    def new_request(self) -> int:
        """The number of one more request of an operator."""
        self.ledger.requests += 1
        request = self.ledger.requests
        self.ledger.asked[request] = self.asked_here[request] = None
        return request
