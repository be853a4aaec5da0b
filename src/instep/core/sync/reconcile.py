"""Three-way reconciliation of two trees, path by path, by ``docs/spec/sync.md``: what a sync run changes on
the left, on the right, in the base. The base is per path: what both sides had of it after the last run that treated it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import NamedTuple, assert_never

import msgspec

from instep.core.sync.collision_names import component_digest, copy_name, name_before
from instep.core.sync.plan import LeftOut, Listed, SyncPlan, SyncStep, same
from instep.core.sync.table import KindRules, Listing, RulesOf, Side, SideChoice, choose
from instep.model.ids import Digest
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.pages import GetPage
from instep.model.manifest.walk import Reader
from instep.model.paths import is_below, parent_of, sort_key


class _Triple(NamedTuple):
    """One path that differs from the base on a side."""

    path: bytes
    base: Entry | None
    left: Entry | None
    right: Entry | None


Merges = Mapping[bytes, Entry | str]
"""Of paths that both sides changed: the entry of the merged file, or why there is none."""
IgnoredBy = Callable[[bytes, bool], Side | None]
"""A side whose home ignores a path, which is a directory or is none; None where no home does."""


def reconcile(
    base: Digest,
    left: Digest,
    right: Digest,
    rules_of: RulesOf,
    get: GetPage,
    merges: Merges = MappingProxyType({}),
    ignored_by: IgnoredBy = lambda path, is_dir: None,
) -> SyncPlan:
    """What a run from ``base`` with these two trees does. The roots' pages come through ``get``, unchanged ones are not
    read. Holds all that differs in memory. ``merges`` are looked up where a path would be a collision."""
    triples = list(_triples(base, left, right, get))
    return _Reconciling(rules_of, Reader(get), left, right, merges).run(triples, ignored_by)


def _triples(base: Digest, left: Digest, right: Digest, get: GetPage) -> Iterator[_Triple]:
    """The paths where a side differs from the base, in order."""
    ours, theirs = diff(base, left, get), diff(base, right, get)
    a, b = next(ours, None), next(theirs, None)
    while a is not None or b is not None:
        if b is None or (a is not None and sort_key(a.path) < sort_key(b.path)):
            assert a is not None
            found, a = _Triple(a.path, a.old, a.new, a.old), next(ours, None)
        elif a is None or sort_key(b.path) < sort_key(a.path):
            found, b = _Triple(b.path, b.old, b.old, b.new), next(theirs, None)
        else:
            found, a, b = _Triple(a.path, a.old, a.new, b.new), next(ours, None), next(theirs, None)
        if not (same(found.base, found.left) and same(found.base, found.right)):
            yield found


class _Reconciling:
    """One run of the table over all that differs."""

    def __init__(
        self, rules_of: RulesOf, reader: Reader, left: Digest, right: Digest, merges: Merges
    ) -> None:
        self._rules_of: RulesOf = lambda path: rules_of(
            name_before(path)
        )  # a copy goes the way of its original
        self._merges = merges
        self._reader = reader
        self._roots = (left, right)
        self._steps: dict[bytes, SyncStep] = {}
        self._copies: dict[bytes, Entry] = {}
        self._listed: list[Listed] = []
        self._left_out: list[LeftOut] = []

    def run(self, triples: Sequence[_Triple], ignored_by: IgnoredBy) -> SyncPlan:
        """A path that one home ignores is not removed there: nothing is decided about it."""
        seen_by_both: list[_Triple] = []
        for triple in triples:
            by = _left_out_by(triple, ignored_by)
            if by is None:
                seen_by_both.append(triple)
            else:
                self._keeps(triple)
                self._left_out.append(LeftOut(triple.path, by))
        self._walk(seen_by_both)
        for path, entry in self._copies.items():
            seen = self._steps.get(path)
            left, right = (self._reader.lookup(root, path) for root in self._roots)
            base = seen.base if seen is not None else None
            self._steps[path] = SyncStep(path, left, right, entry, entry, base, entry)
        steps = sorted(self._steps.values(), key=lambda step: sort_key(step.path))
        closed = [
            step for step in _closed(steps) if step.changes_left or step.changes_right or step.changes_base
        ]
        listed = tuple(_with_renames(self._listed, seen_by_both))
        return SyncPlan(tuple(closed), listed, left_out=tuple(self._left_out))

    def _walk(self, triples: Sequence[_Triple]) -> None:
        """Paths by themselves, and components as wholes."""
        at = 0
        while at < len(triples):
            top = triples[at]
            end = at + 1
            if _is_component(top):
                while end < len(triples) and is_below(triples[end].path, top.path):
                    end += 1
                self._component(triples[at:end])
            else:
                self._path(top)
            at = end

    # Single paths ----------------------------------------------------------------------------------------------

    def _path(self, triple: _Triple) -> None:
        rules = self._rules_of(triple.path)
        chosen = _chosen(triple, rules)
        if chosen is not None:
            self._goes([triple], chosen)
            if chosen.why is not None:
                self._listed.append(Listed(triple.path, chosen.why, chosen.loser))
            return
        assert triple.left is not None
        assert triple.right is not None
        outcome = self._merges.get(triple.path, "")
        if not isinstance(outcome, str):
            self._step(triple, outcome, is_merged=True)
            return
        winner, loser = _by_birth(triple.left, triple.right)
        side = Side.LEFT if loser is triple.left else Side.RIGHT
        self._step(triple, winner)
        if loser.kind is Kind.DIR or (loser.kind is winner.kind and loser.digest == winner.digest):
            return  # only rights, times or the like differ: nothing of it would be lost
        copy = self._free_name(triple.path, loser.digest, {b"": loser})
        self._copies[copy] = _moved(loser, copy)
        self._listed.append(Listed(triple.path, Listing.COLLISION, side, copy, reason=outcome))

    # Components ------------------------------------------------------------------------------------------------

    def _component(self, triples: Sequence[_Triple]) -> None:
        """A path whose kind differs, or a directory that one side lacks, with all that differs below it."""
        top = triples[0]
        apart = [triple for triple in triples if not same(triple.left, triple.right)] or triples
        rules = {self._rules_of(triple.path) for triple in apart}
        if _has_other_kind(top):
            if len(rules) > 1 or any(is_below(each.path, top.path) for each in self._left_out):
                self._listed.append(Listed(top.path, Listing.MIXED_KINDS))
                for triple in triples:
                    self._keeps(triple)
                return
        elif len(rules) > 1 or not next(iter(rules)).makes_alike:
            self._path(top)
            self._walk(triples[1:])
            return
        chosen = _chosen_of_component(apart, next(iter(rules)))
        if chosen is not None:
            self._goes(triples, chosen)
            if chosen.why is not None:
                self._listed.append(Listed(top.path, chosen.why, chosen.loser))
            return
        self._collide(triples)

    def _collide(self, triples: Sequence[_Triple]) -> None:
        """A file here, a directory there: the older keeps the name, all of the other moves as one."""
        top = triples[0].path
        left = {t.path: t.left for t in triples if t.left is not None}
        right = {t.path: t.right for t in triples if t.right is not None}
        digests = component_digest(top, left), component_digest(top, right)
        is_left_older = (_born(left), digests[0]) <= (_born(right), digests[1])
        winners, losers, digest = (left, right, digests[1]) if is_left_older else (right, left, digests[0])
        side = Side.RIGHT if is_left_older else Side.LEFT
        below = {path[len(top) :]: entry for path, entry in losers.items()}
        copy = self._free_name(top, digest, below)
        for triple in triples:
            self._step(triple, winners.get(triple.path))
        for rest, entry in below.items():
            self._copies[copy + rest] = _moved(entry, copy + rest)
        self._listed.append(Listed(top, Listing.COLLISION, side, copy))

    # Steps -----------------------------------------------------------------------------------------------------

    def _goes(self, triples: Sequence[_Triple], chosen: SideChoice) -> None:
        for triple in triples:
            match chosen.winner:
                case Side.LEFT:
                    self._step(triple, triple.left)
                case Side.RIGHT:
                    self._step(triple, triple.right)
                case None:
                    self._keeps(triple)
                case _:
                    assert_never(chosen.winner)

    def _step(self, triple: _Triple, wanted: Entry | None, *, is_merged: bool = False) -> None:
        self._steps[triple.path] = SyncStep(
            triple.path,
            triple.left,
            triple.right,
            triple.left if same(triple.left, wanted) else wanted,
            triple.right if same(triple.right, wanted) else wanted,
            triple.base,
            wanted,
            is_merged,
        )

    def _keeps(self, triple: _Triple) -> None:
        left, right, base = triple.left, triple.right, triple.base
        self._steps[triple.path] = SyncStep(triple.path, left, right, left, right, base, base)

    def _free_name(self, path: bytes, digest: Digest, below: dict[bytes, Entry]) -> bytes:
        """The first name after ``digest`` that both sides lack or that holds just this already."""
        turn = 0
        while True:
            name = copy_name(path, digest, turn)
            if all(self._may_hold(name + rest, entry) for rest, entry in below.items()):
                return name
            turn += 1

    def _may_hold(self, path: bytes, entry: Entry) -> bool:
        wanted = _moved(entry, path)
        if path in self._copies and not same(self._copies[path], wanted):
            return False
        return all(
            found is None or _same_contents(found, wanted)
            for found in (self._reader.lookup(root, path) for root in self._roots)
        )


def _chosen(triple: _Triple, rules: KindRules) -> SideChoice | None:
    """The table for one path; nothing where both sides hold different changes of it and both may keep them."""
    left, right = triple.left, triple.right
    return choose(
        rules,
        are_equal=same(left, right),
        is_left_changed=not same(triple.base, left),
        is_right_changed=not same(triple.base, right),
        is_on_left=left is not None,
        is_on_right=right is not None,
    )


def _chosen_of_component(triples: Sequence[_Triple], rules: KindRules) -> SideChoice | None:
    """The table for a component, whose side is there when it has its topmost path."""
    top = triples[0]
    return choose(
        rules,
        are_equal=all(same(t.left, t.right) for t in triples),
        is_left_changed=any(not same(t.base, t.left) for t in triples),
        is_right_changed=any(not same(t.base, t.right) for t in triples),
        is_on_left=top.left is not None,
        is_on_right=top.right is not None,
    )


def _left_out_by(triple: _Triple, ignored_by: IgnoredBy) -> Side | None:
    """The side that ignores a path which the sides have not alike."""
    if same(triple.left, triple.right):
        return None
    present = [entry for entry in (triple.left, triple.right) if entry is not None]
    return next(
        (by for entry in present if (by := ignored_by(triple.path, _is_dir(entry))) is not None), None
    )


def _is_component(triple: _Triple) -> bool:
    """Whether the path and all below it go one way: a directory against another kind, or one that a side lacks."""
    present = [entry for entry in (triple.base, triple.left, triple.right) if entry is not None]
    if not any(map(_is_dir, present)) or (_is_dir(triple.left) and _is_dir(triple.right)):
        return False
    is_one_missing = (triple.left is None) != (triple.right is None)
    return not all(map(_is_dir, present)) or (triple.base is not None and is_one_missing)


def _has_other_kind(triple: _Triple) -> bool:
    """Whether a directory is on one side, and another kind on the other."""
    return None not in (triple.left, triple.right) and _is_dir(triple.left) != _is_dir(triple.right)


def _is_dir(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.DIR


def _by_birth(left: Entry, right: Entry) -> tuple[Entry, Entry]:
    """The winner and the loser, whichever side they are on."""
    return (left, right) if _order(left) <= _order(right) else (right, left)


def _order(entry: Entry) -> tuple[int, Digest, int, int]:
    return entry.born_ms, entry.digest, entry.mode, entry.mtime_ns


def _born(component: dict[bytes, Entry]) -> int:
    """Of a component, its oldest file or link; of empty directories, the oldest directory."""
    births = [e.born_ms for e in component.values() if e.kind is not Kind.DIR]
    return min(births or [e.born_ms for e in component.values()])


def _moved(entry: Entry, path: bytes) -> Entry:
    return msgspec.structs.replace(entry, path=path)


def _same_contents(a: Entry, b: Entry) -> bool:
    return a.kind is b.kind and a.digest == b.digest


def _closed(steps: Sequence[SyncStep]) -> list[SyncStep]:
    """The steps with each directory kept, or made, where something below it stays: paths of one directory may go
    different ways."""
    needed: tuple[set[bytes], set[bytes]] = (set(), set())
    closed = []
    for step in reversed(steps):
        wanted = [step.to_left, step.to_right]
        for at, (seen, others) in enumerate(((step.left, step.right), (step.right, step.left))):
            if wanted[at] is None and step.path in needed[at]:
                wanted[at] = next(entry for entry in (seen, others, step.base) if _is_dir(entry))
            if wanted[at] is not None:
                needed[at].add(parent_of(step.path))
        left, right = wanted
        if (left, right) != (step.to_left, step.to_right):
            after = left if same(left, right) else step.base
            step = replace(step, to_left=left, to_right=right, base_after=after)
        closed.append(step)
    closed.reverse()
    return closed


def _with_renames(listed: Sequence[Listed], triples: Sequence[_Triple]) -> Iterator[Listed]:
    """What came back although a side removed it was often renamed there: name the new path, where there is just one."""
    wanted = {each.path for each in listed if each.why is Listing.CHANGE_OVER_DELETION}
    bases = {
        t.path: t.base.digest
        for t in triples
        if t.path in wanted and t.base is not None and not _is_dir(t.base)
    }
    added: dict[tuple[Side, Digest], list[bytes]] = {}
    for triple in triples if bases else ():
        for side, entry in ((Side.LEFT, triple.left), (Side.RIGHT, triple.right)):
            if triple.base is None and entry is not None and not _is_dir(entry):
                added.setdefault((side, entry.digest), []).append(triple.path)
    for each in listed:
        found = added.get((each.loser, bases[each.path]), []) if each.loser and each.path in bases else []
        yield replace(each, renamed_to=found[0]) if len(found) == 1 else each
