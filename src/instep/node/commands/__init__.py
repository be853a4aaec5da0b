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
from instep.node.control import Command

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
        for name, command in module.commands(daemon).items():
            assert name not in found, name
            found[name] = command
    return found
