"""Locks and changes that a hub passes on to a line's home, as its own: for the partners that its ``offers_from`` names.

The home knows the hub alone, and lists it in its own ``offers_from``. The hub vouches for its partners: a person of one
is named ``USER@PARTNER``, and a partner may act only under locks of its own people. Implements "Over a hub" of
``docs/spec/changes.md``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

from msgspec.structs import replace

from instep.errors import ContentionError, NotAllowedError, PeerError, UnavailableError
from instep.model.change import Fence, change_set_of
from instep.model.ids import Digest, LineId, NodeName
from instep.model.lock import OWNER_PART_MAX
from instep.net.messages import messages as m
from instep.net.service import BREAK_LOCK, LOCK, LOCKS, SUBMIT_HAVE, UNLOCK
from instep.net.transfer import AnswerStatus, TransferAnswer, pieces_of_file
from instep.node.lines.line_net import Source
from instep.node.lines.line_service import LineService
from instep.node.runtime.runtime import Worker
from instep.node.writing.offered_contents import OfferedContents
from instep.tree.root.descriptors import closing_fd

PASSED_MAX = 8
"""So many change sets are passed on at once."""
LOCKS_LOOKED_AT_MAX = 10


class PassedChanges:
    """What one hub has under way."""

    def __init__(self) -> None:
        self._passing: set[Digest] = set()

    async def lock(self, who: NodeName, service: LineService, request: m.LockRequest) -> m.LockReply:
        link = _home_link(service)
        if request.fence is not None:
            await _require_own(who, link, request.line, request.fence)
        return await link.client.call(LOCK, replace(request, user=_user(request.user, who)))

    async def unlock(self, who: NodeName, service: LineService, request: m.UnlockRequest) -> m.LockReply:
        link = _home_link(service)
        await _require_own(who, link, request.line, request.fence)
        return await link.client.call(UNLOCK, request)

    async def break_lock(self, who: NodeName, service: LineService, request: m.BreakRequest) -> m.LockReply:
        asked = replace(request, user=_user(request.user, who))
        return await _home_link(service).client.call(BREAK_LOCK, asked)

    async def locks(self, service: LineService, request: m.LocksRequest) -> m.LocksReply:
        return await _home_link(service).client.call(LOCKS, request)

    async def missing(self, service: LineService, request: m.SubmitHave) -> m.SubmitHaveReply:
        return await _home_link(service).client.call(SUBMIT_HAVE, request)

    async def submit(
        self,
        who: NodeName,
        service: LineService,
        request: m.SubmitRequest,
        contents: AsyncIterator[list[TransferAnswer]],
    ) -> m.SubmitReply:
        """The contents are received here, whole and hashed, before the home is asked."""
        link, change_set = _home_link(service), change_set_of(request.change_set)
        if change_set.line != request.line:
            raise PeerError(
                f"{who} submitted changes of {change_set.line} as {request.line}", code="bad_change_set"
            )
        if change_set.token is not None:
            await _require_own(who, link, request.line, change_set.token)
        if change_set.id in self._passing or len(self._passing) >= PASSED_MAX:
            raise ContentionError(
                "this hub passes on as many change sets as it takes at once, or this very one",
                hint="submit it again",
                code="busy",
            )
        self._passing.add(change_set.id)
        worker = Worker(f"passed-{service.fileset.name}")
        offered = OfferedContents(service.tree.place(), change_set.id)
        try:
            await offered.receive(contents, request.contents, worker)
            return await link.client.submit(request, _contents(offered, request))
        finally:
            self._passing.discard(change_set.id)
            try:
                await worker.run(offered.drop)
            finally:
                worker.close()


def _home_link(service: LineService) -> Source:
    """The hub's own link to the home: changes are passed on once, and no further."""
    link = service.sources.get(service.writer)
    if link is None:
        raise UnavailableError(
            f"{service.runtime.name} passes changes of {service.fileset.name} on, and {service.writer}, their home, is "
            "not connected to it",
            hint=f"on {service.runtime.name}: instep check",
            code="home_unreachable",
            node=service.writer,
        )
    return link


def _user(user: str, who: NodeName) -> str:
    """The person, as the home shall know them."""
    named = f"{user}@{who}"
    if len(named) > OWNER_PART_MAX:
        raise PeerError(f"the owner's name has more than {OWNER_PART_MAX} characters", code="bad_owner")
    return named


async def _require_own(who: NodeName, link: Source, line: LineId, fence: Fence) -> None:
    """A token is no secret: it counts for the partner whose person has the lock. A lock that is over is the home's to
    answer."""
    after = b""
    for _ in range(LOCKS_LOOKED_AT_MAX):
        reply = await link.client.call(LOCKS, m.LocksRequest(line, after))
        for lock in reply.locks:
            if lock.fence == fence and not lock.owner.user.endswith(f"@{who}"):
                raise NotAllowedError(f"the lock is of {lock.owner}", code="not_allowed")
        if reply.is_last or not reply.locks:
            return
        after = reply.locks[-1].path


def _contents(offered: OfferedContents, request: m.SubmitRequest) -> Iterator[TransferAnswer]:
    for want, (digest, size) in enumerate(request.contents):
        descriptor = offered.open(digest)
        assert descriptor is not None, "received a moment ago"
        with closing_fd(descriptor):
            if size == 0:
                yield TransferAnswer(want, AnswerStatus.WHOLE)
            yield from pieces_of_file(want, descriptor, 0, size)
