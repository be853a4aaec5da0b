"""The unions of one fileset on this node: made, recorded, and which of them the tree holds.

Everything runs in the fileset's worker thread, which also scans and switches: so a scan never divides a tree by another
union than the one that was laid. ``now`` alone is read by other threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from instep.core.union.found_names import found_names, with_empty_own
from instep.core.union.kept_names import kept_names
from instep.core.union.lines import KnownLines
from instep.core.union.ownership import Ownership
from instep.core.union.precautions import takes_names
from instep.core.union.reunite import reunite
from instep.core.union.unite import United, unite
from instep.core.unite.vocabulary import TreeKnown
from instep.errors import RefusedError, UnavailableError
from instep.model.counts import counted
from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.manifest.entry import Entry
from instep.model.manifest.manifest import build
from instep.model.manifest.walk import Reader
from instep.model.paths import shown
from instep.model.replication.union import Collision, KeptName, UnionPart, UnionRecord, Withheld, decode_union
from instep.node.trees.keeping.page_walk import must_have
from instep.node.trees.scanning.scan_tally import PageKeeper
from instep.store.port import NodeStore

NAMED_MAX = 5
RECORDS_KEPT = 8
"""The newest unions are kept, besides the ones in use."""


class _Saved(msgspec.Struct, frozen=True, array_like=True):
    """What the state keeps: the records, and the id of the union that the tree holds."""

    records: tuple[bytes, ...] = ()
    laid: Digest = Digest(b"")


@dataclass(frozen=True, slots=True)
class Laid:
    """One union with its lines. ``record`` is None for the union of no lines, which a new tree holds."""

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
    def withheld(self) -> tuple[Withheld, ...]:
        return () if self.record is None else self.record.withheld

    @property
    def kept(self) -> tuple[KeptName, ...]:
        """Names that the tree has, and the lines would not give any more: a switch has to follow."""
        return () if self.record is None else self.record.kept

    def known(self) -> TreeKnown:
        """The report to the union's machine that the tree holds this union."""
        return TreeKnown(self.ref, self.parts, is_whole=not self.kept, withheld=self.withheld)

    def part_of(self, origin: NodeName) -> HeadRef | None:
        """The head of this origin's line in the union."""
        return next((part.head for part in self.parts if part.origin == origin), None)


class TakesNames(RefusedError):
    """A head would take too many names of other lines."""

    code = "takes_names"

    def __init__(self, part: UnionPart, taken: Sequence[Collision]) -> None:
        names = ", ".join(shown(each.component) for each in taken[:NAMED_MAX])
        more = f" and {len(taken) - NAMED_MAX} more" if len(taken) > NAMED_MAX else ""
        entries = counted(sum(each.entries for each in taken), "path")
        super().__init__(
            f"generation {part.head.number} of {part.origin} would take the names of {entries} of other homes: "
            f"{names}{more}",
            hint="if that is meant, take it with: instep retry FILESET",
            origin=part.origin,
        )
        self.part = part


class Unions:
    """One per fileset of many homes. ``origin`` is this node, whose line is the own one."""

    def __init__(self, store: NodeStore, fileset: FilesetName, origin: NodeName) -> None:
        self._store = store
        self._key = f"union/{fileset}"
        self._name = fileset
        self._origin = origin
        self._get = must_have(store.get_page)
        raw = store.get(self._key)
        saved = _Saved() if raw is None else msgspec.msgpack.decode(raw, type=_Saved)
        self._records = {record.id: record for record in map(decode_union, saved.records)}
        self.saved = self._records.get(saved.laid)
        """The union that the state says is laid."""
        self._made: dict[Digest, Laid] = {}
        self.seen: Callable[[Laid], None] = lambda laid: None
        """Called with each union that the tree comes to hold."""
        self.now: Laid | None = None
        """The union that the tree holds; None while that is not certain."""
        self.held_at = ""
        """The path of the tree's own record, as an operator types it."""
        self._is_old_copy = False
        self.is_own_doubtful = False
        """Whether the tree was found to be an old copy, of before the own line's newest head, or to hold a generation
        of the own line that no node knows any more."""
        self.note_held: Callable[[HeadRef], None] = lambda _: None
        """Writes the tree's own record of a union that is recorded here."""

    # Records ------------------------------------------------------------------------------------------------

    def record(self, union: Digest) -> UnionRecord | None:
        return self._records.get(union)

    def records(self) -> list[UnionRecord]:
        """All that are kept; for any thread."""
        return list(self._records.values())

    def take_in(self, raw: bytes) -> UnionRecord:
        """A record that the tree or its journal has."""
        record = decode_union(raw)
        self._records.setdefault(record.id, record)
        return record

    def roots(self) -> list[Digest]:
        """The manifests of all unions that are kept."""
        return [record.root for record in list(self._records.values())]

    def _keep(self, record: UnionRecord, laid: Laid | None, *, durable: bool = True) -> None:
        self._records[record.id] = record
        wanted = {
            one.id for one in sorted(self._records.values(), key=lambda one: one.number)[-RECORDS_KEPT:]
        }
        if laid is not None and laid.record is not None:
            wanted.add(laid.record.id)
        self._records = {key: one for key, one in self._records.items() if key in wanted}
        self._made = {key: one for key, one in self._made.items() if key in wanted}
        self._save(durable=durable)

    def _save(self, *, durable: bool = True) -> None:
        laid = self.now.record if self.now is not None else self.saved
        raws = tuple(record.encoded() for record in self._records.values())
        saved = _Saved(raws, laid.id if laid is not None else Digest(b""))
        self._store.put(self._key, msgspec.msgpack.encode(saved), durable=durable)

    # Making -------------------------------------------------------------------------------------------------

    def unite(
        self,
        parts: Sequence[UnionPart],
        definition: Definition,
        withheld: Sequence[Withheld] = (),
        allowed: Sequence[UnionPart] = (),
    ) -> UnionRecord:
        """Make the union of these parts, whose pages are all here, and record it. ``TakesNames`` for a head that is not
        ``allowed`` to take as many names of others as it would."""
        self._store.put_blob(definition.digest, definition.encoded())
        laid = self._united(parts, definition.digest, self.now, withheld)
        assert laid.record is not None
        self._judge(laid, allowed)
        self._made[laid.record.id] = laid
        self._keep(laid.record, self.now, durable=False)  # the facts that name it are saved next
        return laid.record

    def _judge(self, laid: Laid, allowed: Sequence[UnionPart]) -> None:
        """The tree holds no union yet: then no name can be taken from it."""
        now = self.now
        if now is None or now.record is None:
            return
        for part in laid.parts:
            if part.origin == self._origin or part in allowed or part in now.parts:
                continue
            taken = takes_names(now.united, laid.united, part.origin, self._get)
            taken = tuple(each for each in taken if now.part_of(each.origin) is not None)
            if taken:
                raise TakesNames(part, taken)

    def _united(
        self,
        parts: Sequence[UnionPart],
        definition: Digest,
        base: Laid | None,
        withheld: Sequence[Withheld],
        kept: Sequence[KeptName] = (),
    ) -> Laid:
        keeper = PageKeeper(self._store)
        before = base.lines if base is not None else None
        roots = {part.origin: part.head.root for part in parts}
        withheld = tuple(each for each in withheld if self._is_wanted(roots.get(each.origin), each.wanted))
        lines = KnownLines(roots, self._get, withheld, before=before, kept=kept)
        if base is not None and base.record is not None:
            united = reunite(base.united, base.lines, lines, keeper.get, keeper.put)
        else:
            united = unite(lines, keeper.get, keeper.put)
        keeper.flush()
        number = 1 + max((record.number for record in self._records.values()), default=0)
        record = UnionRecord(1, number, tuple(parts), united.root, definition, withheld, tuple(kept))
        return Laid(record, lines, united, Ownership(lines, united.collisions))

    def _is_wanted(self, root: Digest | None, wanted: Entry) -> bool:
        """Whether a line at ``root`` still has the entry that cannot be had."""
        return root is not None and Reader(self._get).lookup(root, wanted.path) == wanted

    def nothing(self) -> Laid:
        """The union of no lines."""
        keeper = PageKeeper(self._store)
        united = United(build(iter(()), keeper.put))
        keeper.flush()
        lines = KnownLines({}, self._get)
        return Laid(None, lines, united, Ownership(lines, ()))

    def of(self, union: Digest) -> Laid:
        """A recorded union with its lines. ``UnavailableError`` ``union_unknown`` while pages of a line are missing."""
        found = self._made.get(union)
        if found is not None:
            return found
        record = self._records.get(union)
        if record is None:
            raise UnavailableError("the record of a union is not here", code="union_unknown")
        self._require_pages(record.parts)
        roots = {part.origin: part.head.root for part in record.parts}
        lines = KnownLines(roots, self._get, record.withheld, kept=record.kept)
        keeper = PageKeeper(self._store)
        united = unite(lines, keeper.get, keeper.put)
        keeper.flush()
        if united.root != record.root:
            raise UnavailableError(
                "the union that the tree holds was made by other rules than those of this version",
                code="union_unknown",
            )
        laid = self._made[union] = Laid(record, lines, united, Ownership(lines, united.collisions))
        return laid

    def _require_pages(self, parts: Sequence[UnionPart]) -> None:
        for part in parts:
            if missing(part.head.root, self._store.get_page):
                hint = f"it is fetched as soon as {part.origin}, or a node that has its line, is connected"
                if part.origin == self._origin:
                    hint = (
                        "it is fetched from a node that has this node's line; where none sends it within a minute, "
                        "files that no other home has are held until an operator says which are right"
                    )
                elif self._is_old_copy:
                    hint += (
                        "; this tree is an old copy: if no node has that manifest any more, copy the files of another "
                        f"home over it (rsync -a --delete --exclude '.instep*'), then: rm {self.held_at}"
                    )
                else:
                    hint += (
                        f"; where {part.origin} has it no more, wait no longer: instep retry {self._name}; where "
                        f"{part.origin} left for ever: instep fileset forget-line {self._name} {part.origin}"
                    )
                raise UnavailableError(
                    f"the tree holds generation {part.head.number} of {part.origin}, and its manifest is not here: "
                    "nothing is published or changed before it is",
                    hint=hint,
                    code="union_unknown",
                    node=part.origin,
                )

    # What the tree holds ------------------------------------------------------------------------------------

    def found_on(self, held: UnionRecord | None) -> UnionRecord | None:
        """The union of a tree whose own record is ``held``. Whatever moves the union writes the tree's record before
        the state: so a tree is an old copy when a newer state has other parts, and holds what its record says."""
        saved = self.saved
        if held is None or saved is None:
            return held or saved
        if saved.number < held.number:
            return held
        if (saved.parts, saved.withheld, saved.kept) == (held.parts, held.withheld, held.kept):
            return saved
        self._is_old_copy = True
        self.is_own_doubtful = self._own_of(saved) != self._own_of(held)
        return held

    def _own_of(self, record: UnionRecord) -> HeadRef | None:
        return next((part.head for part in record.parts if part.origin == self._origin), None)

    def holds(self, union: Digest) -> Laid:
        """The tree holds this recorded union from now on."""
        self.now = self.of(union)
        self._save()
        self.seen(self.now)
        return self.now

    def holds_nothing(self) -> Laid:
        self.now = self.nothing()
        return self.now

    def lost(self) -> None:
        """A switch was begun and has not ended: only its journal says what the tree holds."""
        if self.now is not None and self.now.record is not None:
            self.saved = self.now.record
        self.now = None

    def held_again(self, laid: Laid) -> None:
        """A switch was undone: the tree holds what it held before."""
        self.now = laid

    def with_own(self, head: HeadRef | None, definition: Definition) -> Laid:
        """What the tree holds, with the own line at ``head``: losers of other homes have the names that they had. Not
        recorded where that is what the tree holds anyhow."""
        laid = self.required()
        if head is None or laid.part_of(self._origin) == head:
            return laid
        parts = self.parts_with_own(laid.parts, head)
        kept = laid.kept
        while True:
            moved = self._united(parts, definition.digest, laid, laid.withheld, kept)
            known, kept = kept, kept_names(laid.united, moved.united, self._origin, kept)
            if kept == known:
                return moved

    def parts_with_own(self, parts: Sequence[UnionPart], head: HeadRef) -> tuple[UnionPart, ...]:
        """These parts, with the own line at ``head``."""
        of = {part.origin: part for part in parts} | {self._origin: UnionPart(self._origin, head)}
        return tuple(of[name] for name in sorted(of))

    def own_moved(self, head: HeadRef, definition: Definition) -> Laid | None:
        """The own line has this head now, and the tree held its contents before. None where that was known."""
        laid = self.required()
        moved = self.with_own(head, definition)
        if moved is laid or moved.record is None:
            return None
        self._store.put_blob(definition.digest, definition.encoded())
        self.hold_anew(moved)
        return moved

    def assume_own(self, held: UnionRecord, found: Callable[[], Iterable[bytes]]) -> None:
        """The tree holds this union, but no node has the manifest of its own line's part any more: that part is empty
        from now on, and the losers of other homes are known again among the paths that are ``found`` in the tree. So
        what is left is this node's own, and held until an operator says which is right. ``UnavailableError`` while
        pages of another line are missing."""
        self._require_pages(tuple(part for part in held.parts if part.origin != self._origin))
        self.is_own_doubtful = True
        parts = with_empty_own(held.parts, self._origin, self.nothing().united.root)
        lines = self._united(parts, held.definition, None, held.withheld, held.kept).lines
        kept = (*held.kept, *found_names(lines, found()))
        assumed = self._united(parts, held.definition, None, held.withheld, kept)
        self.hold_anew(assumed)

    def lost_parts(self, record: UnionRecord) -> tuple[NodeName, ...]:
        """The homes whose manifests in this union are not here."""
        return tuple(part.origin for part in record.parts if missing(part.head.root, self._store.get_page))

    def trial(
        self, parts: Sequence[UnionPart], held: UnionRecord, definition: Definition, kept: Sequence[KeptName]
    ) -> Laid:
        """The union ``held`` with other ``parts`` and ``kept`` names, recorded for looks alone."""
        self._store.put_blob(definition.digest, definition.encoded())
        made = self._united(parts, definition.digest, None, held.withheld, kept)
        self._records |= {made.record.id: made.record} if made.record is not None else {}
        return made

    def hold_anew(self, laid: Laid) -> None:
        """The tree holds another union, by no switch. What it holds has not changed where its record cannot be written;
        the tree's record is made of the known ones."""
        record = laid.record
        assert record is not None
        self._records[record.id] = record
        self._made[record.id] = laid
        self.note_held(record.ref())
        self.now = laid
        self._keep(record, laid)
        self.seen(laid)

    def required(self) -> Laid:
        """``UnavailableError`` ``union_unknown`` while it is not certain what the tree holds."""
        if self.now is None:
            raise UnavailableError(
                "it is not certain which union the tree holds: nothing is published before that",
                hint="it goes on by itself once the interrupted switch is ended",
                code="union_unknown",
            )
        return self.now

    def shown(self, origin: NodeName, path: bytes) -> bytes:
        """Where the tree has a path of this line. For any thread."""
        laid = self.now
        return path if laid is None else laid.ownership.shown(origin, path)
