"""One sender that we dial: a stream that is kept open, and a client for requests."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from instep.core.follow.vocabulary import SourceNoticed
from instep.errors import InstepError, PeerError, UnavailableError
from instep.model.ids import HeadRef, LineId, NodeName
from instep.net.messages import messages as m
from instep.net.messages.changing import LookRequest
from instep.net.messages.faults import reply_of_error
from instep.net.service import PeerStream
from instep.node.lines.line_service import LineService
from instep.node.peers.carrying import carry
from instep.node.peers.peer_clock import PeerClock
from instep.node.peers.peer_context import PeerContext
from instep.node.peers.questions.partner_drain import drain_for_partner
from instep.node.peers.questions.stream_replies import StreamReplies
from instep.node.runtime.driver import own_error, wall_ms
from instep.node.runtime.requests import Requests
from instep.node.trees.keeping.shelf import pages_reply

AGAIN_MIN_S = 0.2
AGAIN_MAX_S = 15.0
SOON_S = 10.0
"""For so long after a link that lasted as long the pause does not grow: most senders that end are restarted. A refused
dial costs next to nothing."""
REPLIES_MAX = 256
REPORTS_MAX = 4_096
OFFERS_MAX = 1_024
OFFERED_BYTES_MAX = 4 << 20
PATH_TOLD_MAX = 4_096


class DialledLink:
    """Connects, says hello, and hands incoming messages to the lines. Reports are level: the newest of each line and
    node is sent, after each connection all of them."""

    def __init__(self, peers: PeerContext, name: NodeName, address: str) -> None:
        self.name = name
        self.address = address
        self.client = peers.dial(name, address)
        self.offers: dict[LineId, m.Offer] = {}
        self.error: InstepError | None = None
        self.is_up = False
        self.last_heard_ms: int | None = None
        self.clock = PeerClock()
        self._peers = peers
        self._task: asyncio.Task[None] | None = None
        self._reports: dict[tuple[LineId, NodeName], m.Report] = {}
        self._heads: dict[LineId, m.Head | m.HeadNotice] = {}
        self.their_heads: dict[LineId, HeadRef | None] = {}
        """The newest heads that the sender greeted with or sent."""
        self._their_notices: dict[LineId, m.HeadNotice] = {}
        self._replies: deque[m.StreamMessage] = deque()
        """Messages that wait to leave; a ``PagesRequest`` stands for its answer, which is made when its turn comes."""
        self.takes: tuple[str, ...] = ()
        """The later additions that the sender understands."""
        self.version = m.VERSIONS.high
        """The version that was agreed on last."""
        self._self_due = False
        self._told_epochs: dict[LineId, m.Epochs] = {}
        self._wake = asyncio.Event()
        self._up: set[LineId] = set()
        self._heard: Requests[m.StreamMessage, m.Pong] = Requests(self.reply)
        """Questions whether the sender processed all earlier messages."""
        self._random = random.SystemRandom()
        self._answering = StreamReplies(peers, name, self.reply)

    # Life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    @property
    def has_ended(self) -> bool:
        return self._task is None or self._task.done()

    async def ended(self) -> None:
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        again, soon_until = AGAIN_MIN_S, 0.0
        clock = asyncio.get_running_loop().time
        try:
            while True:
                began = clock()
                try:
                    await self._connected()
                    error: InstepError = UnavailableError(f"{self.name} closed the stream", code="closed")
                except (InstepError, OSError) as caught:
                    error = own_error(caught)
                    if isinstance(error, PeerError):
                        text = f"the link to {self.name} was cut: {error.reason}"
                        note = self._peers.runtime.note_of_peer
                        note(self.name, "peer_refused", text, code=error.error_code, node=self.name)
                was_up, now = self.is_up, clock()
                self._went_down(error)
                if was_up and now - began >= SOON_S:
                    soon_until = now + SOON_S
                if now - began > 5 * again:
                    again = AGAIN_MIN_S
                await asyncio.sleep(again * (0.5 + self._random.random()))
                if clock() >= soon_until:
                    again = min(AGAIN_MAX_S, again * 2, self._peers.runtime.settings.poll_ms / 1000)
        finally:
            self._went_down(UnavailableError(f"the link to {self.name} was ended", code="unlinked"))
            await self._answering.close()
            await self.client.close()

    def _went_down(self, error: InstepError) -> None:
        is_news = self.is_up or self.error is None or self.error.error_code != error.error_code
        if is_news and error.error_code != "unlinked":
            self._peers.note_link(self.name, f"the link to {self.name} at {self.address} is down", error)
        self.error = error
        self.is_up = False
        for line in self._up:
            service = self._peers.service(line)
            if service is not None:
                service.source_down(self.name, error)
        self._up.clear()
        self.offers.clear()
        self._peers.introducing.lost(self.name)
        self._peers.runtime.tell()

    async def _connected(self) -> None:
        runtime = self._peers.runtime
        hello = m.Hello(
            versions=m.VERSIONS,
            name=runtime.name,
            session=runtime.session,
            lines=tuple(m.KnownLine(s.line, s.head, s.live) for s in self._peers.lines.values()),
            address=str(self._peers.membership.advertised),
            sign_key=runtime.pki.sign_key,
            takes=m.TAKES,
        )
        async with self.client.stream(hello) as (welcome, stream):
            self._welcomed(welcome)
            last = await carry(stream, self._peers.lines, self._take, self._heard_now, self._pump(stream))
        if last is not None:
            raise UnavailableError(
                f"{self.name} said goodbye: {last.reason}", code="closed", goodbye=last.reason
            )

    def _welcomed(self, welcome: m.Welcome) -> None:
        self.is_up = True
        self.error = None
        self._peers.note_link(self.name, f"the link to {self.name} at {self.address} is up")
        self._peers.membership.pinned_key_told(self.name, welcome.sign_key)
        self._peers.membership.seen_by(self.name, welcome.seen_at)
        self.last_heard_ms = wall_ms()
        self.clock.told(welcome.time_ms)
        known = self.their_heads = {line.line: line.head for line in welcome.lines}
        self._their_notices.clear()
        self.takes = welcome.takes
        self.version = welcome.version
        self._replies.clear()
        self._heads.clear()
        self.tell_self()
        self.tell_revocations()
        self._told_epochs.clear()
        for service in self._peers.lines.values():
            self.tell_epochs(service.line)
            if service.is_written_here or service.head is None:
                continue
            theirs = known.get(service.line)
            is_theirs = service.writer == self.name
            if is_theirs and (theirs is None or theirs.position < service.head.position):
                message = service.head_message(self.name, with_bundle=False)
                if message is not None:
                    self._heads[service.line] = message
            self.tell_report(service.report_message())
            for report in self._peers.reports_behind(service):
                self.tell_report(report)
        self._wake.set()
        self._peers.runtime.tell()

    # Sending ------------------------------------------------------------------------------------------------

    def tell_report(self, report: m.Report) -> None:
        key = report.line, report.node
        if key in self._reports or len(self._reports) < REPORTS_MAX:
            self._reports[key] = report
            self._wake.set()

    def tell_self(self) -> None:
        """How this node serves, to a sender that listens to that."""
        self._self_due = "members" in self.takes
        self._wake.set()

    def tell_revocations(self) -> None:
        """Send our revocations to a sender of our cluster that takes them: its CA may have come from a backup."""
        if self.is_up and "revocations" in self.takes and not self._is_pinned:
            self.reply(m.Revocations(self._peers.runtime.pki.crl_pem()))

    def tell_epochs(self, line: LineId) -> None:
        """Send the records of a line's writers: a former writer that is back learns them from its partners, too."""
        message = self._peers.epochs_of(line) if self.is_up else None
        if message is not None and self._told_epochs.get(line) != message:
            self._told_epochs[line] = message
            self.reply(message)

    def reply(self, message: m.StreamMessage) -> None:
        """Queue a message; one that finds no room is lost, as with a broken connection. Of heads the newest is kept."""
        if isinstance(message, m.Head | m.HeadNotice):
            self._heads[message.line] = message
        elif len(self._replies) < REPLIES_MAX:
            self._replies.append(message)
        self._wake.set()

    async def is_heard(self, within_s: float) -> bool:
        """Whether the sender processed all messages until now: it answers in order. False when it did not in time."""
        try:
            await self._heard.ask(m.Ping, within_s)
        except TimeoutError:
            return False
        return True

    async def _pump(self, stream: PeerStream) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._heads or self._replies or self._reports or self._self_due:
                if self._self_due:
                    self._self_due = False
                    await stream.send(m.Members((self._peers.membership.me(),)))
                elif self._heads:
                    await stream.send(self._heads.pop(next(iter(self._heads))))
                elif self._replies:
                    message = self._replies.popleft()
                    await stream.send(
                        self._pages(message) if isinstance(message, m.PagesRequest) else message
                    )
                else:
                    await stream.send(self._reports.pop(next(iter(self._reports))))

    def _heard_now(self) -> None:
        self.last_heard_ms = wall_ms()

    # Taking -------------------------------------------------------------------------------------------------

    def _take(self, message: m.StreamMessage) -> None:  # noqa: C901  one line a kind
        if len(self._replies) >= REPLIES_MAX:
            raise PeerError(f"{self.name} asks and does not read the answers", code="too_many_messages")
        match message:
            case m.Offer():
                self._offered(message)
            case m.Head():
                self._head(message)
            case m.Epochs():
                self._peers.heard_epochs(self.name, message)
            case m.Fresh(line):
                self._peers.freshness.heard(self.name, message, self._followed(line))
            case m.Introductions():
                is_followed = self._followed(message.line) is not None
                self._peers.introducing.heard(self.name, message, is_followed=is_followed)
            case m.TakeOverRequest():
                self.reply(self._answering.could_take_over(message))
            case m.Ping(number):
                self._tell_heads_again()
                self.reply(m.Pong(number, wall_ms()))
            case m.Pong(number, time_ms):
                self.clock.told(time_ms)
                self._heard.answer(number, message)
            case m.HeadNotice():
                self._noticed(message)
            case m.Members():
                self._peers.membership.learned(self.name, message)
            case m.Revocations() if self._is_pinned:
                pass  # another cluster's list says nothing of ours
            case m.Revocations(crl):
                self._peers.take_revocations(crl)
            case (
                m.VerifyRequest()
                | m.FactsRequest()
                | m.TestRequest()
                | m.SyncRequest()
                | m.HasRequest()
                | m.PartsRequest()
                | LookRequest()
            ):
                self._answering.take(message)
            case m.DrainRequest():
                self.reply(drain_for_partner(self._peers.runtime, self.name, message))
            case m.PagesRequest():
                self.reply(message)
            case m.Nudge(line, what):
                for service in self._peers.lines.values():
                    if (line is None or service.line == line) and self.name == service.writer:
                        service.asked_to(what)
            case m.OrderMessage(line, order):
                followed = self._followed(line)
                if followed is not None:
                    followed.order_given(self.name, order)
            case m.LockNotice(line):
                followed = self._followed(line)
                if followed is not None:
                    followed.lock_ended(self.name, message)
            case m.ErrorReply():
                self._peers.told_error(self.name, message)
            case _:
                raise PeerError(
                    f"{self.name} sent a {type(message).__name__} to its partner", code="unexpected_message"
                )

    def _offered(self, offer: m.Offer) -> None:
        if offer.is_withdrawn:
            self.offers.pop(offer.line, None)
            service = self._peers.service(offer.line)
            if service is not None and offer.line in self._up:
                self._up.discard(offer.line)
                service.source_down(self.name, UnavailableError(f"{self.name} withdrew {offer.line.fileset}"))
        else:
            self.offers[offer.line] = offer
            if (
                len(self.offers) > OFFERS_MAX
                or sum(len(o.definition) for o in self.offers.values()) > OFFERED_BYTES_MAX
            ):
                raise PeerError(f"{self.name} offers more than a node has", code="too_large")
            self._peers.on_offer(offer)
            self.take_up(offer.line)
        self._peers.runtime.tell()

    def take_up(self, line: LineId) -> None:
        """The line is followed here and offered there: this link is a source of it."""
        service = self._followed(line)
        path = str(service.fileset.path) if service is not None else ""
        self.reply(m.OfferReply(line, service is not None, path[:PATH_TOLD_MAX]))
        if service is not None and line in self.offers and line not in self._up:
            self._up.add(line)
            self._peers.introducing.begun(self.name, line)
            service.source_up(self.name, self, self.their_heads.get(line))
            self._peers.freshness.begun(service)
            if line in self._their_notices:
                self._noticed(self._their_notices[line])

    def let_go(self, line: LineId) -> None:
        """The line is not followed here any more."""
        if line in self._up:
            self._up.discard(line)
            self.reply(m.OfferReply(line, False))

    def _followed(self, line: LineId) -> LineService | None:
        return self._answering.followed(line)

    def _noticed(self, notice: m.HeadNotice) -> None:
        if notice.line in self.offers:
            self._their_notices[notice.line] = notice
        service = self._followed(notice.line)
        if service is not None and notice.line in self._up and self.name != service.writer:
            service.driver.post(SourceNoticed(self.name, notice.head, notice.is_cut_off))

    def _head(self, head: m.Head) -> None:
        """The head is kept, too, for a service of the line that begins later: the sender does not send it twice."""
        if head.line in self.offers:
            self.their_heads[head.line] = head.generation.ref()
        service = self._followed(head.line)
        if service is not None:
            if head.line not in self._up:
                self.take_up(head.line)
            service.head_seen(self.name, head)

    @property
    def _is_pinned(self) -> bool:
        """A node of another cluster, trusted by its key alone."""
        partner = self._peers.runtime.settings.partners.get(self.name)
        return partner is not None and partner.pin is not None

    def _tell_heads_again(self) -> None:
        """Send the heads of the sender's own lines as they are known here, and the newest of the lines written here: a
        node that promotes out of a dispute has to name them."""
        for service in self._peers.lines.values():
            if service.writer == self.name:
                message = service.head_message(self.name, with_bundle=False)
                if message is not None:
                    self.reply(message)
            elif service.is_written_here and service.head is not None:
                self.reply(m.HeadNotice(service.line, service.head))

    def _pages(self, request: m.PagesRequest) -> m.PagesReply:
        """A writer asks for pages of its own line back."""
        try:
            service = self._followed(request.line)
            signed = self._peers.runtime.store.generation(request.generation)
            if service is None or service.writer != self.name or signed is None:
                raise UnavailableError(f"no such generation of {request.line} here", code="superseded")
            if signed.body().line != request.line:
                raise UnavailableError(f"that generation is not of {request.line}", code="superseded")
            self._peers.require_pages(signed, request.digests)
            return pages_reply(self._peers.runtime.store, request, m.STREAM_PAGES_BYTES_MAX)
        except InstepError as error:
            return m.PagesReply((), request.number, reply_of_error(error))
