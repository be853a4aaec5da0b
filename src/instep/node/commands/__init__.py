"""The commands of the control socket: what carries out which."""

from __future__ import annotations

from instep.node.commands import (
    archive,
    balancers,
    filesets,
    handover,
    lines,
    looking,
    mapping,
    members,
    promote,
    restoring,
    rollouts,
    trying,
    verifying,
)
from instep.node.commands.context import CommandContext
from instep.node.control import Commands

__all__ = ["commands_of"]


def commands_of(context: CommandContext) -> Commands:
    """Every command, by its type."""
    modules = (
        lines, restoring, rollouts, handover, promote, looking, trying, verifying, filesets, archive, members, mapping,
        balancers,
    )  # fmt: skip
    return {kind: handler for module in modules for kind, handler in module.commands(context).items()}
