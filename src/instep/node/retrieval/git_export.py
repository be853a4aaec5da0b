"""``log FILESET --git DIR``: the generations of a line as commits of a bare git repository.

Contents come from where ``restore --to`` finds them. A generation whose contents are nowhere any more is left out by
name; the commit behind it holds its changes as well. What a commit holds is compared with the generation of the
commit before, so a run that was interrupted or is repeated appends only newer generations.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from instep.errors import DamagedError, PeerError, UnavailableError
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, NodeName
from instep.model.manifest.manifest import diff
from instep.node.lines.line_net import Lender
from instep.node.lines.line_service import LineService
from instep.node.lines.partner_contents import PartnerContents
from instep.node.retrieval import git_stream as g
from instep.node.retrieval.fetching_out import FetchingOut
from instep.node.retrieval.git_repository import GitRepository
from instep.node.retrieval.restoring_out import RestoringOut
from instep.node.trees.keeping.page_walk import must_have

GENERATIONS_MAX = 1_000_000
_CHECKPOINT_COMMITS = 256
LEFT_OUT_MAX = 20

Progress = Callable[[int, int], Awaitable[None]]


@dataclass(slots=True)
class GitExported:
    """What one run wrote."""

    numbers: list[int] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)
    """Generations without their contents, and the reason."""
    left_out: dict[bytes, None] = field(default_factory=dict)
    """Paths that git does not take."""


class GitExport:
    """One run."""

    def __init__(self, service: LineService, lenders: Sequence[Lender], senders: Sequence[NodeName]) -> None:
        self._service = service
        self._lenders, self._senders = lenders, senders
        self._get = must_have(lambda digest: service.runtime.store.get_page(digest))
        self._marks: dict[Digest, int] = {}
        """The contents that this run handed to git."""
        self.done = GitExported()

    async def run(self, to: bytes, progress: Progress) -> GitExported:
        """``RefusedError`` where ``to`` holds anything else; ``ResourceError`` where git fails."""
        line = self._service.line
        repository = await asyncio.to_thread(GitRepository, to, line)
        try:
            newest = await asyncio.to_thread(repository.newest)
            base, is_first = newest.root if newest is not None else None, True
            known = self._service.runtime.store.generations(line, GENERATIONS_MAX)
            due = [one for one in reversed(known) if newest is None or one.ref().position > newest.position]
            for count, signed in enumerate(due, 1):
                try:
                    await self._commit(repository, signed, base, continues=is_first and newest is not None)
                except (UnavailableError, DamagedError, PeerError) as error:
                    self.done.skipped.append((signed.ref().number, error.reason))
                else:
                    base, is_first = signed.ref().root, False
                    self.done.numbers.append(signed.ref().number)
                await progress(count, len(due))
            await asyncio.to_thread(repository.finish)
        finally:
            await asyncio.to_thread(repository.close)
        return self.done

    async def _commit(
        self, repository: GitRepository, signed: SignedGeneration, base: Digest | None, *, continues: bool
    ) -> None:
        ref = signed.ref()
        partners = PartnerContents(self._service.line, self._lenders)
        fetching = FetchingOut(self._service, ref, partners, self._senders)
        found, is_whole = await asyncio.to_thread(self._changes, base, ref.root, ref.number)
        await RestoringOut(fetching).require_contents(
            [one for one in found.files if one.new is not None and one.new.digest not in self._marks]
        )
        head = g.commit_head(signed, continues=continues) + (g.ALL_REMOVED if is_whole else b"")
        await asyncio.to_thread(self._write, repository, head, found, fetching)

    def _changes(self, base: Digest | None, root: Digest, number: int) -> tuple[g.CommitChanges, bool]:
        """Against the commit before; where its manifest is not here any more, all of it in place of that."""
        try:
            return g.commit_changes(diff(base, root, self._get)), False
        except KeyError:
            base = None
        try:
            return g.commit_changes(diff(base, root, self._get)), True
        except KeyError as error:
            raise UnavailableError(
                f"the manifest of generation {number} is not on this node", code="contents_missing"
            ) from error

    def _write(
        self, repository: GitRepository, head: bytes, found: g.CommitChanges, fetching: FetchingOut
    ) -> None:
        """The contents first, so that a commit without one of them is never begun."""
        contents = self._service.tree.contents()
        entries = [change.new for change in found.files if change.new is not None]
        contents.expect(entries)
        with repository.spool() as spool:
            for change, entry in zip(found.files, entries, strict=True):
                if entry.digest not in self._marks:
                    os.ftruncate(spool.fileno(), 0)
                    fetching.put(change, entry, contents, spool.fileno())
                    self._marks[entry.digest] = mark = len(self._marks) + 1
                    repository.write(g.blob_head(mark, entry.size))
                    repository.write_from(spool.fileno(), entry.size)
        removals = map(g.removal_line, found.removed)
        files = (g.file_line(entry, self._marks[entry.digest]) for entry in entries)
        repository.write(head, *removals, *files, b"\n")
        if len(self.done.numbers) % _CHECKPOINT_COMMITS == _CHECKPOINT_COMMITS - 1:
            repository.write(g.CHECKPOINT)
        self.done.left_out.update(dict.fromkeys(found.left_out))
