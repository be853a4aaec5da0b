"""The commands of the control socket, by name."""

from __future__ import annotations

from collections.abc import Mapping
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
from instep.node.control import Command, typed

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands_of"]


def commands_of(daemon: Daemon) -> Mapping[str, Command]:
    """Every command of this daemon."""
    found: dict[str, Command] = {}
    for module in (
        lines, restoring, rollouts, handover, promote, looking, trying, verifying, filesets, archive, members, mapping,
        balancers,
    ):  # fmt: skip
        for kind, command in module.commands(daemon).items():
            name = kind if isinstance(kind, str) else kind.command
            assert name not in found, name
            found[name] = command if isinstance(kind, str) else typed(kind, command)
    return found
