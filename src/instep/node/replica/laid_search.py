"""Which union the tree holds, found out after a start; with manifests from other nodes where the state has not all."""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial

from msgspec.structs import replace

from instep.core.union.found_names import found_names
from instep.core.unite import vocabulary as u
from instep.errors import InstepError, UnavailableError
from instep.model.definition import Definition
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import build
from instep.model.paths import parent_of, sort_key
from instep.model.replication.union import DIRECTORY_MODE, UnionPart, UnionRecord
from instep.net.messages import messages as m
from instep.net.service import PAGES, PeerCalls
from instep.node.following.page_fetch import Fetcher
from instep.node.lines.line_net import LineNet
from instep.node.replica.kept_line import KeptLine
from instep.node.replica.laid import Unions
from instep.node.replica.union_service import UnionService
from instep.node.replica.union_tree import UnionTree
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.scanning.scan_tally import PageKeeper

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
    _lost: frozenset[NodeName] = frozenset()
    """Homes that have the manifest of their part no more, as they and each other node that sends their line say."""
    _given_up: frozenset[NodeName] = frozenset()
    """Homes whose lost manifests an operator gave up."""
    _unknown: InstepError | None
    """Why it is not certain what the tree holds."""

    @property
    @abc.abstractmethod
    def definition(self) -> Definition: ...

    @abc.abstractmethod
    def _keep_line(self, origin: NodeName) -> None: ...

    @abc.abstractmethod
    def why_not_still(self) -> InstepError: ...

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
            lost = self.unions.lost_parts(found)
            if lost and self._given_up.issuperset(lost):
                _take_as_found(self.unions, self.union.tree, found, lost, self.definition)
                return
            self._sought = next((part.head for part in found.parts if part.origin == self.me), None)
            if not may_assume:
                raise
            rest = _emptied(self.unions, found, self._given_up.intersection(lost))
            self.unions.assume_own(rest, self.union.tree.found_paths)

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
        clients, answers = self.clients_of(part.origin), [""]
        for client in clients:

            async def ask(request: m.PagesRequest, client: PeerCalls = client) -> m.PagesReply:
                return await client.call(PAGES, request)

            try:
                await Fetcher(self.runtime).pages(kept.line, part.head, None, ask)
                return
            except InstepError as error:
                self._unknown = error
                answers.append(error.error_code)
        is_lost = kept.writer in kept.sources and set(answers) == {"", "superseded"}
        self._lost = self._lost | {part.origin} if is_lost else self._lost - {part.origin}

    def give_up_lost(self) -> None:
        """An operator wants no more waiting for manifests that their own homes have no more."""
        self._given_up |= self._lost

    async def give_up(self, origin: NodeName, within_s: float) -> None:
        """An operator lets go of a home: its manifest is not waited for. Returns once it is certain what the tree
        holds; the reason why it is not is raised at the deadline."""
        self._given_up |= {origin}
        if self.unions.now is None and self._finding is not None:
            try:
                async with asyncio.timeout(within_s):
                    await asyncio.shield(self._finding)
            except TimeoutError:
                raise self.why_not_still() from None

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


def _take_as_found(
    unions: Unions, tree: UnionTree, held: UnionRecord, lost: Collection[NodeName], definition: Definition
) -> None:
    """The tree holds the union ``held``, whose ``lost`` manifests no node has any more. A manifest of the paths that no
    other line shows stands in for the first of them; the rest is empty. So none of these paths becomes an own file or
    an offered edit: the home's next generation replaces or archives them. In the worker thread."""
    first, rest = min(lost), _emptied(unions, held, lost)
    known = rest.parts
    lines = unions.trial(known, held, definition, rest.kept).lines
    kept = (*rest.kept, *found_names(lines, tree.found_paths()))
    others = unions.trial(known, held, definition, kept)
    assert others.ref is not None
    found = tree.comparison(others.ref).everything(others.united.root, wall_ms())
    extra = [each.found for each in found if each.expected is None and each.found is not None]
    keeper = PageKeeper(tree.store)
    root = build(_with_parents(extra), keeper.put)
    keeper.flush()
    parts = [_with_root(part, root) if part.origin == first else part for part in known]
    unions.hold_anew(unions.trial(parts, held, definition, kept))


def _emptied(unions: Unions, held: UnionRecord, lost: Collection[NodeName]) -> UnionRecord:
    """The union ``held`` with nothing in the parts of the ``lost`` homes."""
    empty = unions.nothing().united.root
    parts = tuple(_with_root(part, empty) if part.origin in lost else part for part in held.parts)
    return replace(held, parts=parts, kept=tuple(name for name in held.kept if name.origin not in lost))


def _with_root(part: UnionPart, root: Digest) -> UnionPart:
    return UnionPart(part.origin, replace(part.head, root=root))


def _with_parents(found: Iterable[Entry]) -> Iterator[Entry]:
    """The entries as a line has them: in order, and below directories in the form that all lines give them."""
    files = {each.path: each for each in found if each.kind is not Kind.DIR}
    directories = {each.path for each in found if each.kind is Kind.DIR}
    for path in files:
        while path := parent_of(path):
            directories.add(path)
    for path in directories:
        files[path] = Entry(path, Kind.DIR, DIRECTORY_MODE, 0, 0, EMPTY_DIGEST, 0)
    return (files[path] for path in sorted(files, key=sort_key))
