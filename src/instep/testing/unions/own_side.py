"""The own line of a simulated home: looks at the tree, divided by the union that was laid, and commits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from instep.core.follow import vocabulary as f
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.commit_facts import LastCommit, committed
from instep.core.union.divide import Divided, ForeignChange, births, divide, renames
from instep.core.unite import vocabulary as u
from instep.core.vocabulary import SignerVerdict
from instep.model.generation import EpochBody, GenerationBody, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import diff, iterate
from instep.model.manifest.walk import totals
from instep.model.replication.union import UnionPart
from instep.testing.unions.home_base import FILESET, OWN, TREE, HomeBase
from instep.testing.unions.laid import DEFINITION, SimLaid
from instep.testing.unions.process import trouble
from instep.testing.world.signatures import signed_by

STILL_MS = 20_000
ON_THE_TREE = frozenset({"recover", "switch", "put_back", "revert", "reload", "probe", "record"})


class OwnSide(HomeBase):
    """``foreign`` are the changed paths of other homes, ``waiting`` the new paths that wait for them."""

    def began_own(self) -> None:
        self._divided: tuple[SimLaid, Divided, Digest] | None = None
        self._last_commit = LastCommit()
        self.foreign: dict[bytes, ForeignChange] = {}
        self.waiting: tuple[bytes, ...] = ()
        self._recovers: list[int] = []
        self._flushes: dict[int, Any] = {}
        self._last_request = 0

    @property
    def is_still(self) -> bool:
        """Whether the tree holds one union for certain, and nothing is done to it."""
        facts = self.tree_facts
        at_rest = facts.tree == facts.live and facts.due is f.Due.NOTHING and self.disk.journal is None
        return self.unions.now is not None and self.machines[TREE].phase not in ON_THE_TREE and at_rest

    def touch(self, paths: tuple[bytes, ...] = (), *, everything: bool = False) -> None:
        self.post(OWN, p.TreeChanged(paths, everything))

    def perform_own(self, effect: Any) -> None:
        match effect:
            case p.SavePublish(facts):
                self.save(OWN, self._last_commit.saved(facts))
            case p.Scan():
                self.later(self.rng.uniform(1, self.options.job_ms + 1), lambda: self._scan(effect, 0))
            case p.Commit():
                self.later(self.rng.uniform(0, 2), lambda: self._commit(effect))
            case s.Recover(req):
                self._recovers.append(req)
                self.own_recovered()
            case p.Announce():
                self.announce(self.me)
            case p.AskPartners(req):
                self.ask_partners(req)
            case p.FetchPages(req, source, head):
                self.fetch(OWN, req, source, self.me, head, lambda: p.ManifestFetched(req))
            case p.GiveAnswer(request):
                done = self._flushes.pop(request, None)
                if done is not None:
                    done()
            case p.PublishReport():
                pass
            case _:
                raise AssertionError(effect)

    def own_recovered(self) -> None:
        """A switch is ended by the union's machine."""
        if self.is_recovered:
            for req in self._recovers:
                self.post(OWN, s.TreeRecovered(req))
            self._recovers.clear()

    def flush(self, done: Any) -> None:
        """Publish what was changed until now, before a switch; go on in any case."""
        self._last_request += 1
        request = self._last_request
        self._flushes[request] = done
        self.later(10_000, lambda: self._flushes.pop(request, lambda: None)())
        self.take(OWN, p.TreeChanged((), is_overflow=True))
        self.take(OWN, p.PublishAsked(request, is_flush=True))

    def publish_over(self) -> None:
        """An operator says that the tree is right."""
        self._last_request += 1
        self.post(OWN, p.PublishAsked(self._last_request, is_over=True, accept_deletions=True))

    # --- the look ---------------------------------------------------------------------------------------------

    def _scan(self, effect: p.Scan, waited_ms: int) -> None:
        if not self.is_still:
            if waited_ms < STILL_MS:
                self.later(50, lambda: self._scan(effect, waited_ms + 50))
            else:
                self.answer(OWN, effect.req, p.ScanFailed(effect.req, trouble("tree_is_switched", 6)))
            return
        if self.chance(self.options.work_fails):
            self.answer(OWN, effect.req, p.ScanFailed(effect.req, trouble("read_error", 8)))
            return
        if self.unions.is_own_doubtful:
            self.unions.is_own_doubtful = False
            self.post(OWN, p.OldTreeFound())
        laid, state = self.unions.now, self.disk.state
        assert laid is not None
        found = self.disk.found(lambda path: self.unions.entry(laid.united.root, path))
        divided = self.divide(laid, found)
        root = self._own_root(effect, laid, divided)
        self._divided = laid, divided, root
        before = None if effect.base is None else effect.base.root
        changes = list(diff(before, root, state.get_page))
        whole = totals(root, state.get_page)
        summary = p.ScanSummary(
            root=root,
            entries=whole.entries,
            size_bytes=whole.size_bytes,
            entries_before=0 if before is None else totals(before, state.get_page).entries,
            added=sum(each.old is None for each in changes),
            changed=sum(each.old is not None and each.new is not None for each in changes),
            removed=sum(each.new is None for each in changes),
            changed_bytes=0,
            is_full=True,
            at_ms=self.wall_ms(),
        )
        scanned = p.TreeScanned(effect.req, summary)
        reverts = self.reverts
        self.later(
            self.rng.uniform(0, self.options.job_ms),
            lambda: self._looked(laid, divided, root, scanned, self.is_since(reverts)),
        )

    def _looked(
        self, laid: SimLaid, divided: Divided, root: Digest, scanned: p.TreeScanned, is_current: bool
    ) -> None:
        self.answer(OWN, scanned.req, scanned)
        self._took(laid, divided, root, is_current)

    def is_since(self, reverts: int) -> bool:
        """Whether no revert ended since; a planted bug has another."""
        return self.reverts == reverts

    def divide(self, laid: SimLaid, found: Digest) -> Divided:
        """A planted bug has another."""
        get, offered = self.disk.state.get_page, self.kept_paths()
        return divide(laid.united, laid.lines, self.me, found, get, self.wall_ms(), offered)

    def _own_root(self, effect: p.Scan, laid: SimLaid, divided: Divided) -> Digest:
        """The own line's next manifest, as ``node/replica/own_scan.py`` makes it."""
        state, nothing = self.disk.state, self.unions.nothing().united.root
        before = effect.base.root if effect.base is not None else nothing
        part = laid.part_of(self.me)
        was = part.root if part is not None else nothing
        changes = divided.own
        if not changes and was == before:
            changes = renames(laid.united, laid.lines, self.me, self.wall_ms())
        root = edit(was, changes, state.get_page, state.pages.__setitem__)
        if was == before:
            return root
        again = births(was, before, root, state.get_page)
        return edit(root, again, state.get_page, state.pages.__setitem__)

    def _took(self, laid: SimLaid, divided: Divided, root: Digest, is_current: bool) -> None:
        """What the look says of other homes' paths, where no switch and no revert came in between."""
        if not is_current or not self._is_of_now(laid):
            self.touch(everything=True)
            return
        self.foreign = {change.path: change for change in divided.foreign}
        self.waiting = tuple(each.path for each in divided.waiting)
        self.look_taken(laid, divided)
        self.tell_offers()
        if self.foreign:
            self.post(TREE, f.TreeTouched(tuple(self.foreign)))
        head, now = self.own_facts.head, self.unions.now
        if head is not None and head.root == root and now is not None and now.part_of(self.me) != head:
            self.own_moved(head)

    def _is_of_now(self, laid: SimLaid) -> bool:
        now = self.unions.now
        return now is not None and now.others(self.me) == laid.others(self.me)

    # --- the commit -------------------------------------------------------------------------------------------

    def _commit(self, effect: p.Commit) -> None:
        divided = self._divided
        if divided is None or not self._is_of_now(divided[0]) or self.disk.journal is not None:
            self.answer(OWN, effect.req, p.CommitFailed(effect.req, trouble("tree_is_switched", 6)))
            return
        if self.chance(self.options.work_fails):
            self.answer(OWN, effect.req, p.CommitFailed(effect.req, trouble("disk_full", 8)))
            return
        state = self.disk.state
        if effect.epoch == 1 and not any(
            each.body().line.origin == self.me for each in state.epochs.values()
        ):
            body = EpochBody(1, FILESET, self.me, 1, self.me, self.name.encode(), EMPTY_DIGEST)
            record = signed_by(self.name, SignedEpoch, body)
            state.epochs[record.id] = record
            self.post(OWN, p.EpochSeen(self.me, record, SignerVerdict(True, self.me)))
        parent = EMPTY_DIGEST if effect.parent is None else effect.parent.id
        signed = signed_by(
            self.name,
            SignedGeneration,
            GenerationBody(
                1,
                FILESET,
                self.me,
                effect.epoch,
                effect.number,
                parent,
                effect.root,
                DEFINITION,
                "",
                "",
                self.wall_ms(),
                effect.entries,
                effect.size_bytes,
            ),
        )
        head = signed.ref()
        entries = list(iterate(effect.root, state.get_page))
        self.ledger.committed(self.name, entries)
        state.generations[head.id] = signed
        self.disk.history.update(entry.digest for entry in entries if entry.kind is not Kind.DIR)
        self.save(OWN, committed(effect.facts, head))
        self._last_commit.is_durable(effect.parent, head)
        self.step("own line committed")
        self.own_moved(head)
        self.home_moved(head)
        self.answer(OWN, effect.req, p.Committed(effect.req, head))

    def own_moved(self, head: HeadRef) -> None:
        """The own line has a head whose contents are in the tree already."""
        moved = self.unions.own_moved(head)
        if moved is not None and moved.ref is not None:
            self.step("union moved")
            part = UnionPart(self.me, head)
            self.post(TREE, u.OwnCommitted(moved.ref, part, is_whole=not moved.kept))
        if self.in_the_way:
            self.in_the_way = False
            self.post(TREE, u.WithheldDue())

    def has_pages(self, head: HeadRef) -> bool:
        return not missing(head.root, self.disk.state.pages.get)

    # --- for the other parts ------------------------------------------------------------------------------------

    is_recovered = False
    in_the_way = False
    reverts = 0

    @abstractmethod
    def kept_paths(self) -> frozenset[bytes]:
        """The paths whose edits are offered."""

    @abstractmethod
    def look_taken(self, laid: SimLaid, divided: Divided) -> None:
        """Offer the edits that a look found."""

    @abstractmethod
    def tell_offers(self) -> None:
        """Say which paths stay as they are, and which are put back."""

    @abstractmethod
    def home_moved(self, head: HeadRef) -> None:
        """The own line has a new head."""

    @abstractmethod
    def announce(self, origin: NodeName) -> None:
        """Send partners the newest head of a line that they may have from here."""

    @abstractmethod
    def ask_partners(self, req: int) -> None:
        """Ask each partner for the own line's head."""

    @abstractmethod
    def fetch(
        self,
        machine: str,
        req: int,
        source: NodeName,
        origin: NodeName,
        head: HeadRef,
        done: Callable[[], Any],
    ) -> None:
        """Fetch the manifest of a head; ``done`` gives the answer to the machine's request."""
