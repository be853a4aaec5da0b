"""The context of the handlers of commands: the node, and those services above it that commands look at."""

from __future__ import annotations

from dataclasses import dataclass

from instep.node.balance.balancer_files import Balancers
from instep.node.balance.listeners import Listeners
from instep.node.node import Node
from instep.node.upkeep.housekeeping import Housekeeping


@dataclass(frozen=True, slots=True)
class CommandContext:
    """Made once, by the daemon."""

    node: Node
    balancers: Balancers
    housekeeping: Housekeeping
    listeners: Listeners
