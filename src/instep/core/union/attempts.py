"""Which heads to bring into the tree next: all that are newer at once, and one by one after an attempt was refused.

A union whose hook, probe or gate says no has one head at fault, or several, and the other lines are not to wait for
them: their heads are tried alone, in the order of origins, and the ones that fail alone are refused. Implements the
section "A refused union" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from instep.model.ids import HeadRef, NodeName
from instep.model.replication.union import UnionPart


class UnionAttempts(msgspec.Struct, frozen=True, array_like=True):
    """What the tree holds, what was refused, and how the next attempt is made. Facts: they are saved with the union.

    ``refused`` has at most one head of each line, the newest that failed alone: it is not tried again until a newer one
    comes, or an operator asks. ``is_single``: an attempt with several heads was refused, so each is tried alone."""

    live: tuple[UnionPart, ...] = ()
    refused: tuple[UnionPart, ...] = ()
    is_single: bool = False

    def wanted(self, newest: Iterable[UnionPart]) -> tuple[UnionPart, ...]:
        """The heads to try next, in the order of origins: those above the live ones that were not refused. Nothing when
        the tree holds all that it may."""
        live = {part.origin: part.head for part in self.live}
        refused = {part.origin: part.head for part in self.refused}
        open_parts = sorted(
            (part for part in newest if _is_open(part.head, live.get(part.origin), refused.get(part.origin))),
            key=lambda part: part.origin,
        )
        return tuple(open_parts[:1] if self.is_single else open_parts)

    def parts_with(self, tried: Sequence[UnionPart]) -> tuple[UnionPart, ...]:
        """The parts of the union that these heads and the live ones make, in the order of origins."""
        parts = {part.origin: part for part in (*self.live, *tried)}
        return tuple(parts[origin] for origin in sorted(parts))

    def went_live(self, tried: Sequence[UnionPart], newest: Iterable[UnionPart]) -> UnionAttempts:
        """The tree holds these heads. After the last one that was tried alone, heads are taken together again."""
        live = self.parts_with(tried)
        origins = {part.origin for part in tried}
        refused = tuple(part for part in self.refused if part.origin not in origins)
        after = UnionAttempts(live, refused, self.is_single)
        return after if after.wanted(newest) else UnionAttempts(live, refused)

    def failed(self, tried: Sequence[UnionPart], newest: Iterable[UnionPart]) -> UnionAttempts:
        """The attempt with these heads was refused. A head that was alone is at fault."""
        if len(tried) > 1:
            return UnionAttempts(self.live, self.refused, is_single=True)
        refused = {part.origin: part for part in (*self.refused, *tried)}
        in_order = tuple(refused[origin] for origin in sorted(refused))
        after = UnionAttempts(self.live, in_order, self.is_single)
        return after if after.wanted(newest) else UnionAttempts(self.live, in_order)

    def without(self, origins: Collection[NodeName]) -> UnionAttempts:
        """The same without the lines of these homes."""
        live = tuple(part for part in self.live if part.origin not in origins)
        refused = tuple(part for part in self.refused if part.origin not in origins)
        return UnionAttempts(live, refused, self.is_single)

    def retried(self) -> UnionAttempts:
        """An operator asks to try again: nothing is refused any more."""
        return UnionAttempts(self.live)


def _is_open(head: HeadRef, live: HeadRef | None, refused: HeadRef | None) -> bool:
    if live is not None and head.position <= live.position:
        return False
    return refused is None or head.position > refused.position
