"""A partner's answers to its sender's questions over the stream: verify, facts, test, take over.

Answers take as long as the work; few of each kind are made at a time, and a sender that asks for more gets an error
that says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from instep.errors import InstepError, UnavailableError
from instep.model.ids import LineId, NodeName
from instep.net.messages import messages as m
from instep.net.messages.faults import reply_of_error
from instep.node.lines.line_service import LineService
from instep.node.peers.peer_context import PeerContext
from instep.node.peers.questions.forwarding import Forwarding
from instep.node.peers.questions.warrants import is_warranted
from instep.node.peers.takeover_check import obstacles
from instep.node.runtime.driver import from_os_error, wall_ms

VERIFYING_MAX = 2
TELLING_MAX = 64
TESTING_MAX = 1
LENDING_MAX = 4
BUSY = "contents are being looked for already"
TEST_S = 600.0
"""A test has the deadlines of its probes and requests; this is the last one."""


class StreamReplies:
    """One per uplink; ``reply`` queues what leaves."""

    def __init__(self, peers: PeerContext, name: NodeName, reply: Callable[[m.StreamMessage], None]) -> None:
        self._peers = peers
        self._name = name
        self._reply = reply
        self._verifying: set[asyncio.Task[None]] = set()
        self._telling: set[asyncio.Task[None]] = set()
        self._testing: set[asyncio.Task[None]] = set()
        self._lending: set[asyncio.Task[None]] = set()
        self._forwarding = Forwarding(peers, name)

    def followed(self, line: LineId) -> LineService | None:
        """The service of a line that is followed here."""
        service = self._peers.service(line)
        return None if service is None or service.is_written_here else service

    def take(
        self,
        message: m.VerifyRequest | m.FactsRequest | m.TestRequest | m.HasRequest | m.PartsRequest,
    ) -> None:
        """Begin to answer."""
        match message:
            case m.VerifyRequest() if len(self._verifying) >= VERIFYING_MAX:
                busy = UnavailableError("verifications are under way already", code="busy")
                self._reply(
                    m.VerifyReply(message.number, message.line, None, b"", error=reply_of_error(busy))
                )
            case m.VerifyRequest():
                _start(self._verifying, self._verify(message))
            case m.FactsRequest() if len(self._telling) >= TELLING_MAX:
                busy = UnavailableError("facts are being gathered already", code="busy")
                self._reply(m.FactsReply((), 0, message.number, reply_of_error(busy)))
            case m.FactsRequest():
                _start(self._telling, self._tell_facts(message))
            case m.TestRequest() if len(self._testing) >= TESTING_MAX:
                busy = UnavailableError("a test is under way already", code="busy")
                self._reply(m.TestReply(message.number, error=reply_of_error(busy)))
            case m.TestRequest():
                _start(self._testing, self._test(message))
            case m.HasRequest() if len(self._lending) >= LENDING_MAX:
                self._reply(m.HasReply(message.number, refusal=BUSY))
            case m.PartsRequest() if len(self._lending) >= LENDING_MAX:
                self._reply(m.PartsReply(message.number, refusal=BUSY))
            case m.HasRequest():
                _start(self._lending, self._held(message))
            case m.PartsRequest():
                _start(self._lending, self._parts(message))

    def could_take_over(self, request: m.TakeOverRequest) -> m.TakeOverReply:
        """The obstacles to this node going on as the writer: sent to the line's writer only."""
        try:
            service = self._for_writer(request.line)
            return m.TakeOverReply(request.number, obstacles(self._peers, service, request.partners))
        except InstepError as error:
            return m.TakeOverReply(request.number, error=reply_of_error(error))

    def _for_writer(self, line: LineId) -> LineService:
        """The followed line, when its own writer asks; every other node gets an error."""
        service = self.followed(line)
        if service is None or service.writer != self._name:
            raise UnavailableError(f"{line} is not followed here", code="not_followed")
        return service

    def _lender(self, line: LineId, warrant: m.Warrant | None) -> LineService:
        """The followed line, when its writer asks, or a hub on the writer's behalf; every other node gets the error of
        a line that is not here."""
        service = self.followed(line)
        if service is not None and is_warranted(service, warrant, self._name):
            return service
        return self._for_writer(line)

    async def _held(self, request: m.HasRequest) -> None:
        began_s = asyncio.get_running_loop().time()
        try:
            held = await self._lender(request.line, request.warrant).lending.held(request.wants)
            held = await self._forwarding.held(request, held, began_s)
            self._reply(m.HasReply(request.number, held))
        except (InstepError, OSError) as error:
            self._reply(m.HasReply(request.number, refusal=_said(error)))

    async def _parts(self, request: m.PartsRequest) -> None:
        began_s = asyncio.get_running_loop().time()
        try:
            parts = await self._lender(request.line, request.warrant).lending.parts(request.wants)
            parts = await self._forwarding.parts(request, parts, began_s)
            self._reply(m.PartsReply(request.number, parts))
        except (InstepError, OSError) as error:
            self._reply(m.PartsReply(request.number, refusal=_said(error)))

    async def _tell_facts(self, request: m.FactsRequest) -> None:
        try:
            service = self._for_writer(request.line)
            found = await self._peers.facts_of_line(service, request.key)
            self._reply(m.FactsReply(found, wall_ms(), request.number))
        except InstepError as error:
            self._reply(m.FactsReply((), wall_ms(), request.number, reply_of_error(error)))

    async def _test(self, request: m.TestRequest) -> None:
        try:
            service = self._for_writer(request.line)
            async with asyncio.timeout(TEST_S):
                rows = await service.test()
            self._reply(m.TestReply(request.number, service.live, rows[: m.TEST_ROWS_MAX]))
        except TimeoutError:
            late = UnavailableError(f"the test did not end within {TEST_S:g} s", code="timed_out")
            self._reply(m.TestReply(request.number, error=reply_of_error(late)))
        except InstepError as error:
            self._reply(m.TestReply(request.number, error=reply_of_error(error)))

    async def _verify(self, request: m.VerifyRequest) -> None:
        service = self.followed(request.line)
        try:
            if service is None:
                raise UnavailableError(f"{request.line} is not followed here", code="not_followed")
            reply = await service.verify(is_deep=request.is_deep)
        except InstepError as error:
            reply = m.VerifyReply(0, request.line, None, b"", error=reply_of_error(error))
        self._reply(
            m.VerifyReply(
                request.number,
                reply.line,
                reply.live,
                reply.attested_root,
                reply.differing,
                reply.differs,
                reply.read_bytes,
                reply.error,
            )
        )


def _said(error: InstepError | OSError) -> str:
    reason = error.reason if isinstance(error, InstepError) else from_os_error(error).reason
    return reason[: m.REASON_MAX] or "unavailable"


def _start(running: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.get_running_loop().create_task(work)
    running.add(task)
    task.add_done_callback(running.discard)
