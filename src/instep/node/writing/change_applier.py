"""Changes from elsewhere made in a home's tree: looked at, staged, and switched by compare and set. Synchronous, in the
tree's worker thread.

The answers of a switch are durable in the state before its journal goes, so a set is never made twice, and a restart
derives them from the journal. ``docs/spec/changes.md``, section "Compare and set".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from instep.core.changes import home_vocabulary as h
from instep.core.changes.fitting import Fit, fit, takes_directory
from instep.core.changes.home_facts import LivePath
from instep.core.guards.losses import LossGuard
from instep.errors import ContentionError, InstepError, ResourceError, UnavailableError
from instep.model.change import OutcomeKind, PathChange, PathOutcome, is_alike
from instep.model.definition import Preserve, decode_definition
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Extra, Kind
from instep.model.manifest.manifest import edit, iterate
from instep.model.manifest.pages import drop_page
from instep.model.manifest.walk import Reader
from instep.model.paths import is_below, parent_of, sort_key
from instep.node.runtime.driver import wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.scanning.scan_tally import PageKeeper
from instep.node.trees.scanning.stat_rows import record_rows
from instep.node.trees.space import require_room
from instep.node.trees.switch_outcome import is_open, refuse_open_journal
from instep.node.writing.change_outcomes import (
    SetLosses,
    in_order,
    is_taken,
    kept_of,
    lost_too_much,
    not_taken,
    ruled_out,
    steps_taken,
    stuck_at,
)
from instep.node.writing.offered_contents import OfferedContents, lay_offered
from instep.node.writing.offered_metadata import as_allowed, is_only_owner, not_allowed, not_carried
from instep.tree.journal.journal import Compare, Journal
from instep.tree.objects.chunking import chunk_file
from instep.tree.objects.fidelity import Allow, Local
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.place import Place
from instep.tree.scan.rules import Rules
from instep.tree.scan.whole_object import is_same_object, read_object
from instep.tree.stage.stages import clear_stages
from instep.tree.switch.recover import RecoveredKind

STUCK_MAX = 8
"""So often a set is tried again without the paths that could not be changed."""
_STUCK = frozenset({"no_permission", "mount_in_the_way"})
_PROBLEMS = {"mount": "mount_in_the_way", "unreadable": "no_permission"}


class _Applied(msgspec.Struct, frozen=True, array_like=True):
    """The outcomes of the newest switch that a change set made."""

    id: Digest
    outcomes: tuple[PathOutcome, ...]


@dataclass(slots=True)
class _Look:
    """The tree at some paths, as ``root`` has it: the head's manifest with them as they lie there now."""

    root: Digest
    live: dict[bytes, Entry]
    taken: tuple[bytes, ...]
    """Directories that the changes take away."""
    refused: dict[bytes, PathOutcome] = field(default_factory=dict)


class ChangeApplier:
    """The acts of a home on its tree. ``head`` gives the newest generation of the line."""

    def __init__(
        self, tree: FilesetTree, head: Callable[[], HeadRef | None], guard: Callable[[], LossGuard]
    ) -> None:
        self._tree = tree
        self._head = head
        self.losses = SetLosses(tree, guard)

    # --- applying ---------------------------------------------------------------------------------------------------

    def apply(self, effect: h.ApplyChanges, offered: OfferedContents) -> tuple[PathOutcome, ...]:
        """Make the changes of these paths, and return the outcome of each. Errors: nothing was changed, or the journal
        is open and ``recovered`` says it later."""
        tree = self._tree
        known = self._kept_outcomes(effect.id)
        if known is not None:
            return known
        place = tree.place()
        journal = Journal.load(place)
        refuse_open_journal(journal, tree.name)
        if journal is not None:
            record_rows(tree.store, place)
        paths = set(effect.paths)
        changes = tuple(change for change in effect.change_set.changes if change.path in paths)
        outcomes = self._made(
            place,
            effect.id,
            changes,
            offered,
            is_whole=effect.change_set.whole,
            accepts_deletions=effect.accepts_deletions,
        )
        self._keep_outcomes(effect.id, outcomes)
        if Journal.load(place) is not None:
            record_rows(tree.store, place)
        clear_stages(place)
        return outcomes

    def _made(
        self,
        place: Place,
        change_id: Digest,
        changes: tuple[PathChange, ...],
        offered: OfferedContents,
        *,
        is_whole: bool,
        accepts_deletions: bool,
    ) -> tuple[PathOutcome, ...]:
        stuck: dict[bytes, PathOutcome] = {}
        for _ in range(STUCK_MAX):
            look = self._look(changes, self.losses.unpublished(self._required_head()))
            look.refused |= stuck
            fitted = self._fit(look, changes, is_whole=is_whole)
            if not fitted.changes:
                return in_order(fitted.outcomes)
            head, keeper, allow = self._required_head(), PageKeeper(self._tree.store), self._allow()
            wanted = [(c.path, c.new and as_allowed(c.new, look.live, allow)) for c in fitted.changes]
            root = edit(look.root, wanted, keeper.get, keeper.put)
            keeper.flush()
            refusal = self.losses.judged(head, root, fitted.changes)
            if refusal is not None and not accepts_deletions:
                lost = lost_too_much(refusal, fitted.changes, self._tree.runtime.name)
                return in_order({**fitted.outcomes, **lost})
            try:
                target, entries = (
                    HeadRef(head.epoch, head.number, change_id, root),
                    [new for _, new in wanted],
                )
                journal = self._switched(place, target, look, entries, offered, is_whole=is_whole)
            except ResourceError as error:
                if error.error_code not in _STUCK or is_open(Journal.load(place)):
                    raise
                stuck |= stuck_at(error, fitted.changes)
                continue
            if journal is not None:
                return self._outcomes_of(journal, changes, fitted.outcomes)
        raise ContentionError(
            f"the paths of a change set change faster than {self._tree.name} can compare them", code="busy"
        )

    def _switched(
        self,
        place: Place,
        target: HeadRef,
        look: _Look,
        wanted: Sequence[Entry | None],
        offered: OfferedContents,
        *,
        is_whole: bool,
    ) -> Journal | None:
        """The journal of the switch; None when all was undone, because a path changed and it is all or nothing."""
        tree, head = self._tree, self._required_head()
        require_room(place, look.root, target.root, tree.get_page, tuple(Preserve))
        contents = tree.contents()
        contents.expect([entry for entry in wanted if entry is not None and not offered.has(entry.digest)])
        compare = Compare.WHOLE if is_whole else Compare.EACH
        sources = (offered, contents)
        stage = tree.open_stage(place, target, look.root, previous=head, sources=sources, compare=compare)
        try:
            lay_offered(stage, offered, contents)
            journal = stage.seal(wall_ms() * 1_000_000)
        finally:
            stage.close()
        try:
            return tree.switch(place, journal).journal
        except InstepError as error:
            if not is_open(Journal.load(place)):
                raise
            recovered = tree.recover(place, tree.definition(head))
            if recovered.kind is RecoveredKind.FINISHED:
                return recovered.journal
            if isinstance(error, ContentionError):
                return None
            raise

    def _outcomes_of(
        self, journal: Journal, changes: tuple[PathChange, ...], decided: Mapping[bytes, PathOutcome]
    ) -> tuple[PathOutcome, ...]:
        """Made where the step that decides about the path was taken; the others by another look."""
        taken, units = steps_taken(journal)
        outcomes = dict(decided)
        rest: list[PathChange] = []
        for change in changes:
            if change.path in outcomes:
                continue
            if is_taken(change.path, taken, units):
                laid = self._laid(journal, change.new)
                outcomes[change.path] = PathOutcome(change.path, OutcomeKind.APPLIED, laid)
            else:
                rest.append(change)
        if rest:
            outcomes |= self._outcomes_of_rest(rest)
        return in_order(outcomes)

    def _outcomes_of_rest(self, changes: Sequence[PathChange]) -> dict[bytes, PathOutcome]:
        """Of paths whose step was not taken."""
        try:
            look = self._look(changes, ())
            fitted = self._fit(look, changes, is_whole=False)
        except KeyError:
            # A newer head was adopted meanwhile, and its pages are not here yet. Recovery must not wait for them.
            return {c.path: PathOutcome(c.path, OutcomeKind.OUTDATED) for c in changes}
        left = {c.path: not_taken(c, look.live.get(c.path)) for c in fitted.changes}
        return {**fitted.outcomes, **left}

    def _laid(self, journal: Journal, new: Entry | None) -> Entry | None:
        """The live entry where it is another than the change wanted, because a partner may not set its owner here."""
        if new is None or new.extra is None:
            return None
        try:
            laid = Reader(self._tree.get_page).lookup(journal.header.target.root, new.path)
        except KeyError:
            return None  # a restart came in between, and a sweep: the next look finds the difference
        return None if is_alike(laid, new) else laid and self._in_full(laid)

    # --- looking ----------------------------------------------------------------------------------------------------

    def _look(self, changes: Sequence[PathChange], also: Sequence[bytes]) -> _Look:
        """At the paths of the changes, and at those that earlier changes made, which the head has not."""
        tree, head = self._tree, self._required_head()
        taken = tuple(c.path for c in changes if c.base is not None and takes_directory(c, c.base))
        alone = {c.path for c in changes} | {parent_of(c.path) for c in changes} | set(also)
        alone -= {b"", *taken}
        found: dict[bytes, Entry | None] = {}
        refused: dict[bytes, PathOutcome] = {}
        for each in tree.comparison(head).some(head.root, taken, wall_ms(), alone=sorted(alone)):
            if each.problem is not None:
                code = _PROBLEMS.get(each.problem.what, each.problem.what)
                refused[each.path] = PathOutcome(
                    each.path, OutcomeKind.REFUSED, code=code, reason=each.problem.detail
                )
                continue
            found[each.path] = each.found
            if _is_directory(each.expected) and not _is_directory(each.found):
                found |= dict.fromkeys(self._below(head.root, each.path))
        keeper = PageKeeper(tree.store)
        ordered = sorted(found.items(), key=lambda item: sort_key(item[0]))
        root = edit(head.root, ordered, keeper.get, keeper.put)
        keeper.flush()
        reader = Reader(tree.get_page)
        at = {path: reader.lookup(root, path) for path in (*alone, *taken)}
        live = {path: self._in_full(entry) for path, entry in at.items() if entry is not None}
        return _Look(root, live, taken, refused)

    def _below(self, root: Digest, directory: bytes) -> Iterator[bytes]:
        for entry in iterate(root, self._tree.get_page, after=directory):
            if not is_below(entry.path, directory):
                return
            yield entry.path

    def _fit(self, look: _Look, changes: Sequence[PathChange], *, is_whole: bool) -> Fit:
        local, allow = self._local(), self._allow()
        rules = Rules(self._tree.definition(self._required_head()))
        refused = dict(look.refused)
        for change in changes:
            outcome = ruled_out(change, rules) or not_allowed(change, allow) or not_carried(change, local)
            outcome = outcome or is_only_owner(change, look.live, allow)
            if outcome is not None:
                refused[change.path] = outcome
        below = (path for directory in look.taken for path in self._below(look.root, directory))
        return fit(
            changes, look.live, below, lambda a, b: is_same_object(a, b, local), refused, is_whole=is_whole
        )

    def _local(self) -> Local:
        return self._tree.local(self._tree.definition(self._required_head()))

    def _allow(self) -> frozenset[Allow]:
        return frozenset(Allow(name) for name in self._tree.runtime.settings.allow_preserve)

    def _required_head(self) -> HeadRef:
        head = self._head()
        if head is None:
            raise UnavailableError(
                f"{self._tree.name} has no generation yet, so no change of it can be compared",
                code="nothing_published",
            )
        return head

    def read_live(self, paths: Sequence[bytes]) -> tuple[LivePath, ...]:
        """The live objects, read whole now. ``OSError``, ``RefusedError`` of the marker."""
        place, local = self._tree.place(), self._local()
        with Root(place.root) as root:
            found = [(path, read_object(root, path, path, local)) for path in paths]
        return tuple(LivePath(path, entry and self._in_full(entry)) for path, entry in found)

    def _in_full(self, entry: Entry) -> Entry:
        """With the root of the chunk list, which every entry of a large file has that goes to another node."""
        if entry.size <= CHUNKED_OVER or (entry.extra is not None and entry.extra.chunks is not None):
            return entry
        row = self._tree.stat_row(entry.path)
        chunks = row.chunks if row is not None and row.digest == entry.digest else b""
        if not chunks:
            with Root(self._tree.place().root) as root, closing_fd(root.open(entry.path, READ)) as fd:
                _, chunks, _ = chunk_file(fd, entry.size, drop_page)
        extra = msgspec.structs.replace(entry.extra or Extra(), chunks=Digest(chunks))
        return msgspec.structs.replace(entry, extra=extra)

    # --- recovery ---------------------------------------------------------------------------------------------------

    def recovered(self, effect: h.RecoverChanges) -> h.ChangesRecovered:
        """What became of a set whose apply had begun."""
        tree = self._tree
        row = tree.store.change(effect.id)
        kept = kept_of(row.kept) if row is not None and row.kept is not None else None
        outcomes = self._kept_outcomes(effect.id)
        if self._names(effect.id):
            if outcomes is None:
                self.finish_switch()
                outcomes = self._kept_outcomes(effect.id)
            else:
                record_rows(tree.store, tree.place())
                clear_stages(tree.place())
        if kept is None:
            return h.ChangesRecovered(effect.req, None, (), outcomes)
        return h.ChangesRecovered(effect.req, kept.submission, kept.decided, outcomes)

    def _names(self, change_id: Digest) -> bool:
        journal = Journal.load(self._tree.place())
        return journal is not None and journal.is_compared and journal.header.target.id == change_id

    def finish_switch(self) -> None:
        """Bring an interrupted switch of this tree to its end, keep the outcomes of a change set, and record it."""
        tree = self._tree
        place = tree.place()
        journal = Journal.load(place)
        if journal is not None:
            tree.recover(place, decode_definition(journal.header.definition))
        journal = Journal.load(place)
        if journal is not None and journal.is_compared:
            row = tree.store.change(journal.header.target.id)
            if row is not None and row.kept is not None:
                kept = kept_of(row.kept)
                done = {outcome.path for outcome in kept.decided}
                changes = tuple(c for c in kept.submission.change_set.changes if c.path not in done)
                self._keep_outcomes(journal.header.target.id, self._outcomes_of(journal, changes, {}))
        record_rows(tree.store, place)
        clear_stages(place)

    def _key(self) -> str:
        return f"applied/{self._tree.name}"

    def _keep_outcomes(self, change_id: Digest, outcomes: tuple[PathOutcome, ...]) -> None:
        self.losses.made(self._head(), outcomes)
        self._tree.store.put(self._key(), msgspec.msgpack.encode(_Applied(change_id, outcomes)))

    def _kept_outcomes(self, change_id: Digest) -> tuple[PathOutcome, ...] | None:
        raw = self._tree.store.get(self._key())
        applied = msgspec.msgpack.decode(raw, type=_Applied) if raw is not None else None
        return applied.outcomes if applied is not None and applied.id == change_id else None

    def forget(self, change_id: Digest) -> None:
        """The answer is kept: the outcomes are in it."""
        if self._kept_outcomes(change_id) is not None:
            self._tree.store.delete(self._key())


def _is_directory(entry: Entry | None) -> bool:
    return entry is not None and entry.kind is Kind.DIR
