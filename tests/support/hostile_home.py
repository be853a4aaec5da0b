"""The answers of a hostile writer to locks and changes: what the test says, else that it takes none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from instep.errors import NotAllowedError
from instep.model.ids import NodeName
from instep.model.lock import LockAnswer
from instep.net.messages import messages as m
from instep.net.messages.syncing import BasesReply, BasesRequest, DifferenceReply, DifferenceRequest
from instep.net.transfer import TransferAnswer

__all__ = ["HostileHome"]


class HostileHome:
    """The part of ``PeerService`` that is about changes from elsewhere."""

    on_lock: Callable[[m.LockRequest], LockAnswer] | None = None
    on_submit: Callable[[m.SubmitRequest], m.SubmitReply] | None = None

    async def lock(self, who: NodeName, request: m.LockRequest) -> m.LockReply:
        if self.on_lock is None:
            raise _none()
        return m.LockReply(self.on_lock(request))

    async def unlock(self, who: NodeName, request: m.UnlockRequest) -> m.LockReply:
        raise _none()

    async def break_lock(self, who: NodeName, request: m.BreakRequest) -> m.LockReply:
        raise _none()

    async def locks(self, who: NodeName, request: m.LocksRequest) -> m.LocksReply:
        raise _none()

    async def flush(self, who: NodeName, request: m.FlushRequest) -> m.FlushReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync(self, who: NodeName, request: m.SyncRequest) -> m.SyncReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync_profile(self, who: NodeName, request: m.ProfileNotice) -> m.ProfileReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def side_facts(self, who: NodeName, request: m.SideFactsRequest) -> m.SideFactsReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync_marks(self, who: NodeName, request: m.MarksRequest) -> m.MarksReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def sync_bases(self, who: NodeName, request: BasesRequest) -> BasesReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def difference(self, who: NodeName, request: DifferenceRequest) -> DifferenceReply:
        raise NotAllowedError("this peer takes part in no sync", code="no_sync")

    async def submit_have(self, who: NodeName, request: m.SubmitHave) -> m.SubmitHaveReply:
        return m.SubmitHaveReply(tuple(range(len(request.contents))))

    async def submit(
        self, who: NodeName, request: m.SubmitRequest, contents: AsyncIterator[list[TransferAnswer]]
    ) -> m.SubmitReply:
        if self.on_submit is None:
            raise _none()
        return self.on_submit(request)


def _none() -> NotAllowedError:
    return NotAllowedError("this writer takes no changes", code="offers_not_taken")
