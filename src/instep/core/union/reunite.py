"""The union of lines, made from the union before it and the lines that changed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

from instep.core.union.collide import MARK
from instep.core.union.lines import KnownLines, UnionLine, end_of, is_contested
from instep.core.union.merge import Merge, entries_of, named, names_tried, order_of
from instep.core.union.ownership import from_top
from instep.core.union.unite import United, edited_in_order, unite
from instep.model.ids import Digest
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import GetPage, PutPage
from instep.model.manifest.walk import Reader, iterate, totals
from instep.model.paths import is_below, parent_of, sort_key
from instep.model.replication.union import Collision

ANEW_MIN, ANEW_SHARE = 1_000, 8
"""``reunite`` begins anew when more than ``ANEW_MIN`` paths changed and more than one entry in ``ANEW_SHARE``: by then
that is quicker, and it streams where changes are held."""

_PLAIN, _CONTESTED, _TOO_LARGE = "plain", "contested", "too large"


def reunite(before: United, old: KnownLines, new: KnownLines, get: GetPage, put: PutPage) -> United:
    """``unite(new)``, where ``before`` is ``unite(old)``: reads what differs, and the components around it."""
    touched: list[bytes] = []
    most = max(ANEW_MIN, totals(before.root, get).entries // ANEW_SHARE)
    for path in _changed_paths(old, new):
        touched.append(path)
        if len(touched) > most:
            return unite(new, get, put)
    return _Reunion(before, old, new, get).made(touched, put) if touched else before


def _changed_paths(old: KnownLines, new: KnownLines) -> Iterator[bytes]:
    """The paths that differ in some line; of a line that came or went, all."""
    for origin in sorted(old.by_origin.keys() | new.by_origin.keys()):
        was, now = old.by_origin.get(origin), new.by_origin.get(origin)
        if was is not None and now is not None:
            yield from (change.path for change in diff(was.root, now.root, _of_both(was, now)))
        elif (line := was or now) is not None:
            yield from (entry.path for entry in iterate(line.root, line.get))


def _of_both(was: UnionLine, now: UnionLine) -> GetPage:
    def get(digest: Digest) -> bytes:
        return was.made.get(digest) or now.get(digest)

    return get


class _Reunion:
    """The work is in regions: single paths, and **whole** ones, a path with everything below it where a component is
    contested or was. Outside of them both unions are the same."""

    def __init__(self, before: United, old: KnownLines, new: KnownLines, get: GetPage) -> None:
        self._before = before
        self._old = old
        self._new = new
        self._get = get
        self._keys = [sort_key(each.component) for each in before.collisions]
        self._states: dict[bytes, tuple[str, str]] = {}

    def made(self, changed: Iterable[bytes], put: PutPage) -> United:
        touched = set(changed)
        touched |= self._renamed_by(touched)
        while True:
            single, whole = self._regions(touched)
            gone = self._collisions_in(single, whole)
            merge = Merge(self._new)
            shown = list(self._shown(merge, single, whole))
            collisions = named(merge.losers, self._new)
            disturbed = self._disturbed(gone, collisions)
            if not disturbed:
                break
            touched |= disturbed
        changes: dict[bytes, Entry | None] = dict.fromkeys(single)
        for path in [*whole, *(each.shown for each in gone)]:
            changes.update((entry.path, None) for entry in self._shown_before(path))
        changes.update((entry.path, entry) for entry in shown)
        for each in collisions:
            changes.update((entry.path, entry) for entry in entries_of(each, self._new))
        root = edited_in_order(self._before.root, changes, self._get, put)
        left = [each for each in self._before.collisions if each not in gone]
        return United(root, tuple(sorted([*left, *collisions], key=order_of)))

    def _regions(self, touched: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """The single paths and the whole regions around these paths, each in order."""
        single: list[bytes] = []
        whole: list[bytes] = []
        for path in sorted(touched, key=sort_key):
            if whole and (path == whole[-1] or is_below(path, whole[-1])):
                continue
            region = next((each for each in from_top(path) if self._is_whole(each)), None)
            if region is None:
                single.append(path)
            else:
                whole.append(region)
        return single, whole

    def _is_whole(self, path: bytes) -> bool:
        """Whether a change at or below ``path`` can change anything at and below it."""
        states = self._states.get(path)
        if states is None:
            states = self._states[path] = _state_of(path, self._old), _state_of(path, self._new)
        return states not in ((_PLAIN, _PLAIN), (_TOO_LARGE, _TOO_LARGE))

    def _collisions_in(self, single: Iterable[bytes], whole: Iterable[bytes]) -> set[Collision]:
        found: set[Collision] = set()
        for path in whole:
            found.update(self._between(sort_key(path), bisect_left(self._keys, end_of(path))))
        for path in single:
            found.update(self._between(sort_key(path), bisect_right(self._keys, sort_key(path))))
        return found

    def _between(self, key: bytes, end: int) -> Sequence[Collision]:
        return self._before.collisions[bisect_left(self._keys, key) : end]

    def _shown(self, merge: Merge, single: Iterable[bytes], whole: Iterable[bytes]) -> Iterator[Entry]:
        for path in single:
            found = self._new.at(path)
            if found:
                yield from merge.at(path, found)
        for path in whole:
            yield from merge.entries(sort_key(path), end_of(path))

    def _shown_before(self, path: bytes) -> Iterator[Entry]:
        entry = Reader(self._get).lookup(self._before.root, path)
        if entry is not None:
            yield entry
            for each in iterate(self._before.root, self._get, after=path):
                if not is_below(each.path, path):
                    return
                yield each

    def _renamed_by(self, touched: Iterable[bytes]) -> set[bytes]:
        """The losers, by their components, whose name depends on one of these paths."""
        names = {each for path in touched if MARK in path for each in from_top(path) if MARK in each}
        if not names:
            return set()
        return {each.component for each in self._before.collisions if not names.isdisjoint(names_tried(each))}

    def _disturbed(self, gone: set[Collision], made: Sequence[Collision]) -> set[bytes]:
        """The components of losers that keep their names, but tried one that another loser gave up or took."""
        names = {name for each in (*gone, *made) for name in names_tried(each)}
        parents = {parent_of(each.component) for each in (*gone, *made)}
        return {
            each.component
            for each in self._before.collisions
            if each not in gone
            and parent_of(each.component) in parents
            and not names.isdisjoint(names_tried(each))
        }


def _state_of(path: bytes, lines: KnownLines) -> str:
    found = lines.at(path)
    if not is_contested(found):
        return _PLAIN
    return _TOO_LARGE if Merge(lines).is_too_large(path, found) else _CONTESTED
