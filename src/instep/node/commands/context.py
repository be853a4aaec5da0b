"""What the handlers of commands work on: the node, and those services above it that commands look at."""

from __future__ import annotations

from dataclasses import dataclass

from instep.node.balancer_service import Balancers
from instep.node.housekeeping import Housekeeping
from instep.node.listeners import Listeners
from instep.node.node import Node

__all__ = ["CommandContext"]


@dataclass(frozen=True, slots=True)
class CommandContext:
    """Made once, by the daemon."""

    node: Node
    balancers: Balancers
    housekeeping: Housekeeping
    listeners: Listeners
