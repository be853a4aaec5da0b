"""The union of a simulated home: unites, stages, switches, puts back, and finds what the tree holds after a start."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

from instep.core.follow import vocabulary as f
from instep.core.follow.kept_paths import as_in
from instep.core.unite import vocabulary as u
from instep.model.ids import Digest, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import diff, iterate
from instep.model.replication.union import UnionPart, Withheld
from instep.testing.unions.disk import Step, UnionJournal, in_order, is_alike
from instep.testing.unions.home_base import TREE
from instep.testing.unions.laid import SimLaid, UnknownUnion
from instep.testing.unions.offer_side import OfferSide
from instep.testing.unions.process import trouble

AGAIN_MS = 500
SEARCH_MS = 15_000


class TreeSide(OfferSide):
    """``turn``: a switch is under way."""

    def began_tree(self) -> None:
        self.is_recovered = False
        self.in_the_way = False
        self.reverts = 0
        self.sought: frozenset[Digest] = frozenset()
        """Contents of the own line that the last stage did not find."""
        self.asked_in_vain = False
        """Whether a node said that it does not have the own part of the union that the tree holds."""

    def perform_tree(self, effect: Any) -> None:
        before = self.tree_facts
        match effect:
            case f.SaveFollow(facts):
                self.save(TREE, facts)
            case f.Recover(req):
                self.later(self.rng.uniform(1, self.options.job_ms + 1), lambda: self._recover(req))
            case u.Unite():
                self.later(self.rng.uniform(1, self.options.job_ms + 1), lambda: self._unite(effect))
            case f.StageContents():
                self.later(self.rng.uniform(1, self.options.job_ms + 1), lambda: self._stage(effect))
            case f.Switch():
                self.later(self.rng.uniform(0, 2), lambda: self._switch(effect))
            case f.RecordLive(req):
                self.save(TREE, effect.facts)
                self.disk.journal = self.disk.stage = None
                self.post(TREE, f.LiveRecorded(req))
            case f.CheckDrift(req):
                self.later(self.rng.uniform(1, self.options.job_ms + 1), lambda: self._check(effect))
            case f.Revert():
                self.later(self.rng.uniform(1, self.options.job_ms + 1), lambda: self._revert(effect))
            case f.FollowReport():
                self.union_stands()
            case f.AskHeads():
                pass
            case _:
                raise AssertionError(effect)
        if self.tree_facts.live != before.live:
            self._went_live()

    def _unite(self, effect: u.Unite) -> None:
        if self.chance(self.options.work_fails):
            self.post(TREE, u.UniteFailed(effect.req, trouble("disk_full", 8)))
            return
        record = self.unions.unite(effect.parts, effect.withheld)
        self.post(TREE, u.UnionMade(effect.req, record.ref()))

    def _went_live(self) -> None:
        """Own paths that a collision moved, and paths that waited, are looked at again."""
        self.ledger.lives(self.name, [part.origin for part in self.tree_facts.attempts.live])
        for origin in self.disk.state.origins:
            live = self.live_of(origin)
            if live is not None:
                self.ledger.keeps(f"tree of {self.name}", origin, live)
        self.parts_are_live()
        self.touch(everything=True)
        self.union_stands()

    # --- contents ---------------------------------------------------------------------------------------------

    def _stage(self, effect: f.StageContents) -> None:
        if self.unions.now is None or self.chance(self.options.work_fails):
            self.answer(TREE, effect.req, f.StageFailed(effect.req, trouble("disk_full", 8)))
            return
        union = self.unions.of(effect.head.id)
        before = self.unions.nothing().united.root if effect.base is None else effect.base.root
        wanted = [
            change.new
            for change in diff(
                self._without_kept(before, union.united.root), union.united.root, self.disk.state.get_page
            )
            if change.new is not None
            and change.new.kind is not Kind.DIR
            and not is_alike(change.old, change.new)
        ]
        absent: dict[NodeName, None] = {}
        entries: list[tuple[NodeName, Entry]] = []
        unseen: set[Digest] = set()
        for entry in wanted:
            origin = union.ownership.of(entry.path)[0].origin
            if origin == self.me:
                if not self._finds_own(entry, before):
                    unseen.add(entry.digest)
                continue
            if self._is_in_the_way(entry, before):
                self.in_the_way = True
                entries.append((origin, entry))
            elif self._gets(entry.digest, origin):
                continue
            elif self._senders(origin) or self._is_live(union, origin):
                entries.append((origin, entry))
            else:
                absent[origin] = None
        self.sought = frozenset(unseen)
        if unseen:
            none = u.ContentsMissing(effect.req, (), (), trouble("contents_missing"))
            self.flush(lambda: self.answer(TREE, effect.req, none))
            return
        if absent or entries:
            withheld = tuple(self._withheld(union, *each) for each in entries if each[0] not in absent)
            missing = u.ContentsMissing(effect.req, tuple(absent), withheld, trouble("contents_missing"))
            self.answer(TREE, effect.req, missing)
            return
        self.disk.stage = effect.head.id, frozenset(entry.digest for entry in wanted)
        self.flush(lambda: self.answer(TREE, effect.req, f.Staged(effect.req)))

    def _finds_own(self, entry: Entry, before: Digest) -> bool:
        """Whether a stage finds contents of the own line: in the archive, or at a path of the tree that is displaced.
        Once a stage missed them, and changes made here were published: anywhere in the tree and the history."""
        return entry.digest in self.disk.archive or self._is_displaced(entry, before) or self._seeks(entry)

    def _is_displaced(self, entry: Entry, before: Digest) -> bool:
        laid = [
            each.path for each in iterate(before, self.disk.state.get_page) if each.digest == entry.digest
        ]
        return any((here := self.disk.tree.get(path)) and here.digest == entry.digest for path in laid)

    def _seeks(self, entry: Entry) -> bool:
        """A planted bug has another."""
        return entry.digest in self.sought and self.disk.has(entry.digest)

    def _is_in_the_way(self, entry: Entry, before: Digest) -> bool:
        """Whether a file that is not published yet has the name: it keeps it until it is."""
        here = self.disk.tree.get(entry.path)
        if entry.path in self.kept_paths():
            return False
        is_new = here is not None and self.unions.entry(before, entry.path) is None
        return is_new and not is_alike(here, entry)

    def _is_live(self, union: SimLaid, origin: NodeName) -> bool:
        """Whether the tree holds this head already: then the line cannot be left out."""
        now = self.unions.now
        return now is not None and now.part_of(origin) == union.part_of(origin)

    def _senders(self, origin: NodeName) -> list[Any]:
        names = self.sources.get(origin, {})
        return [self.net.peers[name] for name in names if self.net.is_open(self.name, name)]

    def _gets(self, digest: Digest, origin: NodeName) -> bool:
        if self.disk.has(digest):
            return True
        return any(peer.lends(digest, self.name) for peer in self._senders(origin))

    def lends(self, digest: Digest, to: str) -> bool:
        return self.disk.has(digest) and not self.is_withheld(digest, to)

    def is_withheld(self, digest: Digest, to: str) -> bool:
        share = self.options.withheld
        if not self.world.is_faulty or not share:
            return False
        return int.from_bytes(digest[:2], "big") / 65_536 < share and (digest[2] + len(to)) % 2 == 0

    def _withheld(self, union: SimLaid, origin: NodeName, entry: Entry) -> Withheld:
        """Of an entry that cannot be had, the union says what it said before."""
        (source,) = (each for each in union.ownership.of(entry.path) if each.origin == origin)
        assert self.unions.now is not None
        line = self.unions.now.lines.by_origin.get(origin)
        kept = line.lookup(source.path) if line is not None else None
        is_none = kept is None or kept.kind is Kind.DIR or kept == source.entry
        return Withheld(origin, source.entry, None if is_none else kept)

    # --- the switch -------------------------------------------------------------------------------------------

    def _switch(self, effect: f.Switch) -> None:
        now, stage = self.unions.now, self.disk.stage
        if now is None or now.ref != effect.base or stage is None or stage[0] != effect.head.id:
            self.post(TREE, u.StageStale(effect.req))
            return
        target = self.unions.of(effect.head.id)
        assert target.record is not None
        self.disk.journal = UnionJournal(now.record, target.record, self._steps(now, target))
        self.unions.lost()
        self._walk(self.disk.walk(self.disk.journal), lambda: self._switched(effect))

    def _without_kept(self, root: Digest, target: Digest) -> Digest:
        """A planted bug has another."""
        pages = self.disk.state.pages
        return as_in(root, target, self.kept_paths(), self.disk.state.get_page, pages.__setitem__)

    def _steps(self, now: SimLaid, target: SimLaid) -> tuple[Step, ...]:
        before = self._without_kept(now.united.root, target.united.root)
        changes = diff(before, target.united.root, self.disk.state.get_page)
        steps = {c.path: (c.path, c.old, c.new) for c in changes if not is_alike(c.old, c.new)}
        return in_order(steps)

    def _walk(self, steps: Iterator[None], done: Any) -> None:
        self.step("in a switch", self.options.crash_at_step)
        if next(steps, self) is self:
            done()
        else:
            self.later(self.rng.uniform(0, self.options.step_ms), lambda: self._walk(steps, done))

    def _switched(self, effect: f.Switch) -> None:
        journal = self.disk.journal
        assert journal is not None
        self._holds(journal.target.id)
        self.post(TREE, f.TreeSwitched(effect.req, tuple(journal.drifted)))

    def _holds(self, union: Digest) -> None:
        """The tree's record first, then the state."""
        record = self.unions.record(union)
        assert record is not None
        self.disk.held = record
        self.step("tree noted")
        self.unions.holds(union)

    def _recover(self, req: int) -> None:
        journal = self.disk.journal
        if journal is None:
            self._recovered(req, f.RecoveryEnded(req, f.RecoveryKind.NOTHING))
            return
        self.unions.take_in(journal.target)
        if journal.base is not None:
            self.unions.take_in(journal.base)
        self._walk(self.disk.walk(journal), lambda: self._finished(req, journal))

    def _finished(self, req: int, journal: UnionJournal) -> None:
        target = journal.target.ref()
        self.disk.held = journal.target
        facts = self.tree_facts
        if target == facts.tree == facts.live and facts.due is f.Due.NOTHING:
            self.disk.journal = None
            self._recovered(req, f.RecoveryEnded(req, f.RecoveryKind.NOTHING, target))
            return
        try:
            self.unions.of(target.id)
            is_known = target in (facts.tree, facts.head, facts.live, facts.replaced)
        except UnknownUnion:
            is_known = False
        if not is_known:
            self.disk.journal = None  # no live is recorded: ``TreeKnown`` says that the tree holds it
        self._recovered(req, f.RecoveryEnded(req, f.RecoveryKind.FINISHED, target, is_known=is_known))

    def _recovered(self, req: int, ended: f.RecoveryEnded) -> None:
        known = self._find_laid()
        self.post(TREE, ended)
        self.post(TREE, known)
        self.is_recovered = True
        self.later(1, self.own_recovered)

    def _find_laid(self) -> u.TreeKnown:
        try:
            return self._found_now()
        except UnknownUnion as unknown:
            self.later(AGAIN_MS, partial(self._find_later, unknown.origin, self.now_ms()))
            return u.TreeKnown(None, is_certain=False)

    def _found_now(self, *, may_assume: bool = False) -> u.TreeKnown:
        own = self.own_facts
        laid = self.unions.now or self.unions.found(may_assume=may_assume)
        part = laid.part_of(self.me)
        head = None if own.is_adopted else own.head
        is_newer = head is not None and (part is None or head.position > part.position)
        if head is not None and is_newer and not self.unions.is_own_doubtful and self.has_pages(head):
            self.unions.own_moved(head)
        assert self.unions.now is not None
        now = self.unions.now
        return u.TreeKnown(now.ref, now.parts, is_whole=not now.kept, withheld=now.withheld)

    def _find_later(self, origin: NodeName, began: int) -> None:
        """Fetch the manifests that the tree's record names. That of the own part is done without once a node said
        that it has it no more, or after ``SEARCH_MS``."""
        self.keep_line(origin)
        for record in sorted(self.disk.state.records.values(), key=lambda each: -each.number):
            for part in record.parts:
                self.keep_line(part.origin)
                self.fetch_part(part)
        try:
            known = self._found_now(may_assume=self.asked_in_vain or self.now_ms() - began >= SEARCH_MS)
        except UnknownUnion as unknown:
            self.later(AGAIN_MS, partial(self._find_later, unknown.origin, began))
            return
        self.post(TREE, known)
        self.parts_changed()
        self.touch(everything=True)

    # --- other homes' paths that were changed here ----------------------------------------------------------------

    def _check(self, effect: f.CheckDrift) -> None:
        if self.unions.now is None:
            self.answer(TREE, effect.req, f.DriftCheckFailed(effect.req, trouble("union_unknown")))
            return
        kept = self.kept_paths()
        asked = [
            path for path in effect.paths or (*self.foreign, *kept) if path in self.foreign or path in kept
        ]
        paths = tuple(path for path in asked if self._differs(path))
        self.answer(TREE, effect.req, f.DriftChecked(effect.req, paths, len(paths)))

    def _differs(self, path: bytes) -> bool:
        now = self.unions.now
        assert now is not None
        is_foreign = any(each.origin != self.me for each in now.ownership.of(path))
        is_kept = path in self.kept_paths()
        return (is_foreign or is_kept) and not is_alike(
            self.disk.tree.get(path), self.unions.entry(now.united.root, path)
        )

    def _revert(self, effect: f.Revert) -> None:
        now = self.unions.now
        if now is None:
            self.answer(TREE, effect.req, f.RevertFailed(effect.req, trouble("union_unknown")))
            return
        self.disk.stage = None
        entries = {path: self.unions.entry(now.united.root, path) for path in effect.paths}
        for entry in entries.values():
            if entry is not None and entry.kind is not Kind.DIR:
                origin = now.ownership.of(entry.path)[0].origin
                if not self._gets(entry.digest, origin):
                    self.answer(TREE, effect.req, f.RevertFailed(effect.req, trouble("no_source")))
                    return
        for path in sorted(entries):
            self.disk.restore(path, entries[path])
        self.answer(TREE, effect.req, f.Reverted(effect.req, effect.paths))
        self.set_aside(effect.paths)
        self.reverts += 1
        self.touch(everything=True)

    @abstractmethod
    def union_stands(self) -> None:
        """The union reports: partners behind this node get the heads that are live."""

    @abstractmethod
    def fetch_part(self, part: UnionPart) -> None:
        """Fetch the manifest of a line that the tree's record names."""
