"""Leases of the cluster's database, and the database itself as a node sees it."""

from __future__ import annotations

from typing import Annotated

import msgspec

from instep.api.command import Command, Document, Message, Role, command
from instep.errors import (
    ConfigError,
    ContentionError,
    DamagedError,
    NotAllowedError,
    RefusedError,
    ResourceError,
    UnavailableError,
)

LeaseName = Annotated[str, msgspec.Meta(max_length=128)]
TtlMs = Annotated[int, msgspec.Meta(ge=1, le=30_000)]


class DatabaseDocument(Document, frozen=True):
    """The cluster's database as this node sees it. ``quiet_until``: after a failover nothing changes hands before."""

    database: str | None
    reached: bool
    code: str | None
    reason: str | None
    since: str | None
    era: int | None
    quiet_until: str | None
    next: tuple[str, ...] = ()


class LeaseDocument(Document, frozen=True):
    """One lease: ``held``, ``broken`` (its holder is being stopped) or ``free``. ``fence`` orders its grants."""

    name: str
    state: str
    holder: str | None
    fence: str
    since: str | None
    until: str | None
    reason: str | None


class LeasesDocument(Document, frozen=True):
    """All leases that were ever held, by name."""

    leases: tuple[LeaseDocument, ...]
    database: DatabaseDocument


_FAMILIES = (
    ConfigError, RefusedError, NotAllowedError, ContentionError, UnavailableError, ResourceError, DamagedError,
)  # fmt: skip


@command("lease_list", Role.VIEWER, *_FAMILIES)
class LeaseListCommand(Command[LeasesDocument], frozen=True):
    """The leases of the cluster, and how this node stands to its database."""


class LeaseBreakDocument(Document, frozen=True):
    """A broken lease; ``free_at`` is when another holder can have it."""

    name: str
    changed: bool
    holder: str | None
    free_at: str | None


@command("lease_break", Role.OPERATOR, *_FAMILIES)
class LeaseBreakCommand(Command[LeaseBreakDocument], frozen=True):
    """Let no renewal of a lease succeed; it is free when its holder has stopped."""

    name: LeaseName
    reason: Message


class LeaseStateDocument(Document, frozen=True):
    """A lease that a program asked for: ``waiting``, ``held``, ``stop`` (end what runs, then release) or ``ended``.

    ``stop_at_ms`` and ``until_ms`` are by the machine's clock since boot: without further word the program begins to
    stop at the first, and nothing of it runs at the second."""

    hold: str
    state: str
    fence: str | None = None
    stop_at_ms: int | None = None
    until_ms: int | None = None
    holder: str | None = None
    why: str | None = None


@command("lease_hold", Role.OPERATOR, *_FAMILIES)
class LeaseHoldCommand(Command[LeaseStateDocument], frozen=True):
    """Take a lease and keep it until it is released: an item each second, and for each change. ``ContentionError`` at
    once when another holder has it, unless the caller waits."""

    name: LeaseName
    ttl_ms: TtlMs = 15_000
    wait: bool = False


class LeaseGroupDocument(Document, frozen=True):
    """Whether the daemon knows of the programs under a lease."""

    hold: str
    known: bool


@command("lease_guard", Role.OPERATOR, ContentionError)
class LeaseGuardCommand(Command[LeaseGroupDocument], frozen=True):
    """Name the process group that runs under a lease. The daemon ends it where its caller does not: when that is gone
    or stopped, and the lease is about to run out."""

    hold: str
    group: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)]


class StandbyFenceDocument(Document, frozen=True):
    """The roles that no other node can use any more."""

    service: str
    roles: tuple[str, ...]


@command("standby_fence", Role.OPERATOR, *_FAMILIES)
class StandbyFenceCommand(Command[StandbyFenceDocument], frozen=True):
    """Keep the other nodes from a service whose lease is held, before it starts here."""

    hold: str
    service: Annotated[str, msgspec.Meta(max_length=63)]


class LeaseInForceDocument(Document, frozen=True):
    """A lease that is in force at this moment, by the database."""

    name: str
    fence: str


@command("lease_check", Role.OPERATOR, *_FAMILIES)
class LeaseCheckCommand(Command[LeaseInForceDocument], frozen=True):
    """Whether the database has the lease in force for this holder now. ``ContentionError`` when it is not."""

    hold: str


@command("lease_release", Role.OPERATOR, ContentionError)
class LeaseReleaseCommand(Command[LeaseGroupDocument], frozen=True):
    """Nothing runs under the lease any more: give it back."""

    hold: str
