"""All commands by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instep.api import (
    access,
    archive,
    balancers,
    debugging,
    filesets,
    lines,
    looking,
    members,
    rollouts,
    succession,
    verifying,
)
from instep.api.changes import collisions, locks, offers, sync
from instep.api.command import Command
from instep.api.shared_parts import jobs, leases, seats

_MODULES = (
    access,
    archive,
    balancers,
    collisions,
    debugging,
    filesets,
    leases,
    jobs,
    lines,
    locks,
    looking,
    members,
    offers,
    rollouts,
    seats,
    succession,
    sync,
    verifying,
)

COMMANDS: Mapping[str, type[Command[Any]]] = {
    kind.command: kind
    for module in _MODULES
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Command) and "command" in vars(kind)
}
