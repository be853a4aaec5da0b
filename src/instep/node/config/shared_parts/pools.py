"""Pools: places for users, counted once in the cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from instep.core.cluster.seats import KeyRule
from instep.model.address import Address
from instep.node.config import values
from instep.node.config.keys import NO_DEFAULT, key
from instep.node.config.kinds import enum_of, list_of, matching, whole_number
from instep.node.config.shared_parts.named_tables import read_named
from instep.node.config.table_reader import Table
from instep.node.config.values import duration_ms

PLACES_MAX = 1_000_000
GRACE_MS_MIN = 10_000
_SERVERS_MAX = 16
_kind_name = matching(
    r"[a-z0-9][a-z0-9._-]{0,31}", "is not the name of a kind of licences such as authorized"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Places for users, counted once in the cluster."""

    name: str
    places: int = key(
        NO_DEFAULT, whole_number(1, PLACES_MAX, f"is not a whole number from 1 to {PLACES_MAX}")
    )
    """The number of users who may be seated at a time, on however many nodes each."""
    kind: str = key("authorized", _kind_name)
    """A name for the kind of licences. A node whose kind differs from the one in use gets no places."""
    linger_ms: int = key("0", duration_ms, name="linger")
    """How long a place stays the user's after the last use was released."""
    grace_ms: int = key("2m", duration_ms)
    """How long seated users go on while the database is away from their node, and how long their places stay taken."""
    users: KeyRule = key("fold", enum_of(KeyRule))
    """Which names are one user: `fold` counts `Ana` and `ana` once, `exact` twice."""
    servers: tuple[Address, ...] = key([], list_of(values.address, _SERVERS_MAX))
    """Addresses of licence servers; those that answer are handed out first."""


def read_pools(top: Table) -> dict[str, PoolSettings]:
    return read_named(top, "pools", PoolSettings, _check)


def _check(table: Table, row: dict[str, Any]) -> None:
    if row["grace_ms"] < GRACE_MS_MIN:
        table.wrong("grace", "is shorter than 10s, in which a node renews the places of its users")
