"""Standby services: applications that run on one node of the cluster only."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from instep.model.ids import NodeName
from instep.node.config.hooks import NO_TIME
from instep.node.config.keys import key
from instep.node.config.kinds import BadValue, kind, string
from instep.node.config.shared_parts.named_tables import read_named
from instep.node.config.table_reader import Table
from instep.node.config.values import duration_ms, node_name, program

_ROLE = re.compile(r"[a-z_][a-z0-9_]{0,62}")


@kind()
def _roles(raw: object) -> Mapping[NodeName, str]:
    if not isinstance(raw, dict):
        raise BadValue('is not a table of roles by node such as { s1 = "app_s1", s2 = "app_s2" }')
    found = {node_name(name): string(role) for name, role in raw.items()}
    for role in found.values():
        if not _ROLE.fullmatch(role):
            raise BadValue(f"has {role!r}, which is not the name of a role such as app_s1")
    if len(set(found.values())) < len(found):
        raise BadValue("has one role for two nodes: only a role of its own can be taken from a node")
    return MappingProxyType(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class StandbySettings:
    """How the node that takes a service over keeps all others from it. Without a table the lease alone does."""

    name: str
    roles: Mapping[NodeName, str] = key({}, _roles)
    """The role of the cluster's PostgreSQL server that the application logs in as, by node. The node that takes over
    lets its own log in, and no other."""
    fence: tuple[str, ...] | None = key(None, program)
    """A program that must succeed before the application starts, as one that cuts the other servers off."""
    fence_timeout_ms: int = key("30s", duration_ms)
    """How long that program may take."""


def read_standby(top: Table) -> dict[str, StandbySettings]:
    return read_named(top, "standby", StandbySettings, _check)


def _check(table: Table, row: dict[str, Any]) -> None:
    if row["fence_timeout_ms"] < 1:
        table.wrong("fence_timeout", NO_TIME)
