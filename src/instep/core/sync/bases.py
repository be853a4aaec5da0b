"""The bases that both homes keep, and the one from which a run goes. Implements "The base" of ``docs/spec/sync.md``."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from instep.core.sync.plan import same
from instep.core.sync.table import Side
from instep.model.ids import Digest
from instep.model.manifest.diff import diff
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import GetPage, PutPage
from instep.model.manifest.walk import Reader
from instep.model.paths import sort_key
from instep.model.sync import BASES_KEPT, SentChanges, SyncBase, SyncMark, WaitingTree


def common_base(bases: Sequence[SyncBase], marks: Sequence[SyncMark]) -> SyncBase | None:
    """The newest base that the carrying home has and the other one knows. Both are in order, the newest last."""
    known = frozenset(marks)
    return next((base for base in reversed(bases) if base.mark in known), None)


def with_base(bases: Sequence[SyncBase], new: SyncBase) -> tuple[SyncBase, ...]:
    """What a home keeps after a run. Bases of that number or above are of runs that did not end at both homes."""
    return (*(each for each in bases if each.run < new.run), new)[-BASES_KEPT:]


def with_mark(marks: Sequence[SyncMark], new: SyncMark) -> tuple[SyncMark, ...]:
    return (*(each for each in marks if each.run < new.run), new)[-BASES_KEPT:]


def waiting_of(
    sent: SentChanges, made: Mapping[Side, Collection[bytes]], get: GetPage, put: PutPage
) -> tuple[WaitingTree, ...]:
    """The changes of a run that ended without its base, as far as the homes say that they made them. A change that both
    homes get counts where both made it."""
    reader = Reader(get)
    seen = {Side.LEFT: sent.left.root, Side.RIGHT: sent.right.root}
    by_side: dict[Side, list[tuple[bytes, Entry | None]]] = {side: [] for side in Side}
    for change in diff(sent.settled, sent.wanted, get):
        due = [side for side in Side if not same(reader.lookup(seen[side], change.path), change.new)]
        if all(change.path in made[side] for side in due):
            for side in due:
                by_side[side].append((change.path, change.new))
    return tuple(
        WaitingTree(side.value, edit(sent.settled, changes, get, put), seen[side])
        for side, changes in by_side.items()
        if changes
    )


def published_since(
    root: Digest, waiting: Sequence[WaitingTree], heads: Mapping[Side, Digest], get: GetPage
) -> tuple[tuple[bytes, Entry | None], ...]:
    """What both sides have had since the base ``root``: changes that a home made and that waited to be published, where
    its head is not as before them. Where it is, a person took the change back, and it is to be made again."""
    found: dict[bytes, Entry | None] = {}
    taken_back: set[bytes] = set()
    reader = Reader(get)
    for each in waiting:
        for change in diff(root, each.root, get):
            found[change.path] = change.new
            now, before = (reader.lookup(tree, change.path) for tree in (heads[Side(each.side)], each.seen))
            if same(now, before):
                taken_back.add(change.path)
    return tuple((path, found[path]) for path in sorted(found, key=sort_key) if path not in taken_back)
