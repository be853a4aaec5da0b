"""The commands of the control socket, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from instep.node.commands import (
    archive,
    filesets,
    handover,
    lines,
    looking,
    mapping,
    members,
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
    for module in (lines, handover, looking, trying, verifying, filesets, archive, members, mapping):
        for name, command in module.commands(daemon).items():
            assert name not in found, name
            found[name] = command
    return found
