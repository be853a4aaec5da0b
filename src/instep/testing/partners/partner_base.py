"""A simulated partner, as its side of rollouts knows it."""

from __future__ import annotations

from instep.core.follow.machine import FollowMachine
from instep.core.follow.vocabulary import FollowConfig
from instep.testing.checkers.ledger import Ledger
from instep.testing.world.node import SimNode


class PartnerBase(SimNode):
    """Attributes of ``SimPartner``, which sets all of them."""

    machine: FollowMachine
    ledger: Ledger
    sources: tuple[str, ...]
    config: FollowConfig
