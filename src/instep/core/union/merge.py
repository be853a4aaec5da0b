"""The lines in one order, without the losers of collisions; and the losers under the names that they get."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

import msgspec

from instep.core.union.collide import Displaced, losers_of, names_of
from instep.core.union.lines import KnownLines, Placed, UnionLine, end_of, is_contested
from instep.model.ids import NodeName
from instep.model.limits import PATH_MAX
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.paths import is_below, sort_key
from instep.model.replication.union import Collision, plain_directory


def as_shown(entry: Entry, path: bytes) -> Entry:
    """The entry as the union has it at ``path``. Hard links are files of their own there: the first of their paths may
    be shown elsewhere."""
    if entry.kind is Kind.DIR:
        return entry if entry == plain_directory(path) else plain_directory(path)
    extra = entry.extra
    if extra is not None and extra.link_group is not None:
        extra = msgspec.structs.replace(extra, link_group=None)
        extra = None if extra == Extra() else extra
        return msgspec.structs.replace(entry, path=path, extra=extra)
    return entry if entry.path == path else msgspec.structs.replace(entry, path=path)


def moved(path: bytes, component: bytes, to: bytes) -> bytes:
    """``path``, which is ``component`` or lies below it, with ``to`` in its place."""
    return to + path[len(component) :]


class Merge:
    """One walk over the lines. ``losers`` is filled by it."""

    def __init__(self, lines: KnownLines) -> None:
        self._lines = lines
        self.losers: list[Displaced] = []

    def entries(self, start: bytes = b"", stop: bytes | None = None) -> Iterator[Entry]:
        """The entries of the union from one sort key to another, in order, all but the losers."""
        behind = b""
        for batch in self._lines.merged(start, stop):
            if len({key for key, _, _ in batch}) == len(batch) and batch[0][0] >= behind:
                for _, _, entry in batch:
                    plain = entry.kind is not Kind.DIR and entry.extra is None
                    yield entry if plain else as_shown(entry, entry.path)
                continue
            for same in _by_path(batch):
                if same[0][0] < behind:
                    continue
                path = same[0][2].path
                found = [(self._lines.all[number], entry) for _, number, entry in same]
                yield from self.at(path, found)
                if is_contested(found) and not self.is_too_large(path, found):
                    behind = end_of(path)

    def at(self, path: bytes, found: Sequence[tuple[UnionLine, Entry]]) -> Iterator[Entry]:
        """The union at a path that the lines have so: one entry, or the whole component that begins there."""
        if not is_contested(found):
            yield as_shown(found[0][1], path)
        elif self.is_too_large(path, found):
            winner = next(line.origin for line, entry in found if entry.kind is Kind.DIR)
            for line, entry in found:
                if entry.kind is not Kind.DIR:
                    self.losers.append(Displaced(path, line.origin, entry.born_ms, winner, 1))
            yield plain_directory(path)
        else:
            yield from self._component(path, found)

    def is_too_large(self, path: bytes, found: Sequence[tuple[UnionLine, Entry]]) -> bool:
        """Whether a contested component has too many entries to be decided by age."""
        has_directory = any(entry.kind is Kind.DIR for _, entry in found)
        return has_directory and self._lines.count_within(path) > self._lines.most

    def _component(self, top: bytes, found: Sequence[tuple[UnionLine, Entry]]) -> Iterator[Entry]:
        sides = [(line.origin, list(line.within(top))) for line, _ in found]
        losers = losers_of(top, sides)
        self.losers += losers
        kept: dict[bytes, Entry] = {}
        for origin, entries in sides:
            components = {each.component for each in losers if each.origin == origin}
            kept.update((entry.path, entry) for entry in _outside(entries, components))
        for path in sorted(kept, key=sort_key):
            yield as_shown(kept[path], path)


def _by_path(batch: Sequence[Placed]) -> Iterator[list[Placed]]:
    same: list[Placed] = []
    for placed in batch:
        if same and same[0][0] != placed[0]:
            yield same
            same = []
        same.append(placed)
    yield same


def _outside(entries: Iterable[Entry], components: Collection[bytes]) -> Iterator[Entry]:
    """The entries, in order, that are not at or below one of the components."""
    within: bytes | None = None
    for entry in entries:
        if within is not None and is_below(entry.path, within):
            continue
        within = entry.path if entry.path in components else None
        if within is None:
            yield entry


def order_of(each: Displaced | Collision) -> tuple[bytes, NodeName]:
    """The order in which losers get their names, and in which collisions are listed."""
    return sort_key(each.component), each.origin


def named(losers: Sequence[Displaced], lines: KnownLines) -> list[Collision]:
    """The losers with their names. A name is free when no line has anything there and no loser before has it."""
    taken: set[bytes] = set()
    collisions = []
    for each in sorted(losers, key=order_of):
        tries, (name, tag) = next(
            (tries, (name, tag))
            for tries, (name, tag) in enumerate(names_of(each.component, each.origin, each.born_ms))
            if name not in taken and not lines.at(name)
        )
        taken.add(name)
        too_long = sum(
            len(moved(entry.path, each.component, name)) > PATH_MAX
            for entry in lines.by_origin[each.origin].within(each.component)
        )
        collisions.append(
            Collision(each.component, each.origin, each.born_ms, name, tag, each.winner, each.entries, too_long, tries)
        )  # fmt: skip
    return collisions


def entries_of(collision: Collision, lines: KnownLines) -> Iterator[Entry]:
    """The entries of a loser as they are shown."""
    for entry in lines.by_origin[collision.origin].within(collision.component):
        path = moved(entry.path, collision.component, collision.shown)
        if len(path) <= PATH_MAX:
            yield as_shown(entry, path)


def names_tried(collision: Collision) -> list[bytes]:
    """All names that the loser depends on: those that were taken, and its own."""
    names = names_of(collision.component, collision.origin, collision.born_ms)
    return [next(names)[0] for _ in range(collision.tries + 1)]
