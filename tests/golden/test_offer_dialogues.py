"""A node whose tree is edited: what it owns, saves and submits, and in which order."""

from __future__ import annotations

from typing import Any

from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer import OfferMachine
from instep.core.changes.offer_vocabulary import Edit, OfferFacts
from instep.core.vocabulary import TimerFired, Trouble
from instep.errors import Retry
from instep.model.change import ChangeAnswer, ChangeSet, Fence, OutcomeKind, PathOutcome
from instep.model.lock import LockEnd, LockEnded, LockGone, LockGranted
from tests.golden.dialogue import LINE, Dialogue, ref
from tests.support.change_home import ANA, S1, WALL_MS, a_file

OLD, NEW = a_file(b"a", "old"), a_file(b"a", "new")
FENCE = Fence(1, 7, b"i" * 16)


class OfferDialogue(Dialogue):
    """Owned paths with their states, for they are what an offer is about."""

    def __init__(self, facts: OfferFacts | None = None, *, offers: bool = True) -> None:
        super().__init__(OfferMachine(LINE, o.OfferConfig(S1, offers), facts))

    def say(self, *events: Any) -> OfferDialogue:
        for event in events:
            self.lines.append(f"{self.now:>6} > {in_words(event)}")
            self.effects = self.machine.step(event, self.now, WALL_MS)
            self.lines.extend(f"       < {in_words(effect)}" for effect in self.effects)
        return self

    def sent(self) -> o.SubmitOffer:
        return next(effect for effect in self.effects if isinstance(effect, o.SubmitOffer))


def in_words(what: Any) -> str:
    parts = [type(what).__name__]
    for name in what.__struct_fields__:
        value = getattr(what, name)
        if (
            name in ("req", "request", "path", "paths", "at_ms", "text", "name", "releases")
            and value is not None
        ):
            parts.append(f"{name}={value}")
        elif isinstance(value, OfferFacts):
            held = ", ".join(f"{each.path.decode()} until {each.until_ms}" for each in value.held)
            under_way = "nothing" if value.submitting is None else paths_of(value.submitting)
            parts.append(f"[{owned_in_words(value.owned)}; held: {held or 'none'}; under way: {under_way}]")
        elif isinstance(value, ChangeSet):
            parts.append(f"{paths_of(value)}{'' if value.token is None else ' under a lock'}")
        elif isinstance(value, ChangeAnswer):
            parts.append(", ".join(f"{each.path.decode()} {each.kind.value}" for each in value.outcomes))
        elif isinstance(value, Trouble):
            parts.append(f"trouble={value.code}")
        elif isinstance(value, PathOutcome):
            parts.append(value.kind.value)
        elif name == "edits":
            parts.append(", ".join(edit.path.decode() for edit in value))
        elif name == "owned":
            parts.append(owned_in_words(value))
        elif name == "counts":
            parts.append(", ".join(f"{count} {state.value}" for state, count in value))
        elif name in ("answer", "gone") and value is not None:
            parts.append(type(value).__name__)
    return " ".join(parts)


def owned_in_words(owned: tuple[o.OwnedPath, ...]) -> str:
    return ", ".join(f"{each.path.decode()} {each.state.value}" for each in owned) or "nothing owned"


def paths_of(change_set: ChangeSet) -> str:
    return "/".join(change.path.decode() for change in change_set.changes)


def started(facts: OfferFacts | None = None) -> OfferDialogue:
    d = OfferDialogue(facts)
    return d.say(o.OffersStarted("boot", b"seed", 10), o.HeadReached(ref(1)), o.HomeUp())


def looked(d: OfferDialogue, *edits: Edit) -> OfferDialogue:
    return d.say(o.TreeLooked(edits, is_whole=True, entries=10))


def answer(sent: o.SubmitOffer, *kinds: OutcomeKind) -> o.OfferAnswered:
    paths = [change.path for change in sent.change_set.changes]
    outcomes = tuple(PathOutcome(path, kind) for path, kind in zip(paths, kinds, strict=True))
    return o.OfferAnswered(sent.req, ChangeAnswer(sent.id, outcomes, ref(2)))


def test_one_edit_is_accepted_and_one_is_set_aside() -> None:
    d = looked(started(), Edit(b"a", NEW, OLD), Edit(b"b", None, a_file(b"b", "old")))
    d.say(answer(d.sent(), OutcomeKind.APPLIED, OutcomeKind.OUTDATED))
    d.say(o.EditsSetAside((b"b",)))
    d.say(o.HeadReached(ref(2), ((b"a", NEW),)))
    d.check("offer_accepted_and_lost")


def test_a_crash_while_the_home_is_asked_sends_the_same_set_again() -> None:
    d = looked(started(), Edit(b"a", NEW, OLD))
    first = d.sent()
    d.lines.append("         the node ends here and starts again")
    again = OfferDialogue(d.machine.facts)
    again.lines = d.lines
    again.say(o.OffersStarted("boot", b"another seed", 10), o.HomeUp())
    assert again.sent().id == first.id
    again.say(o.OfferFailed(again.sent().req, Trouble("cut", "the connection was lost", Retry.LATER)))
    again.at(1_000).say(TimerFired("submit"))
    assert again.sent().id == first.id
    again.say(answer(again.sent(), OutcomeKind.APPLIED))
    again.check("offer_crash")


def locked(d: OfferDialogue) -> OfferDialogue:
    d.say(o.LockWanted(1, ANA, b"a", OLD.digest, 60_000))
    return d.say(o.LockAnswered(d.asked(o.AskLock), LockGranted(FENCE, 60_000, 30_000, OLD)))


def test_from_a_lock_to_its_release() -> None:
    d = looked(locked(started()), Edit(b"a", NEW, OLD))
    d.say(answer(d.sent(), OutcomeKind.APPLIED))
    d.say(o.ReleaseWanted(2, ANA, b"a", None, "new bounds"))
    newer = a_file(b"a", "newer")
    d.say(o.PathsLooked(d.asked(o.LookAtPaths), (Edit(b"a", newer, OLD),)))
    assert d.sent().releases
    d.say(answer(d.sent(), OutcomeKind.APPLIED))
    d.say(o.HeadReached(ref(3), ((b"a", newer),)))
    d.check("offer_lock_and_release")


def test_a_release_of_what_was_not_changed() -> None:
    d = locked(started())
    d.say(o.ReleaseWanted(2, ANA, b"a"))
    d.say(o.PathsLooked(d.asked(o.LookAtPaths), ()))
    d.say(o.LockAnswered(d.asked(o.AskRelease), LockEnded(b"a", LockEnd.RELEASED)))
    d.say(o.PathsLooked(d.asked(o.LookAtPaths), ())).check("offer_release_unchanged")
    assert not d.machine.facts.owned


def test_a_save_of_while_the_node_slept_is_seen_before_the_path_is_let_go() -> None:
    """The lock lapses at the moment of waking, before the save was seen: it is offered under the old token."""
    d = locked(started())
    d.at(200_000)
    d.say(TimerFired("lock-end"))
    assert [each.path for each in d.machine.facts.owned] == [b"a"], "the follower would revert it"
    d.say(o.PathsLooked(d.asked(o.LookAtPaths), (Edit(b"a", NEW, OLD),)))
    assert d.sent().change_set.token == FENCE
    d.say(answer(d.sent(), OutcomeKind.APPLIED))
    d.check("offer_saved_asleep")


def test_a_lock_that_is_broken_under_an_edit() -> None:
    d = locked(started())
    d.say(o.HomeDown())
    looked(d, Edit(b"a", NEW, OLD))
    d.say(o.LockNews(b"a", FENCE, LockGone(LockEnd.BROKEN, "root@main", "on holiday")))
    d.say(o.HomeUp())
    d.say(answer(d.sent(), OutcomeKind.LOCKED))
    d.check("offer_lock_broken")
