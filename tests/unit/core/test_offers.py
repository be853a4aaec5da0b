"""Edits in a followed tree: brought to the home, taken back from it, set aside where they lose, and never lost."""

from __future__ import annotations

import pytest

from instep.core.changes import home_vocabulary as h
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.home_facts import TOO_OLD_MS
from instep.core.guards.guards import DeletionPolicy
from instep.core.vocabulary import Note, Trouble
from instep.errors import Retry
from instep.model.ids import NodeName
from tests.support.change_editor import CUT, ChangeEditor, beside
from tests.support.change_home import S2, ChangeHome, PowerLost, a_file, change
from tests.support.vectors import digest


def test_an_edit_goes_to_the_home_and_comes_back_as_a_generation() -> None:
    home, s1 = beside()
    s1.write(b"a", "new")
    assert home.text(b"a") == digest("new")
    assert s1.states == {b"a": "accepted"}
    s1.deliver()
    assert s1.states == {}
    assert s1.texts[b"a"] == digest("new")
    assert not s1.disk.archive
    assert not s1.disk.drift_archived


def test_a_hundred_accepted_edits_leave_nothing_in_the_archive() -> None:
    home, s1 = beside()
    for number in range(100):
        s1.write(b"a", f"edit {number}")
        if number % 3 == 0:
            s1.deliver()
    s1.deliver()
    assert home.text(b"a") == digest("edit 99")
    assert (s1.disk.archive, s1.disk.drift_archived) == ([], [])
    assert not [each for each in home.disk.accepted if each.change.base != each.was]


def test_all_that_waits_is_one_request_and_nothing_is_asked_when_nothing_changed() -> None:
    _, s1 = beside()
    for number in range(300):
        s1.write(b"f%03d" % number, "x", looks=False)
    s1.look()
    assert s1.count(o.SubmitOffer) == 1
    s1.look()
    s1.deliver()
    s1.look()
    assert s1.count(o.SubmitOffer) == 1


def test_more_than_fits_is_offered_in_an_order_that_holds_at_every_moment() -> None:
    home, s1 = beside(deletions=DeletionPolicy(count=5_000))
    home.config = home.config.__class__(
        home.config.node, home.config.offers_from, DeletionPolicy(count=5_000)
    )
    home.start()
    for number in range(1_050):
        s1.write(b"f%04d" % number, "x", looks=False)
    s1.look()
    assert s1.count(o.SubmitOffer) == 2
    assert len(home.disk.tree) == 1_053
    s1.deliver()
    for number in range(1_050):
        s1.write(b"f%04d" % number, None, looks=False)
    s1.look()
    assert len(home.disk.tree) == 3


def test_an_edit_that_comes_too_late_is_in_the_archive_and_the_homes_file_is_back() -> None:
    home, s1 = beside()
    home.disk.edit(b"a", a_file(b"a", "by the home"))
    s1.write(b"a", "mine")
    assert s1.texts[b"a"] == digest("old"), "the tree's generation, until the next one arrives"
    assert s1.disk.archive == [a_file(b"a", "mine")]
    note = s1.last(Note)
    assert note.what == "edit_set_aside"
    assert ("outcome", "outdated") in note.facts
    s1.deliver()
    assert s1.texts[b"a"] == digest("by the home")
    assert home.text(b"a") == digest("by the home")


def test_two_nodes_that_change_one_file_at_once() -> None:
    home = ChangeHome()
    s1, s2 = ChangeEditor(home, "s1"), ChangeEditor(home, "s2")
    s1.write(b"a", "one")
    s2.write(b"a", "two")
    for editor in (s1, s2):
        editor.deliver()
    assert s1.texts == s2.texts == {path: entry.digest for path, entry in home.disk.tree.items()}
    assert home.text(b"a") == digest("one")
    assert s2.disk.archive == [a_file(b"a", "two")]
    assert not s1.disk.archive


def test_a_further_edit_of_an_accepted_path_builds_on_the_accepted_one() -> None:
    home, s1 = beside()
    s1.write(b"a", "one")
    s1.write(b"a", "two")
    s1.write(b"a", None)
    s1.write(b"a", "three")
    assert home.text(b"a") == digest("three")
    assert not s1.disk.archive
    s1.deliver()
    assert s1.states == {}


def test_an_edit_while_the_home_is_being_asked_is_offered_next() -> None:
    home, s1 = beside()
    s1.holds = {o.SubmitOffer}
    s1.write(b"a", "one")
    sent = s1.last(o.SubmitOffer)
    s1.write(b"a", "two")
    assert s1.count(o.SubmitOffer) == 1
    s1.holds = set()
    answer = home.submit(sent.change_set)
    s1.say(o.OfferAnswered(sent.req, answer))
    assert home.text(b"a") == digest("two")


def test_a_lost_answer_changes_nothing_twice() -> None:
    home, s1 = beside()
    s1.loses = True
    s1.write(b"a", "new")
    assert home.text(b"a") == digest("new")
    assert s1.states == {b"a": "offered"}
    home.disk.edit(b"a", a_file(b"a", "old"))
    s1.mend()
    assert s1.states == {b"a": "accepted"}
    assert home.text(b"a") == digest("old"), "the home took it back meanwhile"
    s1.deliver()
    assert len(home.disk.accepted) == 1
    assert s1.texts[b"a"] == digest("old")
    assert s1.states == {}


def test_an_accepted_edit_that_another_node_changed_again_is_not_offered_anew() -> None:
    home, s1 = beside()
    s1.write(b"a", "mine")
    assert home.changes(change(b"a", "mine", "theirs"), source=S2) == ["applied"]
    s1.deliver()
    assert s1.texts[b"a"] == home.text(b"a") == digest("theirs")
    assert len(home.disk.accepted) == 2
    assert s1.states == {}


@pytest.mark.parametrize("is_locked", [False, True])
def test_a_home_whose_files_have_an_owner_that_is_not_kept_here(is_locked: bool) -> None:
    """The home says what it made of the change, so that the next edit begins there, and nothing is offered twice."""
    home, s1 = beside()
    home.disk.owner = "www-data"
    if is_locked:
        s1.locks()
    for text in ("one", "two"):
        s1.write(b"a", text)
        home.say(h.OwnEdit((b"a",)))
        s1.look()
    assert (home.text(b"a"), s1.count(o.SubmitOffer)) == (digest("two"), 2)
    s1.deliver()
    s1.write(b"a", "three")
    s1.deliver()
    if is_locked:
        s1.releases()
    assert (home.text(b"a"), s1.count(o.SubmitOffer)) == (digest("three"), 3)
    assert (s1.states, s1.disk.archive, s1.disk.drift_archived) == ({}, [], [])


def test_an_edit_whose_publish_is_held_back_waits_for_a_newer_generation_and_no_longer() -> None:
    home, s1 = beside()
    home.held[h.PublishPaths] = True
    s1.holds = {o.SubmitOffer}
    s1.write(b"a", "mine")
    sent = s1.last(o.SubmitOffer)
    home.submit(sent.change_set)
    home.say(h.PathsPublished(home.last(h.PublishPaths).req, None, "publish = manual"))
    answer = home.replies[1]
    assert (answer.head, answer.above) == (None, home.disk.head)
    s1.holds = set()
    s1.say(o.OfferAnswered(sent.req, answer))
    s1.say(s1.disk.reached())
    s1.look()
    assert s1.states == {b"a": "accepted"}
    home.disk.edit(b"a", a_file(b"a", "old"))  # The very file of before lies there again.
    home.disk.edit(b"b", a_file(b"b", "newer"))
    s1.deliver()
    s1.look()
    assert s1.states == {}
    assert s1.texts[b"a"] == digest("old")
    assert len(home.disk.accepted) == 1


def test_a_generation_that_is_faster_than_the_answer() -> None:
    home, s1 = beside()
    s1.holds = {o.SubmitOffer}
    s1.write(b"a", "mine")
    sent = s1.last(o.SubmitOffer)
    answer = home.submit(sent.change_set)
    assert home.changes(change(b"a", "mine", "theirs"), source=S2) == ["applied"]
    s1.deliver()
    assert s1.states == {b"a": "offered"}
    s1.holds = set()
    s1.say(o.OfferAnswered(sent.req, answer))
    s1.set_aside()
    assert s1.texts[b"a"] == home.text(b"a") == digest("theirs")
    assert s1.states == {}


def test_a_lock_that_is_let_go_does_not_bring_an_old_file_back() -> None:
    home, s1 = beside()
    s1.locks()
    home.disk.edit(b"a", a_file(b"a", "by a program there"))
    home.effects.clear()
    s1.say(s1.disk.apply(home.disk.publish(), home.disk.published[-1]))
    s1.releases()
    s1.look()
    assert s1.texts[b"a"] == home.text(b"a") == digest("by a program there")
    assert s1.states == {}


def test_edits_wait_for_the_home_and_one_that_was_taken_back_is_not_offered() -> None:
    home, s1 = beside()
    s1.cut()
    s1.write(b"a", "new")
    s1.write(b"b", "new")
    s1.write(b"b", "old")
    assert s1.states == {b"a": "waiting"}
    s1.mend()
    assert home.text(b"a") == digest("new")
    assert [each.change.path for each in home.disk.accepted] == [b"a"]


def test_an_edit_that_was_taken_back_does_not_undo_what_the_home_did_meanwhile() -> None:
    home, s1 = beside()
    s1.cut()
    s1.write(b"a", "mine")
    home.disk.edit(b"a", a_file(b"a", "by the home"))
    s1.deliver()
    assert s1.texts[b"a"] == digest("mine"), "no apply touches it"
    s1.write(b"a", "old")
    s1.look()
    assert s1.texts[b"a"] == digest("by the home")
    s1.mend()
    s1.look()
    assert home.text(b"a") == digest("by the home")
    assert not home.disk.accepted


def test_a_failed_submission_is_sent_again_under_its_id_with_pauses() -> None:
    home, s1 = beside()
    s1.cut()
    s1.is_cut = True
    s1.say(o.HomeUp())
    s1.write(b"a", "new")
    s1.pass_time(10_000)
    tries = s1.count(o.SubmitOffer)
    assert 3 <= tries <= 12
    assert s1.last(o.ReportOffers).trouble == CUT
    assert len({effect.id for effect in s1.effects if isinstance(effect, o.SubmitOffer)}) == 1
    s1.mend()
    assert home.text(b"a") == digest("new")
    assert s1.last(o.ReportOffers).trouble is None


def test_contents_that_changed_before_the_home_had_them_begin_a_new_set() -> None:
    home, s1 = beside()
    s1.holds = {o.SubmitOffer}
    s1.write(b"a", "one")
    first = s1.last(o.SubmitOffer)
    s1.write(b"a", "two", looks=False)
    s1.say(o.OfferFailed(first.req, Trouble("contents_gone", "it is another file by now")))
    s1.holds = set()
    s1.pass_time(2_000)
    assert home.text(b"a") == digest("two")
    assert s1.last(o.SubmitOffer).id != first.id


def test_a_home_that_takes_nothing_from_here_leaves_the_edits_in_place() -> None:
    home = ChangeHome()
    s3 = ChangeEditor(home, "s3")
    s3.write(b"a", "new")
    assert s3.states == {b"a": "waiting"}
    trouble = s3.last(o.ReportOffers).trouble
    assert (trouble.code, trouble.retry) == ("not_allowed", Retry.NEVER)
    s3.pass_time(600_000)
    assert s3.count(o.SubmitOffer) == 1, "it is not asked again before something is changed"
    home.say(h.HomeConfigChanged(home.config.__class__(home.config.node, (NodeName("s3"),))))
    s3.say(o.OffersRetried())
    assert home.text(b"a") == digest("new")


def test_a_set_that_grew_old_while_the_home_was_away_is_made_anew() -> None:
    home, s1 = beside()
    s1.holds = {o.SubmitOffer}
    s1.write(b"a", "new")
    s1.holds = set()
    s1.cut()
    s1.start()
    s1.pass_time(TOO_OLD_MS + 10)
    s1.mend()
    s1.pass_time(60_000)
    assert home.text(b"a") == digest("new")


def test_clocks_that_are_days_apart_are_named_and_nothing_goes_in_circles() -> None:
    home, s1 = beside()
    s1.cut()
    s1.write(b"a", "new")
    home.wall += 2 * TOO_OLD_MS
    s1.clock_behind_ms = 2 * TOO_OLD_MS
    s1.mend()
    assert s1.last(o.ReportOffers).trouble.code == "clocks_apart"
    s1.pass_time(600_000)
    assert s1.count(o.SubmitOffer) == 1
    assert s1.texts[b"a"] == digest("new")


@pytest.mark.parametrize("is_locked", [False, True])
def test_the_power_may_fail_at_every_effect_and_the_end_is_the_same(is_locked: bool) -> None:
    power, cuts = 0, 0
    while True:
        home, s1 = beside()
        if is_locked:
            s1.locks()
        home.disk.edit(b"c", a_file(b"c", "by the home"))
        for path, text in ((b"a", "new"), (b"b", None), (b"c", "mine")):
            s1.write(path, text, looks=False)
        s1.power = power
        is_cut = False
        try:
            s1.look()
            s1.deliver()
        except PowerLost:
            is_cut = True
        s1.power = None
        s1.start()
        s1.look()
        s1.deliver()
        s1.look()
        if is_locked:
            s1.releases()
            s1.deliver()
        assert s1.texts == {b"a": digest("new"), b"c": digest("by the home")}, power
        assert [each.change.path for each in home.disk.accepted if each.change.path != b"b"] == [b"a"], power
        assert s1.disk.archive == [a_file(b"c", "mine")], power
        assert (s1.states, s1.disk.drift_archived) == ({}, []), power
        if not is_cut:
            break
        power, cuts = power + 1, cuts + 1
    assert cuts > 8


def test_a_change_by_another_node_is_never_taken_for_ours() -> None:
    home, s1 = beside()
    s1.cut()
    s1.write(b"a", "same words")
    assert home.changes(change(b"a", "old", "same words"), source=S2) == ["applied"]
    s1.mend()
    assert s1.states == {b"a": "accepted"}
    s1.deliver()
    assert s1.states == {}
