"""A node's answers to its peers: the port that ``PeerServer`` calls and the node implements.

``who`` is the verified name of the caller. Implementations check links, classes and hub rules (P6) and raise
the errors of the tree, which travel to the caller as they are. Requests are decoded and bounded already; do
not trust the digests and positions inside them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from instep.errors import PeerError
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.net.messages.syncing import BasesReply, BasesRequest, DifferenceReply, DifferenceRequest
from instep.net.transfer import TransferAnswer

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, R]):
    """A request with one answer: its path, which is also the method of ``PeerService``, and its messages."""

    path: str
    request: type[Q]
    reply: type[R]
    bytes_max: int = m.REQUEST_BYTES_MAX
    why_not: Callable[[Q, R], str | None] = lambda _, __: None
    """Why a reply does not fit its request."""

    def checked(self, name: NodeName, request: Q, reply: R) -> R:
        why = self.why_not(request, reply)
        if why is not None:
            raise PeerError(f"{name} answered {why}", code="bad_answer")
        return reply


def _too_many_pages(request: m.PagesRequest | m.ChunkPagesRequest, reply: m.PagesReply) -> str | None:
    asked, came = len(request.digests), len(reply.pages)
    is_fit = came <= asked and (came or not asked or reply.error is not None)
    return None if is_fit else f"{came} of {asked} pages without saying why"


def _other_holdings(request: m.HoldingsRequest, reply: m.HoldingsReply) -> str | None:
    return None if len(reply.is_whole) == len(request.generations) else "another question"


_PAGES_MAX = m.PAGES_REPLY_BYTES_MAX + (1 << 20)
RENEW = Call("renew", m.RenewRequest, m.RenewReply)
HEADS = Call("heads", m.HeadsRequest, m.HeadsReply, m.HEADS_REPLY_BYTES_MAX)
PAGES = Call("pages", m.PagesRequest, m.PagesReply, _PAGES_MAX, _too_many_pages)
CHUNK_PAGES = Call("chunk_pages", m.ChunkPagesRequest, m.PagesReply, _PAGES_MAX, _too_many_pages)
HOLDINGS = Call("holdings", m.HoldingsRequest, m.HoldingsReply, why_not=_other_holdings)
FACTS = Call("facts", m.FactsRequest, m.FactsReply)
VERIFY = Call("verify", m.VerifyRequest, m.VerifyReply)
LOCK = Call("lock", m.LockRequest, m.LockReply)
UNLOCK = Call("unlock", m.UnlockRequest, m.LockReply)
BREAK_LOCK = Call("break_lock", m.BreakRequest, m.LockReply)
LOCKS = Call("locks", m.LocksRequest, m.LocksReply)
SUBMIT_HAVE = Call("submit_have", m.SubmitHave, m.SubmitHaveReply, why_not=m.why_not_positions)
FLUSH = Call("flush", m.FlushRequest, m.FlushReply)
SYNC = Call("sync", m.SyncRequest, m.SyncReply)
SIDE_FACTS = Call("side_facts", m.SideFactsRequest, m.SideFactsReply)
SYNC_MARKS = Call("sync_marks", m.MarksRequest, m.MarksReply)
SYNC_BASES = Call("sync_bases", BasesRequest, BasesReply, _PAGES_MAX)
SYNC_PROFILE = Call("sync_profile", m.ProfileNotice, m.ProfileReply)
DIFFERENCE = Call("difference", DifferenceRequest, DifferenceReply)
_OF_SYNC = (FLUSH, DIFFERENCE, SYNC, SYNC_MARKS, SYNC_BASES, SYNC_PROFILE, SIDE_FACTS)
_OF_CHANGES = (LOCK, UNLOCK, BREAK_LOCK, LOCKS, SUBMIT_HAVE, *_OF_SYNC)
CALLS: dict[str, Call[Any, Any]] = {
    call.path: call for call in (RENEW, HEADS, PAGES, CHUNK_PAGES, HOLDINGS, FACTS, VERIFY, *_OF_CHANGES)
}


class PeerStream(Protocol):
    """One end of the long-lived stream between a partner that dialled and its sender. ``address`` is the IP address
    of the other end, empty where it is not known."""

    address: str

    async def send(self, message: m.StreamMessage) -> None:
        """Send, waiting for a slow peer at most the idle deadline: ``UnavailableError`` then, or when closed.
        Several tasks may send."""

    async def receive(self) -> m.StreamMessage | None:
        """The next message, None once the other side closed. ``UnavailableError`` when the connection broke,
        ``PeerError`` for bytes that are no message. Liveness is watched below: a dead peer ends in an error."""

    async def close(self, reason: str) -> None:
        """Say goodbye and close; never raises."""


class PeerService(Protocol):
    """All calls may raise ``InstepError``; anything else is reported to the peer as ``unexpected``, without
    details, and logged here."""

    async def join(self, request: m.JoinRequest, address: str) -> m.JoinReply:
        """A call without a client certificate; ``address`` is the caller's IP."""

    async def federate(self, request: m.FederateRequest, address: str) -> m.FederateReply:
        """The same for a node of another cluster, which has a certificate that this node does not know yet."""

    async def renew(self, who: NodeName, request: m.RenewRequest) -> m.RenewReply: ...

    async def heads(self, who: NodeName, request: m.HeadsRequest) -> m.HeadsReply: ...

    async def pages(self, who: NodeName, request: m.PagesRequest) -> m.PagesReply: ...

    async def chunk_pages(self, who: NodeName, request: m.ChunkPagesRequest) -> m.PagesReply: ...

    async def holdings(self, who: NodeName, request: m.HoldingsRequest) -> m.HoldingsReply: ...

    async def facts(self, who: NodeName, request: m.FactsRequest) -> m.FactsReply: ...

    async def verify(self, who: NodeName, request: m.VerifyRequest) -> m.VerifyReply: ...

    async def contents(self, who: NodeName, request: m.ContentsRequest) -> Iterator[TransferAnswer]:
        """Check the request, then hand over a plain iterator: the server pulls it in worker threads, one frame
        ahead of the network, and closes it when the peer goes away. Contents of at most ``PIECE_BYTES`` are
        one ``WHOLE`` answer, larger ones ``pieces_of_file``. A file that moved on is ``SUPERSEDED``."""

    async def ranges(self, who: NodeName, request: m.RangesRequest) -> Iterator[TransferAnswer]:
        """Like ``contents``, with the range's index as ``want`` and only ``PIECE`` answers or refusals."""

    async def lock(self, who: NodeName, request: m.LockRequest) -> m.LockReply: ...

    async def unlock(self, who: NodeName, request: m.UnlockRequest) -> m.LockReply: ...

    async def break_lock(self, who: NodeName, request: m.BreakRequest) -> m.LockReply: ...

    async def locks(self, who: NodeName, request: m.LocksRequest) -> m.LocksReply: ...

    async def submit_have(self, who: NodeName, request: m.SubmitHave) -> m.SubmitHaveReply:
        """Which contents the home lacks; only for peers whose changes it takes."""
        ...

    async def sync(self, who: NodeName, request: m.SyncRequest) -> m.SyncReply:
        """Carry out a command about a sync profile for an initiator."""
        ...

    async def flush(self, who: NodeName, request: m.FlushRequest) -> m.FlushReply:
        """Publish what was saved before the call; only for peers whose changes the home takes."""
        ...

    async def sync_profile(self, who: NodeName, request: m.ProfileNotice) -> m.ProfileReply:
        """Keep what a home that carries runs out says of a profile; only for peers whose changes the home takes."""
        ...

    async def side_facts(self, who: NodeName, request: m.SideFactsRequest) -> m.SideFactsReply:
        """Facts of the home of a line and its partners; only for peers whose changes the home takes."""
        ...

    async def sync_marks(self, who: NodeName, request: m.MarksRequest) -> m.MarksReply:
        """Keep and give the marks of a sync profile's bases; only for peers whose changes the home takes."""
        ...

    async def sync_bases(self, who: NodeName, request: BasesRequest) -> BasesReply:
        """Give a base of a sync profile, which this node kept as the home of a line; only for its home now."""
        ...

    async def difference(self, who: NodeName, request: DifferenceRequest) -> DifferenceReply:
        """What changed from one generation to another; only for peers whose changes the home takes."""
        ...

    async def submit(
        self, who: NodeName, request: m.SubmitRequest, contents: AsyncIterator[list[TransferAnswer]]
    ) -> m.SubmitReply:
        """Decide about changes that the caller made elsewhere. ``contents`` are in the order of the request's, bounded
        by its sizes and not verified; taking none of them, or not all, ends the connection after the reply."""
        ...

    async def stream(self, who: NodeName, hello: m.Hello, stream: PeerStream) -> None:
        """Serve a partner's stream until it ends. The implementation sends ``Welcome`` first. Versions were
        agreed on before; the hello's name is the verified one."""


class PeerCalls(Protocol):
    """The other side of the port: a node's calls to one partner, whose ``name`` is the verified one. Refusals of the
    partner and failures of the connection are raised as ``InstepError``. ``total_s`` bounds a whole call."""

    @property
    def name(self) -> NodeName: ...

    @property
    def address(self) -> str:
        """Where the partner is dialled."""
        ...

    async def close(self) -> None: ...

    async def call(self, call: Call[Q, R], request: Q, *, total_s: float = ...) -> R:
        """The reply to one request, checked against it."""
        ...

    def contents(
        self, request: m.ContentsRequest, *, sizes: Sequence[int] | None = None
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        """Answers in batches as they come; ``sizes`` are the entries' sizes, and more than that is refused."""
        ...

    def ranges(self, request: m.RangesRequest) -> AsyncGenerator[list[TransferAnswer], None]:
        """Like ``contents``, with the range's index as ``want``."""
        ...

    async def submit(self, request: m.SubmitRequest, contents: Iterator[TransferAnswer]) -> m.SubmitReply:
        """Send changes with those contents that the home lacks. ``contents`` are pulled in worker threads; an error
        that they raise ends the call before the home has decided."""
        ...

    def stream(self, hello: m.Hello) -> AbstractAsyncContextManager[tuple[m.Welcome, PeerStream]]:
        """Open the long-lived stream: it sends ``hello``, and is closed on the way out."""
        ...
