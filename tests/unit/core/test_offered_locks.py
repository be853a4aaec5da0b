"""Locks of programs at a node that follows: owned before they are answered, submitted, released, lost."""

from __future__ import annotations

import pytest

from instep.core.changes import home_vocabulary as h
from instep.core.changes import offer_vocabulary as o
from instep.core.vocabulary import Note, Trouble
from instep.model.change import ChangeAnswer, Fence, OutcomeKind, PathOutcome
from instep.model.lock import (
    LockDenied,
    LockEnd,
    LockEnded,
    LockGone,
    LockGranted,
    LockOutdated,
    LockOwner,
)
from tests.support.change_editor import CUT, ChangeEditor, beside
from tests.support.change_home import ANA, BOB, S1, PowerLost, a_file
from tests.support.vectors import digest


def test_saves_under_a_lock_are_submitted_and_the_release_says_what_became_of_the_last() -> None:
    home, s1 = beside()
    s1.locks()
    assert s1.states == {b"a": "editing"}
    s1.write(b"a", "one")
    assert home.text(b"a") == digest("one")
    assert s1.states == {b"a": "editing"}
    s1.deliver()
    s1.write(b"a", "two", looks=False)
    done = s1.releases()
    assert done is not None
    assert done.answer == LockEnded(b"a", LockEnd.RELEASED)
    assert done.outcome is not None
    assert done.outcome.kind.value == "applied"
    assert done.head == home.disk.head
    assert home.text(b"a") == digest("two")
    assert not home.machine.facts.locks
    assert s1.states == {b"a": "accepted"}
    s1.deliver()
    assert s1.states == {}
    assert (s1.disk.archive, s1.disk.drift_archived) == ([], [])


def test_a_release_of_an_unchanged_file_only_unlocks() -> None:
    home, s1 = beside()
    fence = s1.locks()
    done = s1.releases(fence=fence)
    assert done is not None
    assert (done.answer, done.outcome) == (LockEnded(b"a", LockEnd.RELEASED), None)
    assert (s1.states, home.disk.accepted) == ({}, [])
    again = s1.releases(fence=fence)
    assert again is not None
    assert isinstance(again.answer, LockGone)


def test_without_offers_only_locked_paths_are_owned() -> None:
    home, s1 = beside(offers=False)
    s1.locks()
    s1.write(b"a", "locked")
    s1.write(b"b", "drift")
    assert s1.states == {b"a": "editing"}
    assert (home.text(b"a"), home.text(b"b")) == (digest("locked"), digest("old"))


def test_a_path_is_owned_before_its_lock_is_answered_whenever_the_power_fails() -> None:
    for power in range(12):
        home, s1 = beside()
        s1.power = power
        try:
            answer = s1.wants()
        except PowerLost:
            answer = s1.given.get(1)
        s1.power = None
        s1.start()
        if answer is not None:
            assert s1.states == {b"a": "editing"}, power
        s1.write(b"a", "new")
        assert home.text(b"a") in (digest("new"), digest("old")), power
        assert home.text(b"a") == digest("new") or s1.disk.archive, "not lost"


def test_two_programs_here_do_not_share_a_lock_and_a_refusal_says_which_advice() -> None:
    home, s1 = beside()
    s1.locks()
    denied = s1.wants(owner=LockOwner(S1, "ana", "portal"))
    assert isinstance(denied, LockDenied)
    assert denied.owner == ANA
    home.disk.edit(b"b", a_file(b"b", "newer"))
    assert isinstance(s1.wants(b"b"), LockOutdated)
    s1.cut()
    away = s1.wants(b"c")
    assert isinstance(away, Trouble)
    assert away.code == "home_unreachable"


def test_a_lock_that_ends_while_the_file_is_changed_falls_to_compare_and_set() -> None:
    home, s1 = beside()
    s1.locks(ttl_ms=5_000)
    s1.cut()
    s1.write(b"a", "after lunch")
    s1.pass_time(5_000)
    assert s1.states == {b"a": "waiting"}
    s1.pass_time(10_000)
    s1.mend()
    assert home.text(b"a") == digest("after lunch")
    s1.deliver()
    assert s1.states == {}


def test_a_lock_that_ended_before_another_changed_the_file_says_expired() -> None:
    home, s1 = beside()
    s1.locks(ttl_ms=5_000)
    s1.cut()
    s1.write(b"a", "after lunch")
    s1.pass_time(15_000)
    home.disk.edit(b"a", a_file(b"a", "by another"))
    s1.mend()
    s1.set_aside()
    assert ("outcome", "expired") in s1.last(Note).facts
    assert ("code", "lapsed") in s1.last(Note).facts
    assert s1.disk.archive == [a_file(b"a", "after lunch")]


def test_a_broken_lock_is_heard_of_and_the_edit_is_judged_as_without_it() -> None:
    home, s1 = beside()
    s1.locks()
    s1.write(b"a", "mine", looks=False)
    operator = LockOwner(home.config.node, "root")
    home.ask(
        lambda req: h.BreakAsked(
            req, home.config.node, operator, b"a", "on holiday", True, True, 60_000, b"i" * 16
        )
    )
    s1.deliver()
    assert any(note.what == "lock_lost" for note in s1.effects if isinstance(note, Note))
    assert ("outcome", "locked") in s1.last(Note).facts
    assert s1.disk.archive == [a_file(b"a", "mine")]
    assert home.text(b"a") == digest("old")
    assert s1.states == {}


@pytest.mark.parametrize("is_news", [False, True])
def test_a_grant_whose_answer_comes_too_late_is_none(is_news: bool) -> None:
    """The home's file may be another one here by then, and nothing of it is an edit."""
    home, s1 = beside()
    s1.holds = {o.AskLock}
    assert s1.wants(ttl_ms=5_000) is None
    asked = s1.last(o.AskLock)
    granted = home.ask(lambda req: h.LockAsked(req, S1, ANA, b"a", asked.wanted.base, 5_000, b"i" * 16))
    home.disk.edit(b"a", a_file(b"a", "by the home"))
    if is_news:
        s1.say(o.LockNews(b"a", granted.fence, LockGone(LockEnd.HOME_EDIT, "main")))
    else:
        s1.pass_time(9_000)
    s1.deliver()
    s1.say(o.LockAnswered(asked.req, granted))
    given = s1.given[1].answer
    assert isinstance(given, LockGone)
    assert given.why is (LockEnd.HOME_EDIT if is_news else LockEnd.LAPSED)
    s1.look()
    assert (s1.states, s1.machine.facts.held) == ({}, ())
    assert s1.texts[b"a"] == home.text(b"a") == digest("by the home")


def test_a_look_at_an_older_generation_lets_no_path_go() -> None:
    """It saw no difference, and a newer generation came before its answer, which no apply laid at the owned path."""
    home, s1 = beside()
    s1.locks(ttl_ms=5_000)
    s1.holds = {o.LookAtPaths}
    s1.pass_time(5_000)
    look = s1.disk.perform(s1.last(o.LookAtPaths))
    home.pass_time(5_000)
    home.disk.edit(b"a", a_file(b"a", "by the home"))
    s1.say(s1.disk.apply(home.disk.publish(), home.disk.published[-1]))
    s1.holds = set()
    s1.say(look)
    s1.pass_time(2_000)
    s1.look()
    assert s1.states == {}
    assert s1.texts[b"a"] == home.text(b"a") == digest("by the home")
    assert not home.disk.accepted


def test_a_grant_for_a_file_that_was_set_aside_meanwhile_is_given_back() -> None:
    """The removed file was restored while its lock was asked for: the old file is no edit under that lock."""
    home, s1 = beside()
    home.disk.edit(b"a", None)
    s1.holds = {o.SubmitOffer, o.AskLock}
    s1.write(b"a", None)
    sent = s1.last(o.SubmitOffer)
    assert s1.wants() is None
    asked = s1.last(o.AskLock)
    s1.holds = set()
    refused = PathOutcome(b"a", OutcomeKind.REFUSED, code="max_deletions")
    s1.say(o.OfferAnswered(sent.req, ChangeAnswer(sent.id, (refused,))))
    s1.set_aside()
    granted = home.ask(lambda req: h.LockAsked(req, S1, ANA, b"a", asked.wanted.base, 60_000, b"i" * 16))
    s1.say(o.LockAnswered(asked.req, granted))
    assert isinstance(s1.given[1].answer, LockOutdated)
    assert not home.machine.facts.locks
    s1.deliver()
    assert (s1.states, s1.machine.facts.held, home.disk.accepted) == ({}, (), [])


def test_a_stolen_lock_from_here_to_here() -> None:
    home, s1 = beside()
    first = s1.locks()
    portal = LockOwner(S1, "ana", "portal")
    second = s1.locks(owner=portal, steals=True)
    assert second.counter == first.counter + 1
    assert [held.owner for held in s1.machine.facts.held] == [portal]
    s1.deliver()
    s1.write(b"a", "new")
    assert home.text(b"a") == digest("new")


def test_a_release_while_the_home_is_away_is_answered_and_happens_later() -> None:
    home, s1 = beside()
    s1.locks()
    s1.loses = True
    s1.write(b"a", "new", looks=False)
    done = s1.releases()
    assert done is not None
    assert done.trouble == CUT
    s1.mend()
    assert home.text(b"a") == digest("new")
    assert not home.machine.facts.locks
    assert not s1.machine.facts.held
    s1.deliver()
    assert s1.states == {}


def test_after_another_boot_the_edit_goes_on_without_the_lock() -> None:
    home, s1 = beside()
    s1.locks()
    s1.cut()
    s1.write(b"a", "new")
    s1.boot_id = "boot 2"
    s1.is_cut = False
    s1.start()
    assert home.text(b"a") == digest("new"), "under the token that is still good at the home"
    s1.deliver()
    assert s1.states == {}


def test_a_refused_edit_gives_its_lock_back() -> None:
    home, s1 = beside()
    s1.locks()
    home.disk.edit(b"a", a_file(b"a", "by a program there"))
    s1.write(b"a", "mine")
    assert s1.disk.archive == [a_file(b"a", "mine")]
    assert not s1.machine.facts.held
    assert not home.machine.facts.locks
    s2 = ChangeEditor(home, "s2")
    assert not isinstance(s2.wants(owner=BOB), LockDenied)


def test_a_lock_that_is_gone_says_why_to_the_end() -> None:
    """Goal: a release, and a refresh by the token, behind a break, a lapse and a restart: the reason and the person, and no
    new lock."""
    home, s1 = beside()
    fence = s1.locks()
    operator = LockOwner(home.config.node, "root")
    home.ask(lambda req: h.BreakAsked(req, home.config.node, operator, b"a", "mine", True))
    s1.deliver()
    s1.start()
    why = LockGone(LockEnd.BROKEN, str(operator), "mine")
    for given in (s1.releases(), s1.releases(fence=fence)):
        assert given is not None and given.answer == why
    assert s1.wants(fence=fence) == why
    assert s1.machine.facts.held == () and home.machine.facts.locks == ()
    again = s1.locks(ttl_ms=5_000)
    assert isinstance(s1.wants(fence=again, ttl_ms=5_000), LockGranted)
    s1.pass_time(60_000)
    assert s1.wants(fence=again) == LockGone(LockEnd.LAPSED)
    assert s1.wants(fence=Fence(1, 99, b"x" * 16)) == LockGone(LockEnd.UNKNOWN)


def test_a_lock_that_was_broken_while_the_link_was_cut_says_why() -> None:
    """Goal: no word of its end came, so the home is asked by the token, and grants nothing anew."""
    home, s1 = beside()
    fence = s1.locks()
    operator = LockOwner(home.config.node, "root")
    home.ask(lambda req: h.BreakAsked(req, home.config.node, operator, b"a", "mine", True))
    assert s1.wants(fence=fence) == LockGone(LockEnd.BROKEN, str(operator), "mine")
    assert home.machine.facts.locks == ()
