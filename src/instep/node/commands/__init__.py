"""The commands of the control socket: what carries out which."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from instep.node.control import Commands

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands_of"]


def commands_of(daemon: Daemon) -> Commands:
    """Every command of this daemon."""
    modules = (
        lines, restoring, rollouts, handover, promote, looking, trying, verifying, filesets, archive, members, mapping,
        balancers,
    )  # fmt: skip
    return {kind: handler for module in modules for kind, handler in module.commands(daemon).items()}
