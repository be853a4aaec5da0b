"""Locks at a home: granted once, for a time, against a file that is read again; ended with a reason."""

from __future__ import annotations

import msgspec
import pytest

from instep.core.changes import home_vocabulary as h
from instep.core.changes.home_facts import BreakPolicy
from instep.model.change import Fence
from instep.model.lock import (
    LOCK_TTL_MIN_MS,
    LockDenied,
    LockEnd,
    LockEnded,
    LockGone,
    LockGranted,
    LockOutdated,
    LockOwner,
    LockRefused,
)
from tests.support.change_home import (
    ANA,
    BOB,
    MAIN,
    S1,
    S2,
    ChangeHome,
    PowerLost,
    a_dir,
    a_file,
    change,
    kinds,
)
from tests.support.vectors import digest

OTHER_WINDOW = LockOwner(S1, "ana", "portal")
OPERATOR = LockOwner(MAIN, "root")


def test_a_lock_is_one_owners_and_two_programs_of_one_person_do_not_share_it() -> None:
    home = ChangeHome()
    granted = home.lock(ANA, reason="new bounds")
    assert isinstance(granted, LockGranted)
    assert (granted.left_ms, granted.renew_after_ms, granted.base) == (60_000, 30_000, a_file(b"a", "old"))
    for other in (BOB, OTHER_WINDOW, LockOwner(S2, "ana", "edit")):
        denied = home.lock(other)
        assert isinstance(denied, LockDenied)
        assert (denied.owner, denied.reason, denied.left_ms) == (ANA, "new bounds", 70_000)
    assert isinstance(home.lock(BOB, b"b"), LockGranted)


def test_a_lock_on_stale_content_is_outdated_and_names_what_to_fetch() -> None:
    home = ChangeHome()
    home.disk.edit(b"a", a_file(b"a", "newer"))
    answer = home.lock(ANA)
    assert answer == LockOutdated(a_file(b"a", "newer"), home.disk.head)
    assert isinstance(home.lock(ANA, seen="newer"), LockGranted)
    assert isinstance(home.lock(ANA, b"new", seen="x"), LockOutdated)
    assert isinstance(home.lock(ANA, b"new", seen=None), LockGranted), "an absent path can be locked"


def test_asking_again_refreshes_under_the_same_token_whatever_the_owner_has_by_now() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    home.pass_time(50_000)
    again = home.lock(ANA, seen="half written", ttl_ms=90_000)
    assert isinstance(again, LockGranted)
    assert (again.fence, again.is_refresh, again.left_ms) == (fence, True, 90_000)
    home.pass_time(80_000)
    assert isinstance(home.lock(BOB), LockDenied)
    by_token = home.ask(lambda req: h.RefreshAsked(req, S1, b"a", fence))
    assert isinstance(by_token, LockGranted)
    assert by_token.left_ms == 90_000


def test_after_its_time_only_the_owner_may_go_on_and_after_the_grace_anybody() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    home.pass_time(69_999)
    assert isinstance(home.lock(BOB), LockDenied)
    home.pass_time(1)
    assert isinstance(home.lock(BOB), LockGranted)
    told = home.last(h.TellHolder).ended
    assert (told.fence, told.why, told.owner) == (fence, LockEnd.LAPSED, ANA)
    assert home.ask(lambda req: h.RefreshAsked(req, S1, b"a", fence)) == LockGone(LockEnd.LAPSED)


def test_a_short_lock_has_a_short_grace() -> None:
    home = ChangeHome()
    home.granted(ANA, ttl_ms=2_000)
    home.pass_time(3_000)
    assert isinstance(home.lock(BOB), LockGranted)
    short = home.lock(ANA, b"b", ttl_ms=1)
    assert isinstance(short, LockGranted)
    assert short.left_ms == LOCK_TTL_MIN_MS


def test_a_release_ends_it_once_and_says_so_again() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)

    def release(source: object) -> object:
        return home.ask(lambda req: h.ReleaseAsked(req, source, b"a", fence))  # type: ignore[arg-type]

    stranger = release(S2)
    assert isinstance(stranger, LockRefused)
    assert stranger.code == "not_allowed"
    assert release(S1) == release(S1) == LockEnded(b"a", LockEnd.RELEASED)
    assert isinstance(home.lock(BOB), LockGranted)
    assert not [effect for effect in home.effects if isinstance(effect, h.TellHolder)], "the owner knows"


def test_a_token_that_is_not_the_present_grant_is_gone_with_the_reason() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    assert home.ask(lambda req: h.ReleaseAsked(req, S1, b"b", fence)) == LockGone(LockEnd.UNKNOWN)
    higher = Fence(1, fence.counter + 5, bytes(16))
    assert home.ask(lambda req: h.RefreshAsked(req, S1, b"a", higher)) == LockGone(LockEnd.UNKNOWN)
    older = Fence(0, fence.counter, bytes(16))
    assert home.ask(lambda req: h.RefreshAsked(req, S1, b"a", older)) == LockGone(LockEnd.WRITER_CHANGED)


def broken(home: ChangeHome, by: LockOwner, reason: str = "on holiday", **how: object) -> object:
    return home.ask(lambda req: h.BreakAsked(req, by.node, by, b"a", reason, **how))  # type: ignore[arg-type]


def test_a_break_needs_a_reason_and_the_right_and_its_holder_hears_of_it() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    without = broken(home, OPERATOR, " ", is_operator=True)
    assert isinstance(without, LockRefused)
    assert without.code == "reason_missing"
    stranger = broken(home, BOB)
    assert isinstance(stranger, LockRefused)
    assert stranger.code == "not_allowed"
    assert broken(home, OPERATOR, is_operator=True) == LockEnded(b"a", LockEnd.BROKEN)
    told = home.last(h.TellHolder).ended
    assert (told.owner, told.why, told.by, told.reason) == (ANA, LockEnd.BROKEN, "root@main", "on holiday")
    gone = home.ask(lambda req: h.RefreshAsked(req, S1, b"a", fence))
    assert gone == LockGone(LockEnd.BROKEN, "root@main", "on holiday")
    nothing = broken(home, OPERATOR, is_operator=True)
    assert isinstance(nothing, LockRefused)
    assert nothing.code == "not_locked"


@pytest.mark.parametrize(
    ("policy", "by", "is_operator", "is_done"),
    [
        (BreakPolicy.ANYONE, BOB, False, True),
        (BreakPolicy.OWNER, BOB, False, False),
        (BreakPolicy.OWNER, OTHER_WINDOW, False, True),
        (BreakPolicy.NOBODY, OTHER_WINDOW, False, False),
        (BreakPolicy.NOBODY, OPERATOR, True, False),
    ],
)
def test_the_people_that_may_break_a_lock(
    policy: BreakPolicy, by: LockOwner, is_operator: bool, is_done: bool
) -> None:
    home = ChangeHome(break_by=policy)
    home.granted(ANA)
    assert isinstance(broken(home, by, is_operator=is_operator), LockEnded) is is_done


def test_a_steal_is_one_step_from_owner_to_owner() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    home.disk.edit(b"a", a_file(b"a", "newer"))
    stale = broken(home, OTHER_WINDOW, "", steals=True, ttl_ms=5_000, lock_id=b"r" * 16, base=digest("old"))
    assert isinstance(stale, LockOutdated), "the thief's old file would look like an edit"
    assert [lock.fence for lock in home.machine.facts.locks] == [fence]
    stolen = broken(
        home, OTHER_WINDOW, "", steals=True, ttl_ms=5_000, lock_id=b"s" * 16, base=digest("newer")
    )
    assert isinstance(stolen, LockGranted), "one's own lock is taken without a reason"
    assert (stolen.fence.counter, stolen.base) == (fence.counter + 1, a_file(b"a", "newer"))
    saves = [effect.facts for effect in home.effects if isinstance(effect, h.SaveHome)]
    assert [lock.owner for lock in saves[-1].locks] == [OTHER_WINDOW]
    assert [lock.owner for lock in saves[-2].locks] == [ANA], "no save in between, in which the path is free"
    gone = home.ask(lambda req: h.RefreshAsked(req, S1, b"a", fence))
    assert gone == LockGone(LockEnd.STOLEN, str(OTHER_WINDOW))


def test_a_steal_whose_lock_has_changed_hands_meanwhile_is_judged_anew() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    home.held[h.ReadLive] = True
    assert broken(home, OTHER_WINDOW, "", steals=True, ttl_ms=5_000, lock_id=b"s" * 16) is None
    read = home.last(h.ReadLive)
    home.ask(lambda req: h.ReleaseAsked(req, S1, b"a", fence))
    home.held.clear()
    home.granted(BOB, b"a")
    home.say(home.disk.perform(read))
    assert [lock.owner for lock in home.machine.facts.locks] == [BOB]
    refused = home.replies[2]
    assert isinstance(refused, LockRefused)
    assert refused.code in ("reason_missing", "not_allowed")


def test_an_edit_at_the_home_ends_the_lock_and_a_look_that_finds_nothing_does_not() -> None:
    home = ChangeHome()
    home.granted(ANA)
    home.say(h.OwnEdit((b"a", b"b")))
    assert home.machine.facts.locks
    home.disk.edit(b"a", a_file(b"a", "by a program here"))
    home.say(h.OwnEdit((b"a",)))
    told = home.last(h.TellHolder).ended
    assert (told.why, told.by) == (LockEnd.HOME_EDIT, "main")
    assert isinstance(home.lock(BOB, seen="by a program here"), LockGranted)


def test_an_edit_at_the_home_under_a_lock_of_a_person_there_ends_nothing() -> None:
    home = ChangeHome()
    home.granted(LockOwner(MAIN, "root"))
    home.disk.edit(b"a", a_file(b"a", "by that person"))
    home.say(h.OwnEdit((b"a",)))
    assert home.machine.facts.locks
    assert isinstance(home.lock(BOB, seen="by that person"), LockDenied)


def test_what_is_no_file_or_no_path_or_not_the_askers_is_not_locked() -> None:
    home = ChangeHome()
    home.disk.edit(b"d", a_dir(b"d"))
    for owner, path, code in (
        (ANA, b"d", "not_lockable"),
        (ANA, b"../a", "bad_path"),
        (ANA, b".instep/id", "bad_path"),
        (LockOwner(MAIN.__class__("s3"), "eve"), b"a", "not_allowed"),
    ):
        answer = home.lock(owner, path, seen=None)
        assert isinstance(answer, LockRefused)
        assert answer.code == code
    forged = home.ask(lambda req: h.LockAsked(req, S2, ANA, b"a", digest("old"), 5_000, bytes(16)))
    assert isinstance(forged, LockRefused)
    assert forged.code == "not_allowed", "a node may not lock for the owners of another"


def test_an_owner_has_so_many_locks_and_a_line_so_many() -> None:
    home = ChangeHome(locks_per_owner=2, locks_max=3)
    for path in (b"a", b"b"):
        home.granted(ANA, path)
    mine = home.lock(ANA, b"c")
    assert isinstance(mine, LockRefused)
    assert (mine.code, mine.exit_code) == ("too_many_locks", 6)
    assert isinstance(home.lock(ANA, b"a"), LockGranted), "a refresh is none more"
    home.granted(OTHER_WINDOW, b"c")
    assert isinstance(home.lock(BOB, b"new", seen=None), LockRefused)


def test_locks_survive_a_restart_and_have_their_whole_time_after_another_boot() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    home.pass_time(50_000)
    home.start()
    assert home.machine.facts.locks[0].deadline_ms == 61_000, "the same boot: the same deadline"
    home.reboot(later_ms=7_000)
    assert home.machine.facts.locks[0].deadline_ms == 67_000
    assert isinstance(home.lock(BOB), LockDenied)
    assert home.changes(change(b"a", "old", "new"), token=fence) == ["applied"]


def test_a_change_of_writer_voids_all_and_counters_go_on() -> None:
    home = ChangeHome()
    fence = home.granted(ANA)
    home.epoch = 2
    home.start()
    assert home.last(h.TellHolder).ended.why is LockEnd.WRITER_CHANGED
    newer = home.granted(BOB)
    assert (newer.epoch, newer.counter) == (2, fence.counter + 1)
    home.say(h.HomeLost(3, S2))
    assert not home.machine.facts.locks
    lost = home.lock(ANA)
    assert isinstance(lost, LockRefused)
    assert lost.code == "not_the_writer"
    assert home.submit(home.change_set(change(b"b", "old", "new"))).code == "not_the_writer"


def test_a_home_restored_from_yesterday_honours_no_token_that_it_gave_since() -> None:
    home = ChangeHome()
    yesterday = home.disk.facts
    fence = home.granted(ANA)
    home.disk.facts = yesterday
    home.start()
    other = home.granted(BOB)
    assert other.counter == fence.counter, "the counter went back, and only the random id differs"
    assert other.lock_id != fence.lock_id
    answer = home.submit(home.change_set(change(b"a", "old", "new"), token=fence))
    assert kinds(answer) == ["locked"]
    assert home.text(b"a") == digest("old")


def test_no_grant_is_answered_before_it_is_durable_whenever_the_power_fails() -> None:
    for power in range(20):
        home = ChangeHome()
        home.power = power
        granted = None
        try:
            granted = home.lock(ANA)
        except PowerLost:
            granted = home.replies.get(1)
        home.power = None
        home.start()
        if granted is not None:
            assert isinstance(home.lock(BOB), LockDenied), power
        elif not home.machine.facts.locks:
            assert isinstance(home.lock(BOB), LockGranted)


def test_a_grant_reads_the_file_again_that_a_change_touched_meanwhile() -> None:
    home = ChangeHome()
    home.held[h.ReadLive] = True
    assert home.lock(BOB) is None
    first = home.disk.perform(home.last(h.ReadLive))
    assert home.changes(change(b"a", "old", "new")) == ["applied"]
    home.say(first)
    assert home.replies.get(1) is None, "that was read before the change"
    home.say(home.disk.perform(home.last(h.ReadLive)))
    assert isinstance(home.replies[1], LockOutdated)


def test_facts_are_as_large_as_their_locks_and_no_larger() -> None:
    home = ChangeHome(locks_per_owner=300, locks_max=2_000)
    for _ in range(3):
        for number in range(250):
            path = b"f%d" % number
            fence = home.granted(ANA, path, seen=None)
            home.ask(lambda req, path=path, fence=fence: h.ReleaseAsked(req, S1, path, fence))
    assert len(msgspec.msgpack.encode(home.machine.facts)) < 40_000
