"""Seats: places of a pool, taken by users and counted once in the cluster."""

from __future__ import annotations

from typing import Annotated

import msgspec

from instep.api.command import Command, Document, Role, command
from instep.api.shared_parts.jobs import DATABASE_ERRORS

PoolName = Annotated[str, msgspec.Meta(max_length=63)]
UserName = Annotated[str, msgspec.Meta(max_length=400)]


class SeatAnswerDocument(Document, frozen=True):
    """A user's place. ``changed`` is false where the user had it before. ``until`` is set where the database is away:
    so long the user goes on. ``servers`` are licence servers, those that answer first."""

    pool: str
    user: str
    changed: bool
    taken: int | None
    places: int | None
    until: str | None
    servers: tuple[str, ...]


@command("seat_acquire", Role.OPERATOR, *DATABASE_ERRORS)
class SeatAcquireCommand(Command[SeatAnswerDocument], frozen=True):
    """Seat a user at this node. A user who sits here or elsewhere already takes no further place."""

    pool: PoolName
    user: UserName


class SeatReleaseDocument(Document, frozen=True):
    """Whether the user had a place."""

    pool: str
    user: str
    changed: bool


@command("seat_release", Role.OPERATOR, *DATABASE_ERRORS)
class SeatReleaseCommand(Command[SeatReleaseDocument], frozen=True):
    """End one use of a user at this node; with ``all`` every use on every node, and the place is free at once."""

    pool: PoolName
    user: UserName
    all: bool = False


class UseDocument(Document, frozen=True):
    """A user at one node."""

    node: str
    times: int
    until: str


class SeatDocument(Document, frozen=True):
    """One place that is taken. Without ``uses`` it lingers."""

    user: str
    since: str
    until: str
    uses: tuple[UseDocument, ...]


class PoolDocument(Document, frozen=True):
    """A pool as the cluster counts it. ``differs_from`` names the node whose settings count where this node has
    others."""

    name: str
    kind: str
    places: int
    taken: int
    linger_ms: int
    grace_ms: int
    nodes: tuple[str, ...]
    differs_from: str | None
    seats: tuple[SeatDocument, ...]


class SeatsDocument(Document, frozen=True):
    """All pools of the cluster, by name."""

    pools: tuple[PoolDocument, ...]


@command("seat_list", Role.VIEWER, *DATABASE_ERRORS)
class SeatListCommand(Command[SeatsDocument], frozen=True):
    """The pools, and the users who have their places."""
