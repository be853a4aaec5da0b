"""A home that is asked for locks and changes: what it saves, in which order, and what it answers."""

from __future__ import annotations

from random import Random
from typing import Any

from instep.core.changes import home_vocabulary as h
from instep.core.changes.home import HomeMachine
from instep.core.changes.home_facts import HomeConfig, HomeFacts, LivePath, Submission
from instep.core.vocabulary import TimerFired
from instep.model.change import ChangeAnswer, ChangeSet, Fence, OutcomeKind, PathOutcome
from instep.model.ids import Digest
from instep.model.lock import LockAnswer, LockEnd, LockGranted
from tests.golden.dialogue import LINE, MAIN, Dialogue, ref
from tests.support.change_home import ANA, BOB, S1, S2, WALL_MS, a_file, change

OLD = a_file(b"a", "old")


class HomeDialogue(Dialogue):
    """Answers and change sets in words, for they are what a home is about."""

    def __init__(self, facts: HomeFacts | None = None) -> None:
        super().__init__(HomeMachine(LINE, HomeConfig(MAIN, (S1, S2)), Random(1), facts))

    def say(self, *events: Any) -> HomeDialogue:
        for event in events:
            self.lines.append(f"{self.now:>6} > {in_words(event)}")
            self.effects = self.machine.step(event, self.now, WALL_MS)
            self.lines.extend(f"       < {in_words(effect)}" for effect in self.effects)
        return self


def in_words(what: Any) -> str:
    parts = [type(what).__name__]
    for name in what.__struct_fields__:
        value = getattr(what, name)
        if name in (
            "req",
            "source",
            "path",
            "paths",
            "ttl_ms",
            "at_ms",
            "text",
            "reason",
            "why",
            "name",
            "admitted",
        ):
            parts.append(f"{name}={getattr(value, 'value', value)}")
        elif isinstance(value, HomeFacts):
            locks = ", ".join(
                f"{lock.path.decode()} {lock.owner} #{lock.fence.counter}" for lock in value.locks
            )
            applying = "" if value.applying is None else f" applying {name_of(value.applying.id)}"
            parts.append(f"[counter {value.counter}; {locks}]{applying}")
        elif isinstance(value, Submission):
            parts.append(f"{name_of(value.change_set.id)} of {value.source}")
        elif isinstance(value, LockAnswer | PathOutcome):
            parts.append(type(value).__name__)
        elif isinstance(value, ChangeAnswer):
            outcomes = ", ".join(f"{each.path.decode()} {each.kind.value}" for each in value.outcomes)
            parts.append(f"{name_of(value.id)}: {outcomes}")
        elif isinstance(value, tuple) and value and isinstance(value[0], PathOutcome):
            parts.append(", ".join(f"{each.path.decode()} {each.kind.value}" for each in value))
        elif name == "id":
            parts.append(name_of(value))
    return " ".join(parts)


def name_of(id_: Digest) -> str:
    return {SET.id: "SET"}.get(id_, id_.hex()[:6])


SET = ChangeSet(
    1, LINE.fileset, LINE.origin, bytes(16), "ana", "new bounds", WALL_MS,
    (change(b"a", "old", "new"), change(b"b", "old", "new")), Fence(1, 1, b"i" * 16),
)  # fmt: skip


def started() -> HomeDialogue:
    return HomeDialogue().say(h.HomeStarted("boot", 1, ref(1), 10))


def locked(d: HomeDialogue) -> HomeDialogue:
    d.say(h.LockAsked(1, S1, ANA, b"a", OLD.digest, 60_000, b"i" * 16))
    return d.say(h.LiveRead(d.asked(h.ReadLive), (LivePath(b"a", OLD),)))


def applied(d: HomeDialogue) -> HomeDialogue:
    d.say(h.Submitted(2, Submission(S1, SET, releases=True)))
    d.say(h.LookedUp(d.asked(h.LookUp), None))
    return d.say(h.ContentsHere(d.asked(h.FetchOffered)))


OUTCOMES = (
    PathOutcome(b"a", OutcomeKind.APPLIED),
    PathOutcome(b"b", OutcomeKind.OUTDATED, a_file(b"b", "x")),
)


def test_from_a_lock_to_the_change_that_releases_it() -> None:
    d = applied(locked(started()))
    d.say(h.LockAsked(3, S2, BOB, b"a", OLD.digest, 60_000, b"j" * 16))
    d.say(h.ChangesApplied(d.pending("ApplyChanges"), OUTCOMES))
    d.say(h.PathsPublished(d.asked(h.PublishPaths), ref(2)))
    d.check("home_lock_and_change")


def test_a_crash_behind_the_switch_is_answered_from_the_journal() -> None:
    d = applied(locked(started()))
    d.lines.append("         the home ends here and starts again")
    again = HomeDialogue(d.machine.facts)
    again.lines = d.lines
    again.at(90_000).say(h.HomeStarted("another boot", 1, ref(1), 10))
    again.say(h.LookedUp(again.asked(h.LookUp), None))
    again.say(h.ChangesRecovered(again.asked(h.RecoverChanges), Submission(S1, SET, True), (), OUTCOMES))
    again.say(h.PathsPublished(again.asked(h.PublishPaths), ref(2)))
    again.check("home_crash")


def test_a_lock_that_lapses_is_reported_and_its_token_gets_the_reason() -> None:
    d = locked(started())
    d.at(70_000).say(TimerFired("lock-end"))
    d.say(h.RefreshAsked(4, S1, b"a", Fence(1, 1, b"i" * 16)))
    d.check("home_lapse")


def test_a_steal_while_the_owner_saves() -> None:
    """The owner's set is being applied: the steal waits for it, and then stands for the new file."""
    d = applied(locked(started()))
    d.say(
        h.BreakAsked(
            5, MAIN, BOB, b"a", "on holiday", True, True, 60_000, b"k" * 16, a_file(b"a", "new").digest
        )
    )
    assert not any(isinstance(effect, h.ReadLive) for effect in d.effects)
    d.say(h.ChangesApplied(d.pending("ApplyChanges"), OUTCOMES))
    read = d.asked(h.ReadLive)
    d.say(h.LiveRead(read, (LivePath(b"a", a_file(b"a", "new")),)))
    answer = next(effect.answer for effect in d.effects if isinstance(effect, h.ReplyLock))
    assert isinstance(answer, LockGranted)
    assert answer.base == a_file(b"a", "new")
    assert d.machine.facts.ended[-1].why is LockEnd.STOLEN
    d.check("home_steal")
