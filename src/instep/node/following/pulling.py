"""Filling a stage from a peer: small contents in large batches, large files by chunks, network and disk at once."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing

from instep.errors import DamagedError, InstepError, NotAllowedError, PeerError, UnavailableError
from instep.model.counts import counted
from instep.model.ids import Digest, HeadRef, LineId
from instep.model.manifest.chunklist import (
    check_chunks,
    iterate_chunks,
    missing_chunk_pages,
    most_chunk_pages,
)
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.pages import verify_page
from instep.model.paths import shown
from instep.net.messages import messages as m
from instep.net.service import CHUNK_PAGES, PeerCalls
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.node.runtime.one_task import OneTask
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.keeping.chunk_lists import kept_chunks, recut_keeping
from instep.tree.objects.digest import digest_bytes
from instep.tree.objects.large import ChunkSpan, LargeFile
from instep.tree.stage.stage import Stage, Want

BATCH_ENTRIES = 4_000
BATCH_BYTES = 16 << 20
RANGES_AT_ONCE = 4_096
POSITIONS_MAX = 512
TRIES = 3
STALL_S = 10.0
"""So long a source may send nothing while another one is left."""
LISTED_OVER = 16 << 20
"""The chunk list of a file so large comes with its first copy; a smaller one is cut here when it is needed."""
_OF_A_SOURCE = (UnavailableError, PeerError, NotAllowedError, DamagedError)
"""Errors after which another source may do better; trouble of this machine is none of them."""
log = logging.getLogger(__name__)


class Puller:
    """Lays everything that one stage wants. ``contents`` came with the head, ``link_of`` finds archived targets of
    symlinks. ``clients`` are the sources, the one that the machine chose first: one that fails, sends other bytes or
    hangs is left out from then on, and the next is asked for the rest. When none is left, the error of
    the first is raised: ``UnavailableError`` ``superseded`` when it no longer has the contents; ``no_source`` when
    there never was one."""

    def __init__(
        self,
        tree: FilesetTree,
        stage: Stage,
        head: HeadRef,
        clients: Sequence[PeerCalls],
        contents: Mapping[Digest, bytes],
        link_of: Callable[[Entry], bytes | None] | None = None,
    ) -> None:
        self._stage = stage
        self._line = tree.line
        self._head = head
        self._clients = list(clients)
        self._failed: InstepError | None = None
        """The error of the first source that was left out."""
        self._contents = contents
        self._worker = tree.worker
        self._get = tree.get_page
        self._store = tree.store
        self._link_of = link_of
        self.fetched_bytes = 0

    async def run(self) -> None:
        """Ask for a batch while the one before is still on its way or being laid: the sender reads, the network
        carries and the disk writes at the same time. Memory: two requests, of each two answers of 1 MiB."""
        async with OneTask() as before:
            while wants := await self._worker.run(self._stage.wants, BATCH_ENTRIES, BATCH_BYTES):
                small = await self._lay_known([want for want in wants if not want.is_large])
                await before.join()
                if small:
                    before.begin(self._small(small))
                for want in wants:
                    if want.is_large:
                        await self._large(want)

    def _client(self) -> PeerCalls:
        if self._clients:
            return self._clients[0]
        raise self._failed or UnavailableError(
            "contents are neither on this node nor on one that is connected",
            hint="they are fetched as soon as a node that has them is connected",
            code="no_source",
        )

    def _leave_out(self, client: PeerCalls, error: InstepError) -> None:
        """Ask this source no more in this pull."""
        if client in self._clients:
            self._clients.remove(client)
            log.info("%s sends no more contents of %s now: %s", client.name, self._line, error.reason)
        self._failed = self._failed or error

    def _stall_s(self) -> float | None:
        """How long a source may send nothing; None for the only one."""
        return STALL_S if len(self._clients) > 1 else None

    async def _answers(
        self, client: PeerCalls, batches: AsyncGenerator[list[TransferAnswer], None]
    ) -> AsyncGenerator[list[TransferAnswer], None]:
        """The batches of one request; while another source is left, a pause ends them with ``UnavailableError``."""
        async with aclosing(batches):
            while True:
                try:
                    async with asyncio.timeout(self._stall_s()):
                        answers = await anext(batches, None)
                except TimeoutError:
                    raise UnavailableError(
                        f"{client.name} sent nothing for {STALL_S:g} s",
                        code="timed_out",
                        node=client.name,
                    ) from None
                if answers is None:
                    return
                yield answers

    async def _lay_known(self, wants: list[Want]) -> list[Want]:
        """Lay what came with the head or lies in the archive; the rest is returned."""
        known: list[Want] = []
        data: list[bytes] = []
        rest: list[Want] = []
        for want in wants:
            found = self._contents.get(want.digest)
            if found is None and self._link_of is not None and want.entry.kind is Kind.SYMLINK:
                target = self._link_of(want.entry)
                found = target if target is not None and digest_bytes(target) == want.digest else None
            if found is None:
                rest.append(want)
            else:
                known.append(want)
                data.append(found)
        if known:
            await self._worker.run(self._stage.lay_many, known, data)
        return rest

    async def _small(self, wants: list[Want]) -> None:
        """Ask one source after the other until all are laid."""
        if any(want.which for want in wants):
            raise PeerError(
                "attributes larger than 4 KiB cannot be fetched by this version", code="large_attribute"
            )
        while wants:
            client = self._client()
            laid: set[int] = set()
            try:
                await self._batch(client, wants, laid)
            except _OF_A_SOURCE as error:
                self._leave_out(client, error)
            wants = [want for index, want in enumerate(wants) if index not in laid]

    async def _batch(self, client: PeerCalls, wants: list[Want], laid: set[int]) -> None:
        """One request, its answers laid by the worker while the next come in. ``laid`` gets their positions."""
        request = _asked(self._line, self._head, wants)
        batches = client.contents(request, sizes=[want.size_bytes for want in wants])
        laying = OneTask()
        try:
            async with aclosing(self._answers(client, batches)) as answers_of:
                async for answers in answers_of:
                    await laying.join()
                    laying.begin(self._lay(client, wants, answers, laid))
        finally:
            await laying.join()
        if len(laid) < len(wants):
            raise PeerError(
                f"{client.name} answered {len(laid)} of {counted(len(wants), 'content')}", code="bad_answer"
            )

    async def _lay(
        self, client: PeerCalls, wants: Sequence[Want], answers: Sequence[TransferAnswer], laid: set[int]
    ) -> None:
        for answer in answers:
            if answer.status is not AnswerStatus.WHOLE:
                _refuse(answer, wants[answer.want], client.name)
        self.fetched_bytes += sum(len(answer.data) for answer in answers)
        await self._worker.run(
            self._stage.lay_many, [wants[a.want] for a in answers], [answer.data for answer in answers]
        )
        laid.update(answer.want for answer in answers)

    # Large files ----------------------------------------------------------------------------------------------

    async def _large(self, want: Want) -> None:
        large = await self._worker.run(self._stage.large, want)
        try:
            async with OneTask() as listing:
                if large.wants_chunks:
                    await self._use_chunks(large, want)
                elif want.entry.size >= LISTED_OVER:
                    listing.begin(self._fetch_list(want))
                await self._fill(large, want)
        finally:
            await asyncio.shield(self._worker.run(large.close))

    async def _fill(self, large: LargeFile, want: Want) -> None:
        for _ in range(TRIES):
            while missing := await self._worker.run(large.missing, RANGES_AT_ONCE):
                await self._ranges(large, want, missing)
            try:
                return await self._worker.run(large.finish)
            except DamagedError as error:
                if not large.missing(1):
                    raise
                if len(self._clients) > 1:
                    self._leave_out(self._client(), error)
        raise DamagedError(
            f"the contents of {want.entry.path!r} came wrong {TRIES} times", code="content_mismatch"
        )

    async def _use_chunks(self, large: LargeFile, want: Want) -> None:
        """With an old version or an earlier attempt here, the chunk list says what need not be sent."""
        root = _list_root(want)
        if root is None:
            return
        old = await self._worker.run(self._old_chunks, large)
        if await self._fetch_list(want):
            await self._worker.run(self._take_chunks, large, want, root, old)

    async def _fetch_list(self, want: Want) -> bool:
        """Have the pages of a chunk list here: for this file, or for its next version. False when the source does not
        have them, as one that never needed them itself."""
        root = _list_root(want)
        if root is None:
            return False
        client = self._client()
        left = most_chunk_pages(want.entry.size)
        while absent := await self._worker.run(missing_chunk_pages, root, self._page):
            if len(absent) > left:
                path = shown(want.entry.path)
                raise PeerError(
                    f"the chunk list of {path} has more pages than the {most_chunk_pages(want.entry.size)} that "
                    f"{want.entry.size} bytes can have",
                    code="bad_chunk_list",
                    path=path,
                )
            asked = tuple(absent[: m.DIGESTS_MAX])
            request = m.ChunkPagesRequest(self._line, self._head.id, want.page, want.index, asked)
            try:
                reply = await client.call(CHUNK_PAGES, request)
            except _OF_A_SOURCE as error:
                if error.error_code == "superseded":
                    return False
                self._leave_out(client, error)
                client = self._client()
                continue
            pages = list(zip(asked, reply.pages, strict=False))
            if not pages:
                return False
            left -= len(pages)
            for digest, raw in pages:
                verify_page(digest, raw)
            self._store.put_pages(pages)
        return True

    def _page(self, digest: Digest) -> bytes | None:
        try:
            return self._get(digest)
        except KeyError:
            return None

    def _old_chunks(self, large: LargeFile) -> list[ChunkSpan] | None:
        """The old version's chunks, from its list where that is kept here, else cut anew. Pages of a list that is cut
        are kept, so that only differing ones are asked for."""
        if large.old_fd is None:
            return None
        if large.old_list is not None:
            known = kept_chunks(large.old_list, os.fstat(large.old_fd).st_size, self._page)
            if known is not None:
                return known
        pages: dict[Digest, bytes] = {}
        spans = recut_keeping(large.old_fd, pages.__setitem__)
        self._store.put_pages(pages.items())
        return spans

    def _take_chunks(self, large: LargeFile, want: Want, root: Digest, old: list[ChunkSpan] | None) -> None:
        check_chunks(root, want.entry.size, self._get)
        large.use_chunks(iterate_chunks(root, self._get), old)

    async def _ranges(self, large: LargeFile, want: Want, missing: list[tuple[int, int]]) -> None:
        """Ask one source for these ranges. When it fails, some of them are missing still."""
        client = self._client()
        request = m.RangesRequest(self._line, self._head.id, want.page, want.index, tuple(missing))
        writing = OneTask()
        try:
            async with aclosing(self._answers(client, client.ranges(request))) as batches:
                async for answers in batches:
                    for answer in answers:
                        if answer.status is not AnswerStatus.PIECE:
                            _refuse(answer, want, client.name)
                    await writing.join()
                    self.fetched_bytes += sum(len(answer.data) for answer in answers)
                    writing.begin(self._worker.run(_write_all, large, answers))
        except _OF_A_SOURCE as error:
            self._leave_out(client, error)
        finally:
            await writing.join()


def _list_root(want: Want) -> Digest | None:
    return want.entry.extra.chunks if want.entry.extra is not None else None


def _write_all(large: LargeFile, answers: Sequence[TransferAnswer]) -> None:
    for answer in answers:
        large.write(answer.offset, answer.data)


def _asked(line: LineId, head: HeadRef, wants: Sequence[Want]) -> m.ContentsRequest:
    """The request for these wants, answered in their order."""
    pages: list[m.PageWant] = []
    for page, group in itertools.groupby(wants, lambda want: want.page):
        positions = tuple(want.index for want in group)
        starts = range(0, len(positions), POSITIONS_MAX)
        pages += (m.PageWant(page, positions[start : start + POSITIONS_MAX]) for start in starts)
    return m.ContentsRequest(line, head.id, tuple(pages))


def _refuse(answer: TransferAnswer, want: Want, node: str) -> None:
    """Raise the error of a source that sent no contents: it moved on, or it may not send them."""
    if answer.status is AnswerStatus.SUPERSEDED:
        raise UnavailableError(
            f"{node} no longer has the contents of {want.entry.path!r}", code="superseded", node=node
        )
    raise UnavailableError(
        f"{node} does not give the contents of {want.entry.path!r}: {answer.status.name.lower()}",
        code="contents_denied",
        node=node,
    )
