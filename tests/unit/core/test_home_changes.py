"""Change sets at a home: made once, against what lies there, and answered alike however often they come."""

from __future__ import annotations

import msgspec
import pytest

from instep.core import vocabulary as w
from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_admission import removals_of
from instep.core.changes.home_facts import TOO_OLD_MS
from instep.core.guards.guards import DeletionPolicy
from instep.errors import Retry
from instep.model.change import PathChange
from instep.model.ids import FilesetName, NodeName
from instep.model.lock import LockDenied, LockGranted
from tests.support.change_home import (
    ANA,
    BOB,
    DAY_MS,
    MAIN,
    S1,
    S2,
    ChangeHome,
    a_dir,
    a_file,
    change,
    kinds,
)  # fmt: skip
from tests.support.vectors import digest


def test_a_change_is_made_where_the_file_is_what_its_author_saw() -> None:
    home = ChangeHome()
    home.disk.edit(b"c", a_file(b"c", "by a program here"))
    answer = home.submit(
        home.change_set(
            change(b"a", "old", "new"), change(b"b", "newer", "newest"), change(b"c", "old", "by a program here"),
            change(b"d", None, "born"), change(b"e", "gone before", None),
        )
    )  # fmt: skip
    assert kinds(answer) == ["applied", "outdated", "same", "applied", "same"]
    assert answer.outcomes[1].entry == a_file(b"b", "old"), "the author sees what to fetch"
    assert (home.text(b"a"), home.text(b"b")) == (digest("new"), digest("old"))
    assert answer.head == home.disk.head
    assert home.disk.published[-1][b"a"] == a_file(b"a", "new")
    assert home.disk.archive == [a_file(b"a", "old")]


def test_all_or_nothing_where_the_author_wants_that() -> None:
    home = ChangeHome()
    late = change(b"b", "newer", "newest")
    answer = home.submit(home.change_set(change(b"a", "old", "new"), late, whole=True))
    assert kinds(answer) == ["refused", "outdated"]
    assert answer.outcomes[0].code == "not_whole"
    home.granted(BOB, b"c")
    answer = home.submit(home.change_set(change(b"a", "old", "new"), change(b"c", "old", "new"), whole=True))
    assert kinds(answer) == ["refused", "locked"]
    assert answer.head is None
    assert home.text(b"a") == digest("old")
    assert home.changes(change(b"a", "old", "new"), change(b"b", "old", "new"), whole=True) == [
        "applied",
        "applied",
    ]


def test_the_same_set_is_made_once_and_answered_alike_for_ever() -> None:
    home = ChangeHome()
    made = home.change_set(change(b"a", "old", "new"))
    first = home.submit(made)
    home.disk.edit(
        b"a", a_file(b"a", "old")
    )  # A program at the home takes it back: the base is right once more.
    assert home.submit(made) == first
    assert home.text(b"a") == digest("old")
    home.start()
    home.pass_time(TOO_OLD_MS - 1)
    assert home.submit(made) == first
    assert len(home.disk.accepted) == 1


def test_a_set_that_comes_again_while_it_is_under_way_waits_for_the_same_answer() -> None:
    home = ChangeHome()
    home.held[h.PublishPaths] = True
    made = home.change_set(change(b"a", "old", "new"))
    assert home.submit(made) is None
    assert home.submit(made) is None
    home.say(home.disk.perform(home.last(h.PublishPaths)))
    assert kinds(home.replies[1]) == ["applied"]
    assert home.replies[1] == home.replies[2]
    assert len(home.disk.accepted) == 1


@pytest.mark.parametrize("limits", [{"sets_kept": 2}, {"bytes_kept": 150}])
def test_a_node_of_which_too_much_is_kept_waits_and_is_told_why(limits: dict[str, int]) -> None:
    """Goal: a set that was answered has its answer again, and other nodes and the home itself go on."""
    home = ChangeHome(**limits)
    known = home.change_set(change(b"a", "old", "one"))
    answer = home.submit(known)
    home.submit(home.change_set(change(b"a", "one", "two")))
    refused = home.submit(home.change_set(change(b"a", "two", "three")))
    assert (refused.code, refused.retry, refused.exit_code) == ("changes_kept_full", Retry.LATER, 7)
    assert "2 change sets of s1" in refused.reason and "7 days" in refused.reason
    assert home.text(b"a") == digest("two") and len(home.disk.answers) == 2
    assert home.submit(known) == answer
    for node, text in ((S2, "three"), (MAIN, "four"), (MAIN, "five"), (MAIN, "six")):
        before = {"three": "two", "four": "three", "five": "four", "six": "five"}[text]
        assert kinds(home.submit(home.change_set(change(b"a", before, text)), node)) == ["applied"]


def test_an_id_that_may_be_forgotten_is_refused_and_so_is_a_clock_of_tomorrow() -> None:
    home = ChangeHome()
    for made_at, code in ((home.wall - TOO_OLD_MS - 1, "too_old"), (home.wall + DAY_MS + 1, "too_new")):
        answer = home.submit(home.change_set(change(b"a", "old", "new"), made_at_ms=made_at))
        assert kinds(answer) == ["refused"]
        assert answer.outcomes[0].code == code
    assert home.changes(change(b"a", "old", "new"), made_at_ms=home.wall - TOO_OLD_MS) == ["applied"]


def test_who_is_not_listed_changes_nothing_and_the_home_itself_may() -> None:
    home = ChangeHome()
    refused = home.submit(home.change_set(change(b"a", "old", "new")), NodeName("s3"))
    assert (refused.code, refused.retry, refused.exit_code) == ("not_allowed", Retry.NEVER, 5)
    foreign = msgspec.structs.replace(
        home.change_set(change(b"a", "old", "new")), fileset=FilesetName("other")
    )
    assert home.submit(foreign).code == "wrong_line"
    assert not home.disk.answers, "nothing is remembered for strangers"
    assert home.changes(change(b"a", "old", "new"), source=MAIN) == ["applied"]


# --- locks ----------------------------------------------------------------------------------------------------------


def test_a_lock_keeps_out_every_change_without_its_token_and_only_its_node_has_the_token() -> None:
    home = ChangeHome()
    fence = home.granted(ANA, reason="new bounds")
    answer = home.submit(home.change_set(change(b"a", "old", "new"), change(b"b", "old", "new")), S2)
    assert kinds(answer) == ["locked", "applied"]
    assert (answer.outcomes[0].owner, answer.outcomes[0].left_ms) == (str(ANA), 70_000)
    assert home.changes(change(b"a", "old", "new"), token=fence, source=S2) == ["locked"]
    assert home.changes(change(b"a", "old", "new"), source=MAIN) == ["locked"]
    assert home.changes(change(b"a", "old", "new"), token=fence) == ["applied"]


def test_a_lock_also_keeps_its_directory() -> None:
    home = ChangeHome()
    home.disk.edit(b"d", a_dir(b"d"))
    home.disk.edit(b"d/x", a_file(b"d/x", "old"))
    home.granted(ANA, b"d/x")
    away = (PathChange(b"d", a_dir(b"d"), None), change(b"d/x", "old", None))
    assert home.changes(*away, source=S2) == ["locked", "locked"]
    turned = (PathChange(b"d", a_dir(b"d"), a_file(b"d", "file")), change(b"d/x", "old", None))
    assert home.changes(*turned, source=S2) == ["locked", "locked"]
    chmod = msgspec.structs.replace(a_dir(b"d"), mode=0o700)
    assert home.changes(PathChange(b"d", a_dir(b"d"), chmod), source=S2) == ["applied"]
    assert home.changes(change(b"d-x", None, "beside"), source=S2) == ["applied"]


def test_saves_under_one_lock_follow_each_other() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    for before, after in (("old", "one"), ("one", "two"), ("two", None), (None, "three")):
        assert home.changes(change(b"a", before, after), token=fence) == ["applied"]
        home.say(h.OwnEdit((b"a",)))
    assert [lock.fence for lock in home.machine.facts.locks] == [fence], "one's own saves do not end the lock"


def test_submit_and_release_is_one_act() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    made = home.change_set(change(b"a", "old", "new"), token=fence)
    assert kinds(home.submit(made, releases=True)) == ["applied"]
    assert isinstance(home.lock(BOB, seen="new"), LockGranted)
    assert kinds(home.submit(made, releases=True)) == ["applied"], "the answer that was lost, again"
    assert isinstance(home.lock(ANA, seen="new"), LockDenied)


def test_a_save_after_lunch_is_made_when_nothing_happened_and_expired_when_something_did() -> None:
    home = ChangeHome()
    early, late = home.granted(ANA, b"a"), home.granted(ANA, b"b")
    home.pass_time(3 * 60_000)
    assert home.changes(change(b"a", "old", "new"), token=early) == ["applied"]
    home.disk.edit(b"b", a_file(b"b", "by another"))
    answer = home.submit(home.change_set(change(b"b", "old", "new"), token=late))
    assert kinds(answer) == ["expired"]
    assert (answer.outcomes[0].code, answer.outcomes[0].entry) == ("lapsed", a_file(b"b", "by another"))
    assert home.text(b"b") == digest("by another")


def test_a_save_after_another_took_the_lock_is_locked_out() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    home.pass_time(3 * 60_000)
    home.granted(BOB)
    answer = home.submit(home.change_set(change(b"a", "old", "new"), token=fence))
    assert kinds(answer) == ["locked"]
    assert answer.outcomes[0].owner == str(BOB)


def test_what_was_refused_during_a_lock_is_never_made_later() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    gone = home.change_set(change(b"a", "old", None))
    assert kinds(home.submit(gone, S2)) == ["locked"]
    home.ask(lambda req: h.ReleaseAsked(req, S1, b"a", fence))
    assert kinds(home.submit(gone, S2)) == ["locked"], "a duplicate of it neither"
    assert home.text(b"a") == digest("old")


def test_a_lock_that_is_granted_while_contents_come_counts() -> None:
    home = ChangeHome()
    home.held[h.FetchOffered] = True
    assert home.submit(home.change_set(change(b"a", "old", "new")), S2) is None
    home.granted(ANA)
    home.say(h.ContentsHere(home.last(h.FetchOffered).req))
    assert kinds(home.replies[1]) == ["locked"]


# --- losses ---------------------------------------------------------------------------------------------------------


def full(home: ChangeHome, files: int) -> list[PathChange]:
    """The removals of so many files."""
    for number in range(files):
        home.disk.edit(b"f%03d" % number, a_file(b"f%03d" % number, str(number)))
    home.say(h.HeadMoved(home.disk.publish(), len(home.disk.tree)))
    return [change(b"f%03d" % number, str(number), None) for number in range(files)]


def test_a_partner_cannot_empty_a_home_neither_at_once_nor_in_parts() -> None:
    home = ChangeHome()
    removals = full(home, 97)
    answer = home.submit(home.change_set(*removals))
    assert {outcome.code for outcome in answer.outcomes} == {"max_deletions"}
    parts = [removals[start : start + 20] for start in range(0, 80, 20)]
    assert home.changes(*parts[0]) == ["applied"] * 20
    home.pass_time(30 * 60_000)
    assert home.changes(*parts[1]) == ["applied"] * 20
    home.start()
    assert home.changes(*parts[2], source=S1) == ["refused"] * 20, "also after a restart"
    assert home.changes(*parts[2][:5], source=S2) == ["applied"] * 5, "each partner has its own count"
    home.pass_time(30 * 60_000)
    assert home.changes(*parts[3][:10]) == ["applied"] * 10, "the first twenty are an hour old"
    rest = (*parts[2][5:], *parts[3][10:], *removals[80:])
    assert home.changes(*rest, source=MAIN) == ["refused"] * 42, "the guard of the home itself"
    assert home.changes(*rest, source=MAIN, accepts_deletions=True) == ["applied"] * 42


def test_a_rename_of_a_directory_is_no_removal() -> None:
    home = ChangeHome(deletions=DeletionPolicy(count=2))
    removals = full(home, 50)
    moved = [change(b"g%03d" % number, None, str(number)) for number in range(50)]
    assert home.changes(*removals, *moved) == ["applied"] * 100
    assert removals_of(home.change_set(*removals, *moved[:40])) == 10


def test_a_set_with_too_many_removals_is_refused_as_a_whole_and_remembered() -> None:
    home = ChangeHome(deletions=DeletionPolicy(count=1))
    made = home.change_set(change(b"a", "old", None), change(b"b", "old", None), change(b"c", "old", "new"))
    assert kinds(home.submit(made)) == ["refused"] * 3
    assert not [effect for effect in home.effects if isinstance(effect, h.FetchOffered)]
    home.pass_time(2 * 3_600_000)
    assert kinds(home.submit(made)) == ["refused"] * 3
    assert home.changes(change(b"a", "old", None)) == ["applied"]


# --- what waits, and what fails -------------------------------------------------------------------------------------


def test_sets_wait_within_bounds_and_the_first_that_is_complete_is_made_first() -> None:
    home = ChangeHome(pending_per_source=2, pending_max=3)
    home.held[h.FetchOffered] = True
    home.submit(home.change_set(change(b"a", "old", "slow")))
    slow = home.last(h.FetchOffered).req
    home.submit(home.change_set(change(b"a", "old", "quick")))
    quick = home.last(h.FetchOffered).req
    busy = home.submit(home.change_set(change(b"b", "old", "x")))
    assert (busy.code, busy.retry) == ("busy", Retry.LATER)
    home.submit(home.change_set(change(b"b", "old", "x")), S2)
    assert home.submit(home.change_set(change(b"b", "old", "y")), MAIN).code == "busy"
    home.say(h.ContentsHere(quick), h.ContentsHere(slow))
    assert (kinds(home.replies[1]), kinds(home.replies[2])) == (["outdated"], ["applied"])
    assert home.text(b"a") == digest("quick")


def test_contents_that_do_not_come_leave_nothing_and_the_set_may_come_again() -> None:
    home = ChangeHome()
    home.held[h.FetchOffered] = True
    made = home.change_set(change(b"a", "old", "new"))
    home.submit(made)
    home.say(h.ContentsFailed(home.last(h.FetchOffered).req, w.Trouble("cut", "the connection was lost")))
    assert home.replies[1].code == "cut"
    assert home.last(h.DropOffered).id == made.id
    home.held.clear()
    assert kinds(home.submit(made)) == ["applied"]


def test_a_submitter_that_goes_away_holds_nothing() -> None:
    home = ChangeHome(pending_per_source=1)
    home.held[h.FetchOffered] = True
    home.submit(home.change_set(change(b"a", "old", "new")))
    home.say(h.SubmitterGone(1))
    home.held.clear()
    assert home.changes(change(b"a", "old", "newer")) == ["applied"]
    assert 1 not in home.replies


def test_a_failed_apply_asks_the_journal_and_nothing_changed_is_no_answer() -> None:
    home = ChangeHome()
    home.held[h.ApplyChanges] = True
    made = home.change_set(change(b"a", "old", "new"))
    home.submit(made)
    home.held.clear()
    full_disk = w.Trouble("disk_full", "no space", Retry.LATER, 8)
    home.say(h.ApplyFailed(home.last(h.ApplyChanges).req, full_disk))
    assert home.replies[1] == full_disk
    assert home.machine.facts.applying is None
    assert not home.disk.answers
    assert kinds(home.submit(made)) == ["applied"]


def test_a_journal_that_cannot_be_read_is_asked_again_and_nothing_else_is_changed_meanwhile() -> None:
    home = ChangeHome()
    home.held[h.ApplyChanges] = home.held[h.RecoverChanges] = True
    home.submit(home.change_set(change(b"a", "old", "new")))
    trouble = w.Trouble("io", "cannot be read", Retry.LATER, 8)
    home.say(h.ApplyFailed(home.last(h.ApplyChanges).req, trouble))
    home.say(h.ChangesNotRecovered(home.last(h.RecoverChanges).req, trouble))
    assert home.submit(home.change_set(change(b"b", "old", "new")), S2) is None
    assert home.lock(BOB, b"c") is None, "no live file is trusted before that"
    home.held.clear()
    home.pass_time(1_000)
    assert home.replies[1] == trouble
    assert kinds(home.replies[2]) == ["applied"]
    assert isinstance(home.replies[3], LockGranted)


def test_an_answer_to_an_older_question_is_dropped() -> None:
    home = ChangeHome()
    home.held[h.ApplyChanges] = True
    home.submit(home.change_set(change(b"a", "old", "new")))
    apply = home.last(h.ApplyChanges)
    before = len(home.effects)
    home.say(h.ChangesApplied(apply.req + 7, ()), h.PathsPublished(apply.req + 7, None), h.LookedUp(99, None))
    home.say(h.ContentsHere(99), h.ChangesRecovered(99, None), h.LiveRead(99, ()))
    assert len(home.effects) == before


def test_a_publish_that_is_held_back_is_answered_with_its_reason() -> None:
    home = ChangeHome()
    home.held[h.PublishPaths] = True
    home.submit(home.change_set(change(b"a", "old", "new")))
    home.say(h.PathsPublished(home.last(h.PublishPaths).req, None, "publish = manual"))
    answer = home.replies[1]
    assert (kinds(answer), answer.head, answer.reason) == (["applied"], None, "publish = manual")
