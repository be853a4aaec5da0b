"""Messages about nodes themselves: where each is, how it serves, and its partner list.

Implements the message Members of ``docs/spec/wire.md``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from instep.model.link import Link
from instep.net.messages.parts import Address, Count, Message, Name, Small, StreamMessage, Word

LINES_MAX = 4_096
ROWS_MAX = 1_024
"""Most partners that a node names."""


class Serving(Message, frozen=True, array_like=True):
    """How a node can be put behind a balancer, in its own words; ``written`` are those of ``filesets`` that it writes.
    Addresses are ``host:port``, empty where there is none; ``places`` are (balancer, kind or none, host or address)."""

    health: Address = ""
    agent: Address = ""
    filesets: Annotated[tuple[Word, ...], msgspec.Meta(max_length=LINES_MAX)] = ()
    written: Annotated[tuple[Word, ...], msgspec.Meta(max_length=LINES_MAX)] = ()
    places: Annotated[tuple[tuple[Word, Word, Address], ...], msgspec.Meta(max_length=512)] = ()
    is_drained: bool = False


Rows = Annotated[tuple[tuple[Name, Link], ...], msgspec.Meta(max_length=ROWS_MAX)]
"""A node's partner list: the rights that it gives each partner."""


class Member(Message, frozen=True, array_like=True):
    """A node. ``pin`` is the hex SHA-256 of its TLS key; ``seen_at`` its host; ``formerly`` its name before. ``rows``
    is its partner list, None where it told none."""

    name: Name
    address: Address
    pin: Annotated[str, msgspec.Meta(max_length=64)]
    sign_key: Small = b""
    updated_ms: Count = 0
    serving: Serving | None = None
    seen_at: Address = ""
    formerly: Word = ""
    rows: Rows | None = None


class Members(StreamMessage, tag="members", frozen=True, array_like=True):
    """All members that the speaker knows, sent again when that changes. Towards a sender that takes ``members``: the
    speaker alone."""

    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=LINES_MAX)]
