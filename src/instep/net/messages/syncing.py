"""Sync runs that another node than the home that carries them out starts, or looks at, since version 3."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from instep.net.messages.parts import Message, Word

SYNC_BYTES_MAX = 3 << 20


class SyncRequest(Message, tag="sync", frozen=True, array_like=True):
    """A command about a profile, by its name: ``asked`` are its parameters as the control socket takes them."""

    command: Literal["sync_run", "sync_show", "sync_cancel", "sync_collisions"]
    profile: Word
    asked: Annotated[bytes, msgspec.Meta(max_length=64 << 10)]


class SyncReply(Message, tag="sync_reply", frozen=True, array_like=True):
    """The result of the command, as JSON."""

    document: Annotated[bytes, msgspec.Meta(max_length=SYNC_BYTES_MAX)]
