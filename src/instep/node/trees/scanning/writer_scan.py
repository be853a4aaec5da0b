"""From a writer's tree to the root of its next manifest: scan, compare with the base, build or edit pages.

Everything here is synchronous and runs in the fileset's worker thread. Nothing is decided: guards judge the
summary, the machine commits or does not. Pages that a refused publish leaves behind are swept later.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import msgspec

from instep.core.guards.held import ScanProblem
from instep.core.guards.losses import Checkpoint, Lost, losses_since
from instep.core.publish.vocabulary import ScanSummary
from instep.model.definition import Definition, Preserve
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import build, edit, iterate, totals
from instep.model.manifest.pages import GetPage
from instep.model.manifest.walk import Reader
from instep.model.paths import is_below, parent_of, sort_key
from instep.node.trees.scanning.held_entries import Holding, opened_among, probed, with_whole_groups
from instep.node.trees.scanning.scan_tally import UNSETTLED_MAX, PageKeeper, ScanTally, paired, path_of
from instep.node.trees.scanning.stat_rows import Moved, RowBatch, covered_rows
from instep.store.port import NodeStore
from instep.tree.objects.fidelity import Local
from instep.tree.objects.rows import RowsInOrder
from instep.tree.root.marker import Marker, open_root
from instep.tree.root.place import Place
from instep.tree.scan.cover import cover
from instep.tree.scan.listing import Problem
from instep.tree.scan.rules import Rules
from instep.tree.scan.scan import Scanned, scan
from instep.tree.scan.settling import Settling, Sink
from instep.tree.scan.stamps import Stamps, quick_look

QUICK_MIN = 1_000
QUICK_SHARE = 8
"""Of more paths, and of a larger share of the tree than this, a scan of everything takes less time."""
EDITED_AT_ONCE = 10_000
"""Entries that a full look holds in memory."""


@dataclass(frozen=True, slots=True)
class WriterScanned:
    """``summary`` is for the machine; ``paths`` are the changed ones (at most ``PATHS_KEPT_MAX``), ``pages``
    the new pages when they fit a bundle, ``damaged`` the files whose bytes changed under the same stat, ``restless``
    the paths that the next look scans whatever their stat says. ``stamps`` are of a look at the whole tree."""

    summary: ScanSummary
    paths: tuple[bytes, ...]
    pages: tuple[bytes, ...] | None
    damaged: frozenset[bytes]
    restless: frozenset[bytes] = frozenset()
    stamps: Stamps | None = None


class WriterScan:
    def __init__(
        self,
        place: Place,
        fileset: FilesetName,
        definition: Definition,
        marker: Callable[[], Marker],
        sink: Sink,
        suspects: frozenset[bytes] = frozenset(),
        settling: Settling | None = None,
        since: Sequence[Checkpoint] = (),
        lets_go: frozenset[bytes] = frozenset(),
        accepted: frozenset[bytes] = frozenset(),
    ) -> None:
        """``suspects`` were found damaged before: they are read again, whatever their stat says. ``settling`` names
        the times that a file which is being written is left alone. Losses are counted from ``since`` too, but none of
        ``accepted`` paths. Held paths in ``lets_go`` keep no last entry."""
        self._since = since
        self._accepted = accepted
        self._lets_go = lets_go
        self._suspects = suspects
        self._settling = settling
        self._place = place
        self._fileset = fileset
        self._definition = definition
        self._marker = marker
        self._sink = sink
        self._rules = Rules(definition)
        self._local = Local(preserve=frozenset(definition.preserve), is_own=True)

    def everything(self, store: NodeStore, base: Digest | None, now_ms: int, *, deep: bool) -> WriterScanned:
        """Scan all of it and build the manifest anew; equal parts give equal pages."""
        keeper = PageKeeper(store)
        tally = ScanTally(holding=Holding(lets_go=self._lets_go))
        now_ns = now_ms * 1_000_000
        stamps = Stamps(now_ns)
        rows = RowsInOrder(store.stat_rows(self._fileset))
        found = scan(
            self._place,
            self._definition,
            rows,
            Moved(store, self._fileset) if rows.has_any else None,
            now_ns,
            marker=self._marker(),
            rules=self._rules,
            sink=self._sink,
            put_page=keeper.put,
            deep=deep,
            suspects=self._suspects,
            settling=self._settling,
            seen=stamps.saw,
        )
        kept = RowBatch(store, self._fileset)
        seen = tally.counts(found, kept)
        if base is None:
            root = build((entry for _, entry in _merged(iter(()), seen, tally, now_ms) if entry), keeper.put)
        else:
            merged = _merged(iterate(base, keeper.get), seen, tally, now_ms)
            root = _edited(base, merged, keeper)
        if tally.holding.has_any and self._local.keeps(Preserve.HARDLINKS):
            root = with_whole_groups(root, keeper.get, keeper.put)
        if root == base:
            tally.added = tally.changed = tally.removed = 0
        kept.flush()
        surveyed = self._surveyed(keeper, tally, root, base, now_ms, is_full=True)
        return replace(surveyed, stamps=stamps)

    def whole(
        self,
        store: NodeStore,
        base: Digest,
        known: Stamps,
        trees: Sequence[bytes],
        paths: Sequence[bytes],
        now_ms: int,
        again: Sequence[ScanProblem] = (),
        *,
        reads_open: bool = False,
    ) -> WriterScanned:
        """Look at all of the tree by stat, and scan the named paths and those whose stamps are not the ``known`` ones,
        which belong to ``base``."""
        keeper = PageKeeper(store)
        with open_root(self._place.root) as root:
            look = quick_look(root, self._rules, known, now_ms * 1_000_000)
        found = look.paths(known, partial(_children, base, keeper.get))
        if len(found) > max(QUICK_MIN, totals(base, keeper.get).entries // QUICK_SHARE):
            return self.everything(store, base, now_ms, deep=False)
        surveyed = self.some(store, base, trees, [*paths, *found], now_ms, again, reads_open=reads_open)
        return replace(surveyed, stamps=look.stamps) if surveyed.stamps is None else surveyed

    def some(
        self,
        store: NodeStore,
        base: Digest,
        trees: Sequence[bytes],
        paths: Sequence[bytes],
        now_ms: int,
        again: Sequence[ScanProblem] = (),
        *,
        reads_open: bool = False,
    ) -> WriterScanned:
        """Look at the named paths only and edit the base's pages. ``again`` are paths that the scans before could not
        carry: paths below one are looked at once it can be carried. Files among them that are open for writing are
        read where ``paths`` names them, or ``reads_open`` says so."""
        keeper = PageKeeper(store)
        freed, stuck = probed(self._place, self._definition, self._rules, self._local, again, self._lets_go)
        covered = cover([*trees, *freed], [*paths, *stuck], self._local)
        if covered.is_everything:
            return self.everything(store, base, now_ms, deep=False)
        tally = ScanTally(holding=Holding(again, self._lets_go))
        opened = frozenset() if reads_open else frozenset(opened_among(again)).difference(paths)
        settling = self._settling
        found = scan(
            self._place,
            self._definition,
            RowsInOrder(covered_rows(store, self._fileset, covered)),
            Moved(store, self._fileset),
            now_ms * 1_000_000,
            covered=covered,
            marker=self._marker(),
            rules=self._rules,
            sink=self._sink,
            put_page=keeper.put,
            suspects=self._suspects,
            settling=settling._replace(opened=opened) if settling is not None else None,
        )
        kept = RowBatch(store, self._fileset)
        seen = tally.counts(found, kept)
        changes = list(_changes(base, keeper.get, covered.trees, covered.entries, seen, tally, now_ms))
        root = edit(base, changes, keeper.get, keeper.put)
        kept.flush()
        return self._surveyed(keeper, tally, root, base, now_ms, is_full=False)

    def _surveyed(
        self,
        keeper: PageKeeper,
        tally: ScanTally,
        root: Digest,
        base: Digest | None,
        now_ms: int,
        *,
        is_full: bool,
    ) -> WriterScanned:
        keeper.flush()
        whole = totals(root, keeper.get)
        before = totals(base, keeper.get).entries if base is not None else 0
        if base is not None and not (tally.added or tally.changed or tally.removed):
            root = base
        summary = ScanSummary(
            root=root,
            entries=whole.entries,
            size_bytes=whole.size_bytes,
            entries_before=before,
            added=tally.added,
            changed=tally.changed,
            removed=tally.removed,
            changed_bytes=tally.changed_bytes,
            problems=tally.holding.refusing(),
            unsettled=tuple(tally.unsettled[:UNSETTLED_MAX]),
            held=tally.holding.held(),
            reported=tally.holding.reported(),
            is_full=is_full,
            losses=losses_of(keeper.get, root, base, self._since, self._rules, now_ms, self._accepted)
            if tally.removed
            else (),
            at_ms=now_ms,
            large=tuple(tally.large),
        )
        pages = tuple(keeper.new.values()) if keeper.new is not None else None
        damaged, restless = tally.holding.damaged(), frozenset(tally.restless)
        return WriterScanned(summary, tuple(tally.paths), pages, damaged, restless)


def _children(base: Digest, get: GetPage, directories: Collection[bytes]) -> dict[bytes, list[bytes]]:
    """The paths that a manifest has in each of these directories, in order."""
    found: dict[bytes, list[bytes]] = {each: [] for each in directories}
    for entry in iterate(base, get):
        within = found.get(parent_of(entry.path))
        if within is not None:
            within.append(entry.path)
    return found


def _merged(
    before: Iterator[Entry], found: Iterator[Scanned | Problem], tally: ScanTally, now_ms: int
) -> Iterator[tuple[bytes, Entry | None]]:
    """The paths whose entries become others than before, in order: the found ones, with ``born`` from before. What a
    problem keeps stays as it is."""
    for old, item in paired(before, found):
        if item is None:
            assert old is not None
            if not tally.holding.keeps(old):
                tally.saw(old.path, old, None)
                yield old.path, None
            continue
        entry = _next_entry(item, old, tally, now_ms)
        if isinstance(item, Problem):
            tally.holding.begin(item, old)
        if entry is not old:
            yield path_of(item), entry


def _edited(base: Digest, changes: Iterator[tuple[bytes, Entry | None]], keeper: PageKeeper) -> Digest:
    """The base with these changes, some at a time: pages that keep their entries are neither made nor hashed anew."""
    for batch in iter(lambda: tuple(islice(changes, EDITED_AT_ONCE)), ()):
        base = edit(base, batch, keeper.get, keeper.put)
    return base


def _next_entry(item: Scanned | Problem, same: Entry | None, tally: ScanTally, now_ms: int) -> Entry | None:
    """The entry of the path in the next manifest. A path that cannot be carried keeps its old entry, so that a
    problem never looks like a deletion."""
    if isinstance(item, Problem):
        if same is not None and item.path in tally.holding.lets_go:
            tally.saw(item.path, same, None)
            return None
        return same
    entry = item.entry
    if same is None:
        new = msgspec.structs.replace(entry, born_ms=now_ms)
        tally.saw(entry.path, None, new)
        return new
    if (
        same.digest == entry.digest
        and same.mode == entry.mode
        and same.mtime_ns == entry.mtime_ns
        and same.kind is entry.kind
        and same.size == entry.size
        and same.extra == entry.extra
    ):
        return same
    new = msgspec.structs.replace(entry, born_ms=same.born_ms)
    tally.saw(entry.path, same, new)
    return new


def _changes(
    base: Digest,
    get: Callable[[Digest], bytes],
    trees: Sequence[bytes],
    entries: Sequence[bytes],
    found: Iterator[Scanned | Problem],
    tally: ScanTally,
    now_ms: int,
) -> Iterator[tuple[bytes, Entry | None]]:
    """The differences between the base and the entries found at the covered paths, in order."""
    before = _before(base, get, trees, entries)
    after: dict[bytes, Entry | None] = {}
    holding = tally.holding
    for item in found:
        path = path_of(item)
        known = before.get(path)
        if isinstance(item, Scanned) or path not in after:
            after[path] = _next_entry(item, known, tally, now_ms)
        if isinstance(item, Problem):
            holding.begin(item, known)
            if known is not None and known.kind is Kind.DIR and not _in_trees(path, trees):
                holding.count_below(base, get, path)
    changed: dict[bytes, Entry | None] = {}
    for path, old in before.items():
        if path in after or holding.keeps(old):
            continue
        if old.kind is Kind.DIR and not _in_trees(path, trees):
            _clear(base, get, path, changed, tally)
        if path not in changed:
            changed[path] = None
            tally.saw(path, old, None)
    for path, new_entry in after.items():
        known = before.get(path)
        if new_entry is not None and new_entry != known:
            changed[path] = new_entry
            if known is not None and known.kind is Kind.DIR and new_entry.kind is not Kind.DIR:
                _clear(base, get, path, changed, tally)
        elif new_entry is None and known is not None:
            changed[path] = None
    yield from ((path, changed[path]) for path in sorted(changed, key=sort_key))


def _before(
    base: Digest, get: Callable[[Digest], bytes], trees: Sequence[bytes], entries: Sequence[bytes]
) -> dict[bytes, Entry]:
    """The base's entries at the covered paths."""
    reader = Reader(get)
    ordered = sorted((*entries, *trees), key=sort_key)  # neighbours share a page, which the reader keeps
    before = {e.path: e for path in ordered if (e := reader.lookup(base, path)) is not None}
    for tree in trees:
        for entry in iterate(base, get, after=tree):
            if not is_below(entry.path, tree):
                break
            before[entry.path] = entry
    return before


def _clear(
    base: Digest,
    get: Callable[[Digest], bytes],
    directory: bytes,
    changed: dict[bytes, Entry | None],
    tally: ScanTally,
) -> None:
    """A directory that went or became something else takes what lay below it along."""
    for below in iterate(base, get, after=directory):
        if not is_below(below.path, directory):
            break
        if changed.get(below.path, below) is not None:
            changed[below.path] = None
            tally.saw(below.path, below, None)


def _in_trees(path: bytes, trees: Sequence[bytes]) -> bool:
    return any(path == tree or is_below(path, tree) for tree in trees)


def losses_of(
    get: GetPage,
    root: Digest,
    base: Digest | None,
    since: Iterable[Checkpoint],
    rules: Rules,
    now_ms: int,
    accepted: frozenset[bytes] = frozenset(),
) -> tuple[Lost, ...]:
    """The loss against ``base``, then against each checkpoint whose pages are here; empty when nothing was lost."""
    if base is None:
        return ()
    return losses_since(base, root, get, since, now_ms, no_losses(rules, accepted))


def no_losses(rules: Rules, accepted: frozenset[bytes] = frozenset()) -> Callable[[Entry], bool] | None:
    """Says which entries are no loss when they go: those that the rules leave out, and ``accepted`` paths."""
    if not accepted and not rules.has_patterns:
        return None
    return lambda entry: entry.path in accepted or rules.ignored(entry.path, entry.kind is Kind.DIR)
