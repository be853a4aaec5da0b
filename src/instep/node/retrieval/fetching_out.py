"""One content for ``restore --to``, from a node that gives it right: a wrong answer is noticed, the next node asked.

The walk that writes runs in a thread and waits; the asking is done on the event loop. A node that answers wrongly or
not at all is left out for the rest of the restore.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Sequence
from contextlib import aclosing

from instep.errors import DamagedError, PeerError, UnavailableError
from instep.model.ids import HeadRef, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import Change
from instep.model.paths import shown
from instep.net.messages import messages as m
from instep.net.transfer import AnswerStatus
from instep.node.lines.line_service import LineService
from instep.node.lines.partner_contents import PartnerContents
from instep.tree.archive.contents import Contents
from instep.tree.objects.large import copy_whole, digest_of_fd, mismatch
from instep.tree.root.descriptors import closing_fd

FETCH_S = 600.0
"""So long one node may take for one content, and a second more for each ``SLOW_BYTES`` of it."""
SLOW_BYTES = 1 << 20
RANGE_BYTES = 1 << 20


class Into:
    """An open file that belongs to the caller, where a content is put together and looked at as a whole."""

    def __init__(self, fd: int, entry: Entry) -> None:
        self._fd = fd
        self._entry = entry

    def clear(self) -> None:
        os.ftruncate(self._fd, 0)

    def write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            view, offset = view[written:], offset + written

    def is_right(self) -> bool:
        return os.fstat(self._fd).st_size == self._entry.size and digest_of_fd(self._fd) == self._entry.digest


class FetchingOut:
    """The asking of one ``restore --to``. A writer asks ``partners``, a follower its ``senders``."""

    def __init__(
        self,
        service: LineService,
        target: HeadRef,
        partners: PartnerContents,
        senders: Sequence[NodeName],
    ) -> None:
        self.service = service
        self.target = target
        self.partners = partners
        self.senders = list(senders)
        self._left_out: dict[NodeName, str] = {}
        self._loop = asyncio.get_running_loop()

    def put(self, change: Change, entry: Entry, contents: Contents, fd: int) -> None:
        """In the thread of the walk: the content into an empty file of the caller's, from this node, else fetched;
        verified. ``DamagedError`` where the file of this node changed while it was copied."""
        into = Into(fd, entry)
        target = contents.target(entry) if entry.kind is Kind.SYMLINK else None
        found = contents.open(entry) if entry.kind is Kind.FILE else None
        if target is not None:
            into.write(0, target)
        elif found is None:
            self.fetch(change, entry, into)
        else:
            with closing_fd(found):
                copy_whole(found, fd, entry.size, is_sparse=False)
            if not into.is_right():
                raise mismatch(entry)

    def fetch(self, change: Change, entry: Entry, into: Into) -> None:
        """In the thread of the walk: wait for the event loop to bring one content, verified. ``UnavailableError``
        ``contents_missing`` when no node gave it."""
        asyncio.run_coroutine_threadsafe(self._bring(change, entry, into), self._loop).result()

    async def _bring(self, change: Change, entry: Entry, into: Into) -> None:
        failed = [f"{who}: {reason}" for who, reason in sorted(self._left_out.items())]
        partners = self.partners.who_has(entry)
        for who in (*partners, *self.senders):
            asking = (
                self._from_partner(who, entry, into)
                if who in partners
                else self._from_sender(who, change, entry, into)
            )
            reason = await self._tried(asking, who, entry, into)
            if reason is None:
                return
            if who in partners:
                self.partners.leave_out(who, reason)
            failed.append(f"{who}: {reason}")
        why = "; ".join(failed) or "no partner can be asked"
        raise UnavailableError(
            f"the contents of {shown(entry.path)} cannot be had: {why}",
            hint=f"see which nodes have them, on the node that writes it: instep log {self.service.fileset.name}",
            code="contents_missing",
            paths=[shown(entry.path)],
        )

    async def _tried(self, asking: Awaitable[None], who: NodeName, entry: Entry, into: Into) -> str | None:
        """Why ``who`` did not give the content; None when it lies in ``into``, verified."""
        worker = self.service.worker
        within_s = FETCH_S + entry.size / SLOW_BYTES
        try:
            async with asyncio.timeout(within_s):
                await asking
            if not await worker.run(into.is_right):
                raise mismatch(entry)
        except TimeoutError:
            return self._leave_out(who, f"did not give {shown(entry.path)} within {within_s:.0f} s")
        except (PeerError, DamagedError) as error:
            return self._leave_out(who, error.reason)
        except UnavailableError as error:
            return error.reason
        return None

    def _leave_out(self, who: NodeName, reason: str) -> str:
        if who in self.senders:
            self.senders.remove(who)
            self._left_out[who] = reason
        return reason

    async def _from_partner(self, who: NodeName, entry: Entry, into: Into) -> None:
        left = [(0, entry.size)]
        await self.service.worker.run(into.clear)

        def missing(_: int) -> list[tuple[int, int]]:
            return [left.pop()] if left else []

        await self.partners.read(who, entry, missing, into.write, self.service.worker)

    async def _from_sender(self, who: NodeName, change: Change, entry: Entry, into: Into) -> None:
        """Over the link that this node follows the line by: its sender gives what its own rules allow."""
        service = self.service
        await service.worker.run(into.clear)
        client = service.sources[who].client
        if entry.kind is Kind.FILE and entry.size > RANGE_BYTES:
            request = m.RangesRequest(
                service.line, self.target.id, change.page, change.index, ((0, entry.size),)
            )
            batches = client.ranges(request)
        else:
            wants = (m.PageWant(change.page, (change.index,)),)
            batches = client.contents(
                m.ContentsRequest(service.line, self.target.id, wants), sizes=[entry.size]
            )
        async with aclosing(batches):
            async for answers in batches:
                for answer in answers:
                    if answer.status not in (AnswerStatus.WHOLE, AnswerStatus.PIECE):
                        raise UnavailableError(
                            f"it answers {answer.status.name.lower()}", code="superseded", node=who
                        )
                    if answer.offset + len(answer.data) > entry.size:
                        raise PeerError(f"{who} sent more than {shown(entry.path)} has", code="bad_answer")
                    await service.worker.run(into.write, answer.offset, bytes(answer.data))
