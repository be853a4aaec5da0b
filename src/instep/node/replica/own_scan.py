"""A look at a tree of many homes from its own line's side: its own paths there, and those of others.

The scan compares the tree with the union that was laid, and the difference is divided: only paths of the own line and
new ones become its next manifest. Everything runs in the fileset's worker thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from instep.core.guards.held import HeldPaths
from instep.core.publish import vocabulary as v
from instep.core.union.divide import Divided, births, divide, renames
from instep.errors import ContentionError
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import diff
from instep.model.manifest.walk import totals
from instep.node.replica.laid import Laid, Unions
from instep.node.runtime.driver import wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.scanning.scan_tally import PATHS_KEPT_MAX, PageKeeper
from instep.node.trees.scanning.writer_scan import WriterScanned, losses_of
from instep.node.writing.writer_tree import WriterTree
from instep.tree.journal.journal import Journal
from instep.tree.scan.rules import Rules


@dataclass(frozen=True, slots=True)
class TreeDivided:
    """The last look: the union that it compared with, the division, the paths that were looked at (whole trees, and
    paths alone), whether all was, and the own line's manifest by it."""

    laid: Laid
    divided: Divided
    trees: tuple[bytes, ...]
    alone: tuple[bytes, ...]
    is_full: bool
    own_root: Digest


class OwnTree(WriterTree):
    """``looked`` gets each division, in the worker thread, where ``offered`` says which paths' edits are offered to
    their homes and not answered."""

    def __init__(
        self,
        tree: FilesetTree,
        post: Callable[[v.TreeChanged | v.ContentMissed], None],
        unions: Unions,
        looked: Callable[[TreeDivided], None],
        offered: Callable[[], Iterable[bytes]],
    ) -> None:
        self._offered = offered
        self._unions = unions
        self._me: NodeName = tree.line.origin
        self._looked = looked
        super().__init__(tree, post)

    def _shown(self, path: bytes) -> bytes:
        return self._unions.shown(self._me, path)

    def survey(
        self, effect: v.Scan, is_full: bool, trees: list[bytes], touched: list[bytes]
    ) -> WriterScanned:
        if Journal.load(self._tree.place()) is not None:
            raise ContentionError(
                f"the union of {self._tree.name} is being brought into the tree",
                hint="it is looked at right after that",
                code="tree_is_switched",
            )
        laid = self._unions.required()
        ref = laid.ref or HeadRef(1, 0, Digest(b""), laid.united.root)
        scanned = super().survey(msgspec.structs.replace(effect, base=ref, since=()), is_full, trees, touched)
        now = wall_ms()
        found, get = scanned.summary.root, self._tree.get_page
        divided = divide(laid.united, laid.lines, self._me, found, get, now, frozenset(self._offered()))
        own = self._own_part(effect, scanned, laid, divided, now)
        is_full = is_full or effect.is_whole or scanned.summary.is_full
        self._looked(TreeDivided(laid, divided, tuple(trees), tuple(touched), is_full, own.summary.root))
        return own

    def _own_part(
        self, effect: v.Scan, scanned: WriterScanned, laid: Laid, divided: Divided, now_ms: int
    ) -> WriterScanned:
        """The own line's next manifest, counted against its base. The tree may hold an older part of the own line than
        the base: the union that was laid decides which paths are its own, never a head that was not laid."""
        keeper = PageKeeper(self._tree.store)
        nothing = self._unions.nothing().united.root
        before = effect.base.root if effect.base is not None else nothing
        part = laid.part_of(self._me)
        was = part.root if part is not None else nothing
        changes = divided.own
        if not changes and was == before:
            changes = renames(laid.united, laid.lines, self._me, now_ms)
        root = edit(was, changes, keeper.get, keeper.put)
        if was != before:
            root = edit(root, births(was, before, root, keeper.get), keeper.get, keeper.put)
        keeper.flush()
        tally = _Tally()
        read, self.contents = self.contents, {}  # files of other homes do not go along with the head
        for change in diff(before, root, keeper.get):
            tally.saw(change.path, change.old, change.new)
            if change.new is not None and change.new.digest in read:
                self.contents[change.new.digest] = read[change.new.digest]
        whole = totals(root, keeper.get)
        held = self._own_held(scanned.summary.held, laid)
        rules = Rules(self.definition)
        summary = msgspec.structs.replace(
            scanned.summary,
            root=root,
            entries=whole.entries,
            size_bytes=whole.size_bytes,
            entries_before=totals(before, keeper.get).entries,
            added=tally.added,
            changed=tally.changed,
            removed=tally.removed,
            changed_bytes=tally.changed_bytes,
            problems=tuple(each for each in scanned.summary.problems if self._is_own(each.path, laid)),
            held=held,
            reported=self._own_held(scanned.summary.reported, laid),
            large=tuple(path for path in scanned.summary.large if self._is_own(path, laid)),
            definition_changed=self._definition_changed(effect.base),
            losses=losses_of(keeper.get, root, before, effect.since, rules, now_ms) if tally.removed else (),
        )
        pages = tuple(keeper.new.values()) if keeper.new is not None else None
        return replace(scanned, summary=summary, paths=tuple(tally.paths), pages=pages)

    def _is_own(self, path: bytes, laid: Laid) -> bool:
        sources = laid.ownership.of(path)
        return not sources or any(each.origin == self._me for each in sources)

    def _own_held(self, held: HeldPaths, laid: Laid) -> HeldPaths:
        """Without paths of other homes: what cannot be read of those keeps nothing of the own line."""
        own = tuple(each for each in held.listed if self._is_own(each.path, laid))
        return HeldPaths(own, held.total - len(held.listed) + len(own))


class _Tally:
    """What the own line gains and loses."""

    def __init__(self) -> None:
        self.added = self.changed = self.removed = self.changed_bytes = 0
        self.paths: list[bytes] = []

    def saw(self, path: bytes, old: Entry | None, new: Entry | None) -> None:
        if old is None:
            self.added += 1
        elif new is None:
            self.removed += 1
        else:
            self.changed += 1
        if new is not None and new.kind is Kind.FILE and (old is None or old.digest != new.digest):
            self.changed_bytes += new.size
        if len(self.paths) < PATHS_KEPT_MAX:
            self.paths.append(path)
