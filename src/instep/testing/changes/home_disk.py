"""The disk of a simulated home: its live tree, the journal of a switch by compare-and-set, the rows of the store.

It performs the effects of a ``HomeMachine`` one by one, and each returns the event that answers it. ``tick`` is called
before every step of a switch and may end the process there; all that was done before is durable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_facts import HomeFacts, LivePath, Submission
from instep.core.changes.home_vocabulary import HomeEffect, HomeEvent
from instep.core.guards.guards import DEFAULT_DELETIONS
from instep.core.guards.losses import LossGuard
from instep.model.change import ChangeAnswer, OutcomeKind, PathChange, PathOutcome, is_alike
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, NodeName
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.paths import is_below, parent_of, sort_key
from instep.testing.changes.home_losses import HomeLosses


@dataclass(frozen=True, slots=True)
class Accepted:
    """A path that the home changed on behalf of a change set, with the live entry right before."""

    id: Digest
    change: PathChange
    was: Entry | None
    at_ms: int
    source: str


@dataclass(slots=True)
class SwitchJournal:
    """The journal of the set whose switch began: its outcomes so far, by path."""

    id: Digest
    changes: tuple[PathChange, ...]
    whole: bool
    source: str
    outcomes: dict[bytes, PathOutcome] = field(default_factory=dict)


class HomeDisk:
    """The state of a home that a crash leaves. ``lies_about_bases``: it changes paths whatever lies there (a plant)."""

    def __init__(self) -> None:
        self.tree: dict[bytes, Entry] = {}
        self.archive: list[Entry] = []
        self.facts: HomeFacts | None = None
        self.kept: dict[Digest, tuple[Submission, tuple[PathOutcome, ...]]] = {}
        self.answers: dict[Digest, ChangeAnswer] = {}
        self.answered: dict[NodeName | None, tuple[int, int]] = {}
        """The sets of each node that have an answer, and its bytes."""
        self.journal: SwitchJournal | None = None
        self.published: list[dict[bytes, Entry]] = []
        self.accepted: list[Accepted] = []
        self.tick: Callable[[], None] = lambda: None
        self.on_accept: Callable[[Accepted], None] = lambda _: None
        self.now_ms = 0
        self.lies_about_bases = False
        self.owner: str | None = None
        """The owner of all files here, which no change may set."""
        self.deletions = DEFAULT_DELETIONS
        self.losses = HomeLosses()

    @property
    def head(self) -> HeadRef | None:
        return head_of(len(self.published)) if self.published else None

    def perform(self, effect: HomeEffect) -> HomeEvent | None:
        """Carry out one effect; the event that answers it, if one is due. Replies and timers are the caller's."""
        match effect:
            case h.SaveHome(facts):
                self.facts = facts
            case h.KeepChange(id_, submission, decided):
                self.kept[id_] = (submission, decided)
            case h.KeepAnswer(answer, source):
                self.answers[answer.id] = answer
                sets, size = self.answered.get(source, (0, 0))
                self.answered[source] = sets + 1, size + len(msgspec.msgpack.encode(answer))
                self.kept.pop(answer.id, None)
            case h.LookUp(req, id_, source):
                return h.LookedUp(req, self.answers.get(id_), *self.answered.get(source, (0, 0)))
            case h.ReadLive(req, paths):
                return h.LiveRead(req, tuple(LivePath(path, self.tree.get(path)) for path in paths))
            case h.ApplyChanges(req):
                return h.ChangesApplied(req, self._switch(effect))
            case h.RecoverChanges(req, id_):
                return self._recover(req, id_)
            case h.PublishPaths(req):
                return h.PathsPublished(req, self.publish())
            case _:
                pass
        return None

    def publish(self) -> HeadRef:
        """The tree as a new generation, where it differs from the newest one."""
        if not self.published or self.published[-1] != self.tree:
            self.losses.publishes(
                self.published[-1] if self.published else {}, self.tree, self._guard(), self.now_ms
            )
            self.published.append(dict(self.tree))
        head = self.head
        assert head is not None
        return head

    def edit(self, path: bytes, entry: Entry | None) -> None:
        """A program at the home changes a path."""
        if entry is None:
            self.tree.pop(path, None)
        else:
            self.tree[path] = entry

    # --- the switch -------------------------------------------------------------------------------------------

    def _guard(self) -> LossGuard:
        return LossGuard(self.deletions, self.losses.checkpoints)

    def _switch(self, effect: h.ApplyChanges) -> tuple[PathOutcome, ...]:
        wanted = frozenset(effect.paths)
        changes = tuple(change for change in effect.change_set.changes if change.path in wanted)
        self.tick()
        source = self.kept[effect.id][0].source
        journal = SwitchJournal(effect.id, _in_order(changes), effect.change_set.whole, source)
        open_ = [change for change in changes if self._judge(change, journal) is None]
        if not effect.accepts_deletions and self._loses_too_much(open_):
            refused = {
                each.path: PathOutcome(each.path, OutcomeKind.REFUSED, code="max_deletions") for each in open_
            }
            others = {each.path: self._judge(each, journal) for each in changes}
            return tuple(refused.get(each.path) or others[each.path] for each in changes)  # type: ignore[misc]
        self.journal = journal
        return self._finish(self.journal)

    def _loses_too_much(self, changes: list[PathChange]) -> bool:
        """Whether the guard would stop the publish of these changes and of those that sets made since the head."""
        if all(change.new is not None for change in changes):
            return False
        made = {**self.losses.made, **{change.path: change.new for change in changes}}
        return self.losses.stops(self.published[-1], made, self._guard(), self.now_ms)

    def _recover(self, req: int, id_: Digest) -> h.ChangesRecovered:
        kept, decided = self.kept.get(id_, (None, ()))
        if self.journal is None or self.journal.id != id_:
            return h.ChangesRecovered(req, kept, decided, None)
        return h.ChangesRecovered(req, kept, decided, self._finish(self.journal))

    def _finish(self, journal: SwitchJournal) -> tuple[PathOutcome, ...]:
        """Make the steps that are missing. A path with an outcome is not looked at again."""
        if journal.whole and not journal.outcomes:
            first = {change.path: self._judge(change, journal) for change in journal.changes}
            if any(outcome is not None and not outcome.is_made for outcome in first.values()):
                for path, outcome in first.items():
                    is_lost = outcome is not None and not outcome.is_made
                    free = PathOutcome(path, OutcomeKind.REFUSED, code="not_whole")
                    journal.outcomes[path] = outcome if is_lost and outcome is not None else free
        for change in journal.changes:
            if change.path not in journal.outcomes:
                self.tick()
                outcome = self._judge(change, journal)
                if outcome is None:
                    outcome = PathOutcome(change.path, OutcomeKind.APPLIED, self._displace(change, journal))
                journal.outcomes[change.path] = outcome
        return tuple(journal.outcomes[change.path] for change in sorted(journal.changes, key=_key))

    def _judge(self, change: PathChange, journal: SwitchJournal) -> PathOutcome | None:
        """The outcome of a change that is not to be made; None when it is."""
        live, new = self.tree.get(change.path), change.new
        if is_alike(live, new):
            return PathOutcome(change.path, OutcomeKind.SAME)
        if not is_alike(live, change.base) and not self.lies_about_bases:
            return PathOutcome(change.path, OutcomeKind.OUTDATED, live)
        if new is None or new.kind is not Kind.DIR:
            gone = {each.path for each in journal.changes if each.new is None} - journal.outcomes.keys()
            if any(is_below(path, change.path) and path not in gone for path in self.tree):
                return PathOutcome(change.path, OutcomeKind.REFUSED, code="not_empty")
        above = parent_of(change.path)
        made = {each.path for each in journal.changes if each.new is not None and each.new.kind is Kind.DIR}
        made -= journal.outcomes.keys()  # Those lie there now, unless a person replaced them since.
        parent = self.tree.get(above)
        if (
            new is not None
            and above
            and above not in made
            and (parent is None or parent.kind is not Kind.DIR)
        ):
            return PathOutcome(change.path, OutcomeKind.REFUSED, code="not_a_directory")
        return None

    def _displace(self, change: PathChange, journal: SwitchJournal) -> Entry | None:
        """The entry that lies there now, where it is not exactly the wanted one."""
        was = self.tree.get(change.path)
        if was is not None and was.kind is not Kind.DIR:
            self.archive.append(was)
        new = change.new
        if new is not None and new.kind is not Kind.DIR and self.owner is not None:
            new = msgspec.structs.replace(new, extra=Extra(owner=self.owner))
        self.edit(change.path, new)
        self.losses.made[change.path] = new
        self.accepted.append(Accepted(journal.id, change, was, self.now_ms, journal.source))
        self.on_accept(self.accepted[-1])
        return None if new == change.new else new


def _in_order(changes: tuple[PathChange, ...]) -> tuple[PathChange, ...]:
    """Parents before what comes below them, what goes before its directory."""
    comes = [change for change in changes if change.new is not None]
    goes = [change for change in changes if change.new is None]
    return (*sorted(goes, key=_key, reverse=True), *sorted(comes, key=_key))


def _key(change: PathChange) -> bytes:
    return sort_key(change.path)


def head_of(number: int) -> HeadRef:
    """The generation of that number, as far as its name goes."""
    return HeadRef(1, number, Digest(number.to_bytes(32, "big")), EMPTY_DIGEST)
