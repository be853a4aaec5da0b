"""The context of the handlers of commands: the node, and the services above it that commands look at."""

from __future__ import annotations

from dataclasses import dataclass

from instep.node.access.access import Access
from instep.node.balance.balancer_files import Balancers
from instep.node.balance.listeners import Listeners
from instep.node.cluster.seat_desk import SeatDesk
from instep.node.cluster.service import ClusterService
from instep.node.cluster.shared_work import SharedWork
from instep.node.node import Node
from instep.node.syncing.sync_runs import SyncRuns
from instep.node.syncing.sync_schedule import SyncSchedule
from instep.node.upkeep.copies import CopiesWatch
from instep.node.upkeep.housekeeping import Housekeeping
from instep.node.upkeep.installed_files import InstalledFiles


@dataclass(frozen=True, slots=True)
class CommandContext:
    """Made once, by the daemon."""

    node: Node
    balancers: Balancers
    housekeeping: Housekeeping
    listeners: Listeners
    installed: InstalledFiles
    cluster: ClusterService
    access: Access
    shared_work: SharedWork
    seat_desk: SeatDesk
    sync: SyncRuns
    sync_schedule: SyncSchedule
    copies: CopiesWatch


class CommandHandlers:
    """Handlers of some commands: each public coroutine takes the command that the type of its ``asked`` names."""

    def __init__(self, context: CommandContext) -> None:
        self._context, self._node = context, context.node
