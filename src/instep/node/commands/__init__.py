"""The commands of the control socket: handlers, by the command that they take."""

from __future__ import annotations

import inspect
import typing
from typing import Any

from instep.api.command import Command
from instep.node.access.door import Commands, Handler
from instep.node.commands.adopting import Adopting
from instep.node.commands.archive import Archives
from instep.node.commands.changes.collisions import Collisions
from instep.node.commands.changes.forgetting import Forgetting
from instep.node.commands.changes.locks import Locks
from instep.node.commands.changes.offers import Offers
from instep.node.commands.changes.sync import SyncCommands
from instep.node.commands.cluster.access import AccessCommands
from instep.node.commands.cluster.balancers import BalancerCommands
from instep.node.commands.cluster.explaining import Explaining
from instep.node.commands.cluster.mapping import Mapper
from instep.node.commands.cluster.members import MemberCommands
from instep.node.commands.context import CommandContext, CommandHandlers
from instep.node.commands.debugging import Debugging
from instep.node.commands.filesets import Filesets
from instep.node.commands.lines import Lines
from instep.node.commands.looking import Looking
from instep.node.commands.patience import needing_its_tree
from instep.node.commands.restoring import Restores
from instep.node.commands.rollouts import Rollouts
from instep.node.commands.shared_parts.jobs import Jobs
from instep.node.commands.shared_parts.leases import Leases
from instep.node.commands.shared_parts.seats import Seats
from instep.node.commands.trying import Trying
from instep.node.commands.verifying import Verifying
from instep.node.commands.writer_changes.handover import Handover
from instep.node.commands.writer_changes.promote import Promote

HANDLERS: tuple[type[CommandHandlers], ...] = (
    AccessCommands, Adopting, Archives, BalancerCommands, Collisions, Explaining, Filesets, Forgetting, Handover, Jobs,
    Leases, Lines, Locks, Looking, Mapper, MemberCommands, Offers, Promote, Restores, Rollouts, Seats, SyncCommands,
    Trying, Verifying, Debugging,
)  # fmt: skip


def commands_of(context: CommandContext) -> Commands:
    """Every command with the public coroutine that takes it as ``asked``."""
    found: dict[type[Command[Any]], Handler] = {}
    for handlers in HANDLERS:
        for name, handler in inspect.getmembers(handlers(context), inspect.iscoroutinefunction):
            if not name.startswith("_"):
                kind = typing.get_type_hints(handler)["asked"]
                assert kind not in found, kind
                found[kind] = needing_its_tree(context.node, handler) if kind.needs_tree else handler
    return found
