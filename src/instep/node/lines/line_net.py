"""A line's ports to the node's connections, so that lines do not know sessions and links."""

from __future__ import annotations

from typing import Any, Protocol

from instep.model.ids import FilesetName, HeadRef, LineId, NodeName
from instep.model.rollout import Order
from instep.net.messages.messages import Head, LockNotice, Offer, Part, PartWant, StreamMessage, Wanted
from instep.net.service import PeerCalls


class Source(Protocol):
    """A sender of a followed line: a link that this node dialled."""

    @property
    def name(self) -> NodeName: ...

    @property
    def client(self) -> PeerCalls:
        """For requests of pages and contents."""
        ...

    @property
    def version(self) -> int:
        """The protocol version that was agreed on last."""
        ...

    @property
    def takes(self) -> tuple[str, ...]:
        """The later additions that it understands, by its own word."""
        ...

    def reply(self, message: StreamMessage) -> None:
        """Queue a message on the stream; it is dropped where no room is left."""


class Lender(Protocol):
    """A partner that can be asked for contents of a line that is written here."""

    who: NodeName

    async def held(self, line: LineId, wants: tuple[Wanted, ...]) -> tuple[bool, ...]:
        """Which of these contents the partner has: one answer for each."""
        ...

    async def parts(self, line: LineId, wants: tuple[PartWant, ...]) -> tuple[Part, ...]:
        """The first of these parts, as many as fit an answer; not verified."""
        ...


class LineNet(Protocol):
    """The node's connections, as a line needs them."""

    async def announce(self, head: Head) -> None:
        """Offer a head to every connected partner that may have it."""

    async def ask_partners(self, line: LineId) -> tuple[NodeName, ...]:
        """Ask every listed partner for the line's heads; return the partners that answered. Their heads arrive as
        events before."""

    async def fetch_pages(self, line: LineId, source: NodeName, head: HeadRef) -> None:
        """Store all pages and the definition of a head, verified."""

    def order(self, line: LineId, node: NodeName, order: Order) -> None:
        """Give a connected partner the whole present order of a rollout; one that is away gets it when it is back."""

    def connected(self, line: LineId) -> tuple[NodeName, ...]:
        """Partners whose stream is open and that may have the line."""
        ...

    def followers(self, line: LineId) -> tuple[NodeName, ...]:
        """Direct partners that may have the line and accepted it, connected or not, by name."""
        ...

    def has_reported(self, line: LineId, node: NodeName) -> bool:
        """Whether a report of this node came over a link since this node started."""
        ...

    async def report(self, line: LineId) -> None:
        """The line's standing here changed: report it to the senders."""

    def epochs_changed(self, line: LineId) -> None:
        """The line's writer changed: send the records to every node that named the line."""

    def nudge(self, line: LineId, what: str) -> None:
        """Pass an operator's nudge on to every connected partner that follows the line."""

    def tell_holder(self, node: NodeName, news: LockNotice) -> None:
        """Send the node of an owner that its lock ended; dropped where it is not connected or of an older version."""

    def add_line(self, service: Any) -> None:
        """Serve and follow another line of a fileset, by its ``LineService``."""

    def drop_line(self, line: LineId) -> None:
        """The line is not kept here any more."""

    def offers_of(self, fileset: FilesetName) -> tuple[Offer, ...]:
        """What connected senders offer under this name now."""
        ...

    def offerers(self, line: LineId) -> tuple[NodeName, ...]:
        """The connected senders that offer this line now."""
        ...

    def lenders(self, line: LineId) -> tuple[Lender, ...]:
        """Connected partners that can be asked for contents of a line that is written here."""
        ...
