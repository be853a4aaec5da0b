"""Which union the tree holds, found out after a start; with manifests from other nodes where the state has not all."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable
from functools import partial

from instep.core.unite import vocabulary as u
from instep.errors import InstepError, UnavailableError
from instep.model.definition import Definition
from instep.model.ids import HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.replication.union import UnionPart, UnionRecord
from instep.net.messages import messages as m
from instep.net.service import PAGES, PeerCalls
from instep.node.following.page_fetch import Fetcher
from instep.node.lines.line_net import LineNet
from instep.node.replica.kept_line import KeptLine
from instep.node.replica.laid import Unions
from instep.node.replica.union_service import UnionService
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree

AGAIN_S = 2.0
SEARCH_S = 60.0
"""So long the manifest of the own part is searched for where no node answers."""


class LaidSearch(abc.ABC):
    """The part of a ``Replica`` that looks for the union, and asks the sources of its lines."""

    runtime: Runtime
    me: NodeName
    own_tree: FilesetTree
    _net: LineNet
    kept: dict[NodeName, KeptLine]
    unions: Unions
    union: UnionService
    turn: asyncio.Lock
    recovered: asyncio.Event
    _finding: asyncio.Task[None] | None
    _own_head: Callable[[], HeadRef | None]
    _laid_head: Callable[[], HeadRef | None]
    _touched: Callable[[tuple[bytes, ...], bool], None]
    _sought: HeadRef | None = None
    """The own part of the union that the tree holds, while not all manifests of that union are here."""
    _is_in_vain = False
    """Whether a node said that it has the manifest of that part no more."""
    _unknown: InstepError | None
    """Why it is not certain what the tree holds."""

    @property
    @abc.abstractmethod
    def definition(self) -> Definition: ...

    @abc.abstractmethod
    def _keep_line(self, origin: NodeName) -> None: ...

    @abc.abstractmethod
    def turned(self) -> None: ...

    @abc.abstractmethod
    def parts_changed(self) -> None: ...

    @property
    def is_lost(self) -> bool:
        """Whether a work on the tree stopped half way, and nothing finds out what the tree holds."""
        is_searching = self._finding is not None and not self._finding.done()
        return self.recovered.is_set() and self.unions.now is None and not is_searching

    def has_pages(self, head: HeadRef) -> bool:
        return not missing(head.root, self.runtime.store.get_page)

    async def find_laid(self) -> u.TreeKnown:
        """Find out which union the tree holds; a later event says it where manifests have to be fetched first."""
        try:
            known = await self.own_tree.worker.run(self._found_now)
        except UnavailableError as error:
            self._unknown = error
            if self._finding is None or self._finding.done():
                self._finding = asyncio.get_running_loop().create_task(self._find_later())
            known = u.TreeKnown(None, is_certain=False)
        self.recovered.set()
        return known

    def _found_now(self, *, may_assume: bool = False) -> u.TreeKnown:
        """``may_assume``: the manifest of the own line's part was searched for in vain."""
        unions = self.unions
        if unions.now is None:
            raw = self.union.tree.held_record()
            held = unions.take_in(raw) if raw else None
            found = unions.found_on(held)
            if found is None:
                unions.holds_nothing()
            else:
                self._hold_found(found, may_assume=may_assume)
        self._unknown = None
        head, part = self._laid_head(), unions.required().part_of(self.me)
        is_newer = head is not None and (part is None or head.position > part.position)
        if head is not None and is_newer and not unions.is_own_doubtful and self.has_pages(head):
            unions.own_moved(head, self.definition)
        return unions.required().known()

    def _hold_found(self, found: UnionRecord, *, may_assume: bool) -> None:
        try:
            self.unions.holds(found.id)
        except UnavailableError:
            self._sought = next((part.head for part in found.parts if part.origin == self.me), None)
            if not may_assume:
                raise
            self.unions.assume_own(found, self.union.tree.found_paths)

    async def _find_later(self) -> None:
        """Fetch the manifests that the tree's own record names, from whichever node has them. That of the own part is
        done without once a node said that it has it no more, and no other one sent it, or after ``SEARCH_S``."""
        began, self._is_in_vain = asyncio.get_running_loop().time(), False
        while True:
            for record in sorted(self.unions.records(), key=lambda one: -one.number):
                for part in record.parts:
                    self._keep_line(part.origin)
                    await self._fetch_part(part)
            is_over = self._is_in_vain or asyncio.get_running_loop().time() - began >= SEARCH_S
            try:
                async with self.turn:
                    known = await self.own_tree.worker.run(partial(self._found_now, may_assume=is_over))
            except UnavailableError as error:
                self._unknown = error
                await asyncio.sleep(AGAIN_S)
                continue
            self.union.post(known)
            self.turned()
            self.parts_changed()
            self._touched((), True)
            return

    def clients_of(self, origin: NodeName) -> list[PeerCalls]:
        """The nodes that can send a line, its writer first."""
        kept = self.kept.get(origin)
        if kept is None:
            return []
        names = sorted(kept.sources, key=lambda name: (name != kept.writer, name))
        return [kept.sources[name].client for name in names]

    async def _fetch_part(self, part: UnionPart) -> None:
        kept = self.kept.get(part.origin)
        if not missing(part.head.root, self.runtime.store.get_page):
            return
        if part.origin == self.me:
            await self._fetch_own(part.head)
        if kept is None:
            return
        for client in self.clients_of(part.origin):

            async def ask(request: m.PagesRequest, client: PeerCalls = client) -> m.PagesReply:
                return await client.call(PAGES, request)

            try:
                await Fetcher(self.runtime).pages(kept.line, part.head, None, ask)
                return
            except InstepError as error:
                self._unknown = error

    async def _fetch_own(self, head: HeadRef) -> None:
        """A manifest of the own line, which only partners have any more."""
        line = self.own_tree.line
        for who in self._net.connected(line):
            try:
                await self._net.fetch_pages(line, who, head)
                return
            except InstepError as error:
                self._unknown = error
                self._is_in_vain |= error.error_code == "superseded" and head == self._sought
