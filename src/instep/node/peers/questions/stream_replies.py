"""A partner's answers to its sender's questions over the stream: verify, facts, test, take over.

Answers take as long as the work; few of each kind are made at a time, and a sender that asks for more gets an error
that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

from instep.errors import InstepError, UnavailableError
from instep.model.ids import LineId, NodeName
from instep.model.standing import Standing
from instep.net.messages import messages as m
from instep.net.messages.changing import LookReply, LookRequest
from instep.net.messages.faults import reply_of_error
from instep.net.messages.syncing import SyncRefusal
from instep.node.lines.line_service import LineService
from instep.node.peers.peer_context import PeerContext
from instep.node.peers.questions.forwarding import Forwarding
from instep.node.peers.questions.warrants import is_warranted
from instep.node.peers.takeover_check import obstacles
from instep.node.runtime.driver import own_error, wall_ms

LENDING_MAX = 4
LOOK_S = 60.0
LOOK_AGAIN_S = 0.1
TEST_S = 600.0
"""A test has the deadlines of its probes and requests; this is the last one."""


SYNC_MAX = 8
VERIFY_MAX = 16
"""One of each line, in a fileset of many homes: they share a look at the tree."""
Slow = (
    m.VerifyRequest
    | m.SyncRequest
    | m.FactsRequest
    | m.TestRequest
    | m.HasRequest
    | m.PartsRequest
    | LookRequest
)
Q = TypeVar("Q", bound=msgspec.Struct)


@dataclass(slots=True, eq=False)
class _Answers(Generic[Q]):
    """Answers of one kind: how many at once, how one is made, and the answer that says why there is none."""

    most: int
    busy: InstepError
    make: Callable[[Q], Awaitable[m.StreamMessage]]
    refusal: Callable[[Q, InstepError], m.StreamMessage]
    running: set[asyncio.Task[None]] = field(default_factory=set)


class StreamReplies:
    """One per uplink; ``reply`` queues what leaves."""

    def __init__(self, peers: PeerContext, name: NodeName, reply: Callable[[m.StreamMessage], None]) -> None:
        self._peers = peers
        self._name = name
        self._reply = reply
        self._answers: dict[type, _Answers[Any]] = {
            m.VerifyRequest: _Answers(
                VERIFY_MAX,
                UnavailableError("verifications are under way already", code="busy"),
                self._verify,
                _no_verify,
            ),
            m.FactsRequest: _Answers(
                64,
                UnavailableError("facts are being gathered already", code="busy"),
                self._tell_facts,
                _no_facts,
            ),
            m.SyncRequest: _Answers(
                SYNC_MAX, UnavailableError("too many questions at once", code="busy"), self._sync, _no_sync
            ),
            m.TestRequest: _Answers(
                1, UnavailableError("a test is under way already", code="busy"), self._test, _no_test
            ),
            m.HasRequest: (
                lending := _Answers(
                    LENDING_MAX,
                    UnavailableError("contents are being looked for already", code="busy"),
                    self._lend,
                    _no_contents,
                )
            ),
            m.PartsRequest: lending,
            LookRequest: _Answers(
                4, UnavailableError("looks are under way already", code="busy"), self._look, _no_look
            ),
        }
        self._forwarding = Forwarding(peers, name)

    def followed(self, line: LineId) -> LineService | None:
        """The service of a line that is followed here."""
        service = self._peers.service(line)
        return None if service is None or service.is_written_here else service

    def take(self, question: Slow) -> None:
        """Begin to answer, unless too many answers of this kind are under way."""
        answers = self._answers[type(question)]
        if len(answers.running) >= answers.most:
            self._reply(answers.refusal(question, answers.busy))
            return
        task = asyncio.get_running_loop().create_task(self._answer(answers, question))
        answers.running.add(task)
        task.add_done_callback(answers.running.discard)

    async def close(self) -> None:
        """End the answers that are under way: the link has gone."""
        tasks = [task for answers in set(self._answers.values()) for task in answers.running]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer(self, answers: _Answers[Any], question: Any) -> None:
        try:
            reply = await answers.make(question)
        except (InstepError, OSError) as error:
            reply = answers.refusal(question, own_error(error))
        self._reply(reply)

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

    async def _lend(self, question: m.HasRequest | m.PartsRequest) -> m.HasReply | m.PartsReply:
        began_s = asyncio.get_running_loop().time()
        lending = self._lender(question.line, question.warrant).lending
        if isinstance(question, m.HasRequest):
            held = await lending.held(question.wants)
            return m.HasReply(question.number, await self._forwarding.held(question, held, began_s))
        parts = await lending.parts(question.wants)
        return m.PartsReply(question.number, await self._forwarding.parts(question, parts, began_s))

    async def _tell_facts(self, question: m.FactsRequest) -> m.FactsReply:
        found = await self._peers.facts_of_line(self._for_writer(question.line), question.key, question.names)
        return m.FactsReply(found, wall_ms(), question.number)

    async def _look(self, question: LookRequest) -> LookReply:
        """Answer when the edits of before are decided, or stand for a reason that a wait does not end."""
        service = self._for_writer(question.line)
        within_s = min(question.within_ms / 1000, LOOK_S)
        try:
            async with asyncio.timeout(within_s):
                await service.catch_up(within_s)
                while _are_edits_on_their_way(service):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_AGAIN_S):
                            await self._peers.runtime.changed.wait()
        except TimeoutError:
            raise UnavailableError(
                f"its edits were not decided within {within_s:g} s", code="timed_out"
            ) from None
        return LookReply(question.number)

    async def _sync(self, question: m.SyncRequest) -> m.SyncReply:
        """Looks and reviews alone: runs are started over a connection that the initiator dials."""
        if question.wanted not in ("sync_show", "sync_collisions"):
            raise UnavailableError(f"{question.wanted} is not answered here", code="not_dialled")
        reply = await self._peers.on_sync(self._name, question)
        return msgspec.structs.replace(reply, number=question.number)

    async def _test(self, question: m.TestRequest) -> m.TestReply:
        service = self._for_writer(question.line)
        try:
            async with asyncio.timeout(TEST_S):
                rows = await service.test()
        except TimeoutError:
            raise UnavailableError(f"the test did not end within {TEST_S:g} s", code="timed_out") from None
        return m.TestReply(question.number, service.live, rows[: m.TEST_ROWS_MAX])

    async def _verify(self, question: m.VerifyRequest) -> m.VerifyReply:
        service = self.followed(question.line)
        if service is None:
            raise UnavailableError(f"{question.line} is not followed here", code="not_followed")
        reply = await service.verify(is_deep=question.is_deep)
        return msgspec.structs.replace(reply, number=question.number)


def _no_verify(question: m.VerifyRequest, error: InstepError) -> m.VerifyReply:
    return m.VerifyReply(question.number, question.line, None, b"", error=reply_of_error(error))


def _no_facts(question: m.FactsRequest, error: InstepError) -> m.FactsReply:
    return m.FactsReply((), wall_ms(), question.number, reply_of_error(error))


def _no_sync(question: m.SyncRequest, error: InstepError) -> m.SyncReply:
    why = SyncRefusal(error.error_code[:64], error.reason, error.hint, error.exit_code)
    return m.SyncReply(b"", question.number, why)


def _no_test(question: m.TestRequest, error: InstepError) -> m.TestReply:
    return m.TestReply(question.number, error=reply_of_error(error))


def _are_edits_on_their_way(service: LineService) -> bool:
    """Whether paths were touched that no look has seen, or edits are offered and not decided."""
    record = service.standing
    if record.standing is Standing.DRIFTED:
        return record.code == "offered"
    return record.standing is Standing.IN_STEP and bool(service.not_in_step(service.live, ()))


def _no_look(question: LookRequest, error: InstepError) -> LookReply:
    return LookReply(question.number, error.reason[: m.REASON_MAX] or "unavailable")


def _no_contents(question: m.HasRequest | m.PartsRequest, error: InstepError) -> m.HasReply | m.PartsReply:
    kind = m.HasReply if isinstance(question, m.HasRequest) else m.PartsReply
    return kind(question.number, refusal=error.reason[: m.REASON_MAX] or "unavailable")
