"""Looks at the tree of a fileset of many homes: the union against what lies there, for one line or for all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence

from instep.api.looking import ChangeDocument
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.replication.union import UnionPart, Withheld
from instep.node.replica.kept_line import KeptLine
from instep.node.replica.laid import Laid, Unions
from instep.node.replica.offers import ForeignPaths, RottenPaths
from instep.node.replica.union_service import UnionService
from instep.node.runtime.driver import wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.shown_changes import changes_shown
from instep.node.trees.tree_comparison import Numbers, TreeComparison
from instep.tree.scan.compare import Difference

ROTTEN_MAX = 10_000
TOGETHER_S = 0.1
"""So long a look waits for questions about other lines."""


class UnionLooks:
    """The part of a ``Replica`` that looks. A deep look has the files restored that it finds rotten."""

    me: NodeName
    own_tree: FilesetTree
    unions: Unions
    foreign: ForeignPaths
    rotten: RottenPaths
    union: UnionService
    _verifying: dict[bool, asyncio.Task[dict[NodeName, Numbers]]]
    """Looks that have not begun, by whether they read every byte."""
    kept: dict[NodeName, KeptLine]
    _own_head: Callable[[], HeadRef | None]

    def live_of(self, origin: NodeName) -> HeadRef | None:
        live = self.union.facts.attempts.live
        return next((part.head for part in live if part.origin == origin), None)

    def used_of(self, origin: NodeName) -> tuple[HeadRef, ...]:
        return tuple(
            part.head for record in self.unions.records() for part in record.parts if part.origin == origin
        )

    def withheld(self) -> tuple[Withheld, ...]:
        """What the live union lacks because it cannot be had."""
        laid = self.unions.now
        return () if laid is None else laid.withheld

    def shown(self, origin: NodeName, path: bytes) -> bytes:
        return self.unions.shown(origin, path)

    def _homes_of(self, path: bytes) -> list[NodeName]:
        """The connected nodes that can send what the tree has at ``path``."""
        laid = self.unions.now
        sources = laid.ownership.of(path) if laid is not None else ()
        kept = [self.kept[each.origin] for each in sources if each.origin in self.kept]
        return sorted({name for line in kept for name in line.sources})

    def is_of_now(self, laid: Laid) -> bool:
        """Whether the union has the same heads of all other homes as the one that the tree holds."""
        now = self.unions.now
        return now is not None and self._others(now) == self._others(laid)

    def _others(self, laid: Laid) -> list[UnionPart]:
        return [part for part in laid.parts if part.origin != self.me]

    def contents_of(self, origin: NodeName, part: HeadRef) -> Mapping[Digest, bytes]:
        """Small contents that came with a head."""
        kept = self.kept.get(origin)
        bundle = kept.offered.bundle if kept is not None else None
        return bundle[1] if bundle is not None and bundle[0] == part.id else {}

    def foreign_now(self, asked: Sequence[bytes]) -> tuple[tuple[bytes, ...], int]:
        """Those of the changed paths of other homes that differ still; in the worker thread."""
        laid = self.unions.required()
        paths = (
            self.foreign.paths if not asked else tuple(path for path in asked if path in self.foreign.changes)
        )
        if laid.ref is None or not paths:
            return (), 0
        comparison = self.union.tree.comparison(laid.ref)
        found = comparison.some(laid.united.root, (), wall_ms(), alone=sorted(paths))
        differing = tuple(each.path for each in found if self._is_foreign(laid, each.path))
        return differing, len(differing)

    def _wanted_now(self) -> Laid:
        """The union that the tree holds, with the newest head of the own line: an old copy of the tree has an older
        part of it, and no other node serves that one."""
        laid, head = self.unions.required(), self._own_head()
        if head is None or missing(head.root, self.own_tree.store.get_page):
            return laid
        definition = self.own_tree.fileset.definition
        assert definition is not None, "a fileset of many homes is written here"
        return self.unions.with_own(head, definition)

    def _comparison(self) -> TreeComparison:
        laid = self.unions.required()
        return self.union.tree.comparison(laid.ref or _nothing(laid))

    def _is_foreign(self, laid: Laid, path: bytes) -> bool:
        """Whether another line has the path, or none: its home removed a file whose edit was offered to it."""
        sources = laid.ownership.of(path)
        return not sources or any(each.origin != self.me for each in sources)

    async def verified(self, origin: NodeName, *, is_deep: bool) -> Numbers:
        """Questions about several lines that come together are answered by one look."""
        look = self._verifying.get(is_deep)
        if look is None:
            look = asyncio.get_running_loop().create_task(self._verify_soon(is_deep))
            self._verifying[is_deep] = look
        return (await asyncio.shield(look)).get(origin) or Numbers()

    async def _verify_soon(self, is_deep: bool) -> dict[NodeName, Numbers]:
        await asyncio.sleep(TOGETHER_S)
        del self._verifying[is_deep]  # a caller from now on gets another look
        numbers, rotten = await self.own_tree.worker.run(self._verified_now, is_deep)
        if rotten:
            self.rotten.doubt(rotten)
        return numbers

    def _verified_now(self, is_deep: bool) -> tuple[dict[NodeName, Numbers], tuple[bytes, ...]]:
        """By line, and the files of other homes that the disk changed. A path that no line has is the own line's to
        publish; withheld entries are missing."""
        rotten: list[bytes] = []
        laid, comparison = self._wanted_now(), self._comparison()
        self.own_tree.looks_with(comparison)
        of: dict[NodeName, list[Difference]] = {}
        for each in comparison.everything(laid.united.root, wall_ms(), deep=is_deep):
            origins = [source.origin for source in laid.ownership.of(each.path)]
            for origin in origins or [self.me]:
                of.setdefault(origin, []).append(each)
            is_rotten = each.problem is not None and each.problem.what == "damaged"
            if is_rotten and self.me not in origins and len(rotten) < ROTTEN_MAX:
                rotten.append(each.path)
        numbers = {origin: comparison.numbers(iter(found)) for origin, found in of.items()}
        for held in laid.withheld:
            one = numbers.setdefault(held.origin, Numbers())
            one.missing += 1
            one.sample.append((held.wanted.path, "withheld"))
        return numbers, tuple(rotten)

    def changes_now(self, limit: int) -> tuple[ChangeDocument, ...]:
        laid, comparison = self._wanted_now(), self._comparison()
        found = tuple(itertools.islice(comparison.everything(laid.united.root, wall_ms()), limit))
        return changes_shown(lambda: found, limit)


def _nothing(laid: Laid) -> HeadRef:
    return HeadRef(1, 0, Digest(b""), laid.united.root)
