"""A node's answers to its peers: the port that ``PeerServer`` calls and the node implements.

``who`` is the verified name of the caller. Implementations check links, classes and hub rules (P6) and raise
the errors of the tree, which travel to the caller as they are. Requests are decoded and bounded already; do
not trust the digests and positions inside them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from instep.model.ids import NodeName
from instep.net.messages.messages import (
    ChunkPagesRequest,
    ContentsRequest,
    FactsReply,
    FactsRequest,
    HeadsReply,
    HeadsRequest,
    Hello,
    HoldingsReply,
    HoldingsRequest,
    JoinReply,
    JoinRequest,
    PagesReply,
    PagesRequest,
    RangesRequest,
    RenewReply,
    RenewRequest,
    StreamMessage,
    VerifyReply,
    VerifyRequest,
    Welcome,
)
from instep.net.transfer import TransferAnswer


class PeerStream(Protocol):
    """One end of the long-lived stream between a partner that dialled and its sender."""

    async def send(self, message: StreamMessage) -> None:
        """Send, waiting for a slow peer at most the idle deadline: ``UnavailableError`` then, or when closed.
        Several tasks may send."""

    async def receive(self) -> StreamMessage | None:
        """The next message, None once the other side closed. ``UnavailableError`` when the connection broke,
        ``PeerError`` for bytes that are no message. Liveness is watched below: a dead peer ends in an error."""

    async def close(self, reason: str) -> None:
        """Say goodbye and close; never raises."""


class PeerService(Protocol):
    """All calls may raise ``InstepError``; anything else is reported to the peer as ``unexpected``, without
    details, and logged here."""

    async def join(self, request: JoinRequest, address: str) -> JoinReply:
        """The only call without a client certificate; ``address`` is the caller's IP."""

    async def renew(self, who: NodeName, request: RenewRequest) -> RenewReply: ...

    async def heads(self, who: NodeName, request: HeadsRequest) -> HeadsReply: ...

    async def pages(self, who: NodeName, request: PagesRequest) -> PagesReply: ...

    async def chunk_pages(self, who: NodeName, request: ChunkPagesRequest) -> PagesReply: ...

    async def holdings(self, who: NodeName, request: HoldingsRequest) -> HoldingsReply: ...

    async def facts(self, who: NodeName, request: FactsRequest) -> FactsReply: ...

    async def verify(self, who: NodeName, request: VerifyRequest) -> VerifyReply: ...

    async def contents(self, who: NodeName, request: ContentsRequest) -> Iterator[TransferAnswer]:
        """Check the request, then hand over a plain iterator: the server pulls it in worker threads, one frame
        ahead of the network, and closes it when the peer goes away. Contents of at most ``PIECE_BYTES`` are
        one ``WHOLE`` answer, larger ones ``pieces_of_file``. A file that moved on is ``SUPERSEDED``."""

    async def ranges(self, who: NodeName, request: RangesRequest) -> Iterator[TransferAnswer]:
        """Like ``contents``, with the range's index as ``want`` and only ``PIECE`` answers or refusals."""

    async def stream(self, who: NodeName, hello: Hello, stream: PeerStream) -> None:
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

    async def heads(self, request: HeadsRequest, *, total_s: float = ...) -> HeadsReply: ...

    async def pages(self, request: PagesRequest, *, total_s: float = ...) -> PagesReply: ...

    async def chunk_pages(self, request: ChunkPagesRequest, *, total_s: float = ...) -> PagesReply: ...

    async def renew(self, request: RenewRequest, *, total_s: float = ...) -> RenewReply: ...

    async def holdings(self, request: HoldingsRequest, *, total_s: float = ...) -> HoldingsReply: ...

    async def facts(self, request: FactsRequest, *, total_s: float = ...) -> FactsReply: ...

    async def verify(self, request: VerifyRequest, *, total_s: float = ...) -> VerifyReply: ...

    def contents(
        self,
        request: ContentsRequest,
        *,
        sizes: Sequence[int] | None = None,
        total_s: float | None = None,
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        """Answers in batches as they come; ``sizes`` are the entries' sizes, and more than that is refused."""
        ...

    def ranges(
        self, request: RangesRequest, *, total_s: float | None = None
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        """Like ``contents``, with the range's index as ``want``."""
        ...

    def stream(self, hello: Hello) -> AbstractAsyncContextManager[tuple[Welcome, PeerStream]]:
        """Open the long-lived stream: it sends ``hello``, and is closed on the way out."""
        ...
