"""The unions of one simulated home: made and recorded by the real functions, and which of them the tree holds.

It stands for ``node/replica/laid.py``, and follows its rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from instep.core.union.found_names import found_names, with_empty_own
from instep.core.union.kept_names import kept_names
from instep.core.union.lines import KnownLines
from instep.core.union.ownership import Ownership
from instep.core.union.reunite import reunite
from instep.core.union.unite import United, unite
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.manifest.entry import Entry
from instep.model.manifest.manifest import build
from instep.model.manifest.walk import Reader
from instep.model.paths import sort_key
from instep.model.replication.union import KeptName, UnionPart, UnionRecord, Withheld
from instep.testing.unions.disk import UnionDisk
from instep.testing.world.disk import content_digest

DEFINITION = content_digest(b"the definition of all lines")
RECORDS_KEPT = 8


@dataclass(frozen=True, slots=True)
class SimLaid:
    """One union with its lines; ``record`` is None for the union of no lines."""

    record: UnionRecord | None
    lines: KnownLines
    united: United
    ownership: Ownership

    @property
    def ref(self) -> HeadRef | None:
        return None if self.record is None else self.record.ref()

    @property
    def parts(self) -> tuple[UnionPart, ...]:
        return () if self.record is None else self.record.parts

    @property
    def kept(self) -> tuple[KeptName, ...]:
        """The names of losers that the tree has still."""
        return () if self.record is None else self.record.kept

    @property
    def withheld(self) -> tuple[Withheld, ...]:
        return () if self.record is None else self.record.withheld

    def part_of(self, origin: NodeName) -> HeadRef | None:
        return next((part.head for part in self.parts if part.origin == origin), None)

    def others(self, me: NodeName) -> list[UnionPart]:
        return [part for part in self.parts if part.origin != me]


class UnknownUnion(Exception):
    """Pages of a line are missing: ``origin`` names it."""

    def __init__(self, origin: NodeName) -> None:
        super().__init__(origin)
        self.origin = origin


class SimUnions:
    """``now`` is the union that the tree holds; None while that is not certain."""

    def __init__(self, disk: UnionDisk, me: NodeName) -> None:
        self._disk = disk
        self._me = me
        self._made: dict[Digest, SimLaid] = {}
        self.now: SimLaid | None = None
        self.is_own_doubtful = False

    def record(self, union: Digest) -> UnionRecord | None:
        return self._disk.state.records.get(union)

    def entry(self, root: Digest, path: bytes) -> Entry | None:
        return Reader(self._disk.state.get_page).lookup(root, path)

    def take_in(self, record: UnionRecord) -> None:
        self._disk.state.records.setdefault(record.id, record)

    def unite(self, parts: Sequence[UnionPart], withheld: Sequence[Withheld]) -> UnionRecord:
        laid = self._united(parts, self.now, withheld)
        assert laid.record is not None
        self._keep(laid)
        return laid.record

    def _keep(self, laid: SimLaid) -> None:
        assert laid.record is not None
        state = self._disk.state
        state.records[laid.record.id] = laid.record
        self._made[laid.record.id] = laid
        newest = sorted(state.records.values(), key=lambda each: each.number)[-RECORDS_KEPT:]
        wanted = {each.id for each in newest} | {state.laid}
        if self.now is not None and self.now.record is not None:
            wanted.add(self.now.record.id)
        state.records = {key: each for key, each in state.records.items() if key in wanted}
        self._made = {key: each for key, each in self._made.items() if key in wanted}

    def _united(
        self,
        parts: Sequence[UnionPart],
        base: SimLaid | None,
        withheld: Sequence[Withheld],
        kept: Sequence[KeptName] = (),
    ) -> SimLaid:
        state = self._disk.state
        get, put = state.get_page, state.pages.__setitem__
        roots = {part.origin: part.head.root for part in parts}
        withheld = tuple(each for each in withheld if self._is_wanted(roots.get(each.origin), each.wanted))
        before = base.lines if base is not None else None
        lines = KnownLines(roots, get, withheld, before=before, kept=kept)
        if base is not None and base.record is not None:
            united = reunite(base.united, base.lines, lines, get, put)
        else:
            united = unite(lines, get, put)
        number = 1 + max((record.number for record in state.records.values()), default=0)
        record = UnionRecord(1, number, tuple(parts), united.root, DEFINITION, withheld, tuple(kept))
        return SimLaid(record, lines, united, Ownership(lines, united.collisions))

    def _is_wanted(self, root: Digest | None, wanted: Entry) -> bool:
        return root is not None and self.entry(root, wanted.path) == wanted

    def nothing(self) -> SimLaid:
        united = United(build(iter(()), self._disk.state.pages.__setitem__))
        lines = KnownLines({}, self._disk.state.get_page)
        return SimLaid(None, lines, united, Ownership(lines, ()))

    def of(self, union: Digest) -> SimLaid:
        """A recorded union with its lines; ``UnknownUnion`` while pages are missing."""
        if union in self._made:
            return self._made[union]
        state = self._disk.state
        record = state.records[union]
        for part in record.parts:
            if missing(part.head.root, state.pages.get):
                raise UnknownUnion(part.origin)
        roots = {part.origin: part.head.root for part in record.parts}
        lines = KnownLines(roots, state.get_page, record.withheld, kept=record.kept)
        united = unite(lines, state.get_page, state.pages.__setitem__)
        assert united.root == record.root, "a union is a function of its lines"
        laid = self._made[union] = SimLaid(record, lines, united, Ownership(lines, united.collisions))
        return laid

    def found(self, *, may_assume: bool = False) -> SimLaid:
        """The union that the tree holds, after a start: by its own record and by the state. With ``may_assume`` the own
        part of it is taken as empty, where no node has its manifest any more."""
        held, state = self._disk.held, self._disk.state
        if held is not None:
            self.take_in(held)
        saved = None if state.laid is None else state.records.get(state.laid)
        found = held or saved
        if held is not None and saved is not None and saved.number >= held.number:
            if (saved.parts, saved.withheld, saved.kept) == (held.parts, held.withheld, held.kept):
                found = saved
            else:
                own = [[part for part in each.parts if part.origin == self._me] for each in (saved, held)]
                self.is_own_doubtful = own[0] != own[1]
        if found is None:
            self.now = self.nothing()
            return self.now
        try:
            return self.holds(found.id)
        except UnknownUnion:
            is_here = not any(
                missing(part.head.root, state.pages.get) for part in found.parts if part.origin != self._me
            )
            if not may_assume or not is_here:
                raise
            return self._moved_to(self._with_unknown_own(found))

    def _with_unknown_own(self, held: UnionRecord) -> SimLaid:
        """What the tree holds of other homes, by the names that it has of their losers."""
        self.is_own_doubtful = True
        parts = with_empty_own(held.parts, self._me, self.nothing().united.root)
        laid = self._united(parts, None, held.withheld, held.kept)
        paths = sorted(self._disk.tree, key=sort_key)
        kept = (*held.kept, *found_names(laid.lines, paths))
        return self._united(parts, None, held.withheld, kept)

    def holds(self, union: Digest) -> SimLaid:
        self.now = self.of(union)
        self._disk.state.laid = union
        return self.now

    def lost(self) -> None:
        self.now = None

    def with_own(self, head: HeadRef | None) -> SimLaid:
        assert self.now is not None
        if head is None or self.now.part_of(self._me) == head:
            return self.now
        parts = {part.origin: part for part in self.now.parts} | {self._me: UnionPart(self._me, head)}
        ordered, kept = tuple(parts[name] for name in sorted(parts)), self.now.kept
        while True:
            moved = self._united(ordered, self.now, self.now.withheld, kept)
            known, kept = kept, kept_names(self.now.united, moved.united, self._me, kept)
            if kept == known:
                return moved

    def own_moved(self, head: HeadRef) -> SimLaid | None:
        """The own line has this head now, whose contents the tree held before; None where that was known."""
        moved = self.with_own(head)
        assert self.now is not None
        if moved is self.now or moved.record is None:
            return None
        return self._moved_to(moved)

    def _moved_to(self, laid: SimLaid) -> SimLaid:
        """The tree holds another union, by no switch."""
        assert laid.record is not None
        self.now = laid
        self._disk.held = laid.record
        self._disk.state.laid = laid.record.id
        self._keep(laid)
        return laid
