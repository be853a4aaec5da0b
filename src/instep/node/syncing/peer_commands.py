"""Sync commands that another node passes on: read as strangers' words, and answered within the size of a message."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from instep.api.changes import sync as api
from instep.api.command import Command, command_from
from instep.errors import InstepError, PeerError
from instep.model.ids import NodeName
from instep.net.messages import messages as m

PAGE = 2_000
"""Listed paths in one answer."""
NAMED_MAX = 1_000
"""Listed and undone paths of a run in an answer; their totals stay true."""

C = TypeVar("C", bound=Command[Any])


def asked_of(who: NodeName, request: m.SyncRequest, kind: type[C]) -> C:
    """The command that a peer passed on, for the profile that it was looked at for. ``PeerError`` where it cannot be
    read, or is about another profile."""
    try:
        params = msgspec.json.decode(request.asked, type=dict[str, object])
        asked = command_from(kind, params)
    except (msgspec.DecodeError, InstepError) as error:
        why = error.reason if isinstance(error, InstepError) else "it is no JSON object"
        raise PeerError(
            f"{who} sent a {request.wanted} that cannot be read: {why}", code="bad_message", node=who
        ) from error
    if getattr(asked, "profile", "") != request.profile:
        raise PeerError(
            f"{who} sent a {request.wanted} of another profile than {request.profile}, for which it asked",
            code="bad_message",
            node=who,
        )
    return asked


def fitting(run: api.SyncRunDocument) -> api.SyncRunDocument:
    """The run with so many paths named as one answer takes."""
    return msgspec.structs.replace(run, listed=run.listed[:NAMED_MAX], undone=run.undone[:NAMED_MAX])


def behind(
    listed: tuple[api.SyncListedDocument, ...], after: str | None
) -> tuple[api.SyncListedDocument, ...]:
    """The listed paths behind the one with this id; all where it is None or unknown."""
    return listed[next((number for number, each in enumerate(listed, 1) if each.id == after), 0) :]


def page_of(
    listed: tuple[api.SyncListedDocument, ...], after: str | None
) -> tuple[tuple[api.SyncListedDocument, ...], bool]:
    """As many listed paths behind the one with this id as fit an answer, and whether they are the last."""
    rest = behind(listed, after)
    return rest[:PAGE], len(rest) <= PAGE
