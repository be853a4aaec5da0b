"""Changes that the watch does not see, and files that change faster than partners can fetch them, as dialogues."""

from __future__ import annotations

from msgspec.structs import replace

from instep.core.follow import vocabulary as f
from instep.core.guards.held import HeldPaths, ScanProblem
from instep.core.guards.hot import Cooling
from instep.core.publish import vocabulary as p
from instep.core.rescan import ScanCost
from instep.core.vocabulary import SetTimer, TimerFired, Trouble, WatchChanged
from instep.errors import Retry
from tests.golden.dialogue import MAIN, OK, Dialogue, follower, generation, publisher, ref
from tests.golden.test_follow_dialogues import begun, live
from tests.golden.test_publish_dialogues import found, published

HINT = "sysctl -w fs.inotify.max_user_watches=1024"
FULL = Trouble("too_many_watches", "only 5 directories can be watched", Retry.LATER, 8, HINT)


def due(talk: Dialogue, timer: str) -> int | None:
    """When the last step set the timer to."""
    return next(e.at_ms for e in talk.effects if isinstance(e, SetTimer) and e.name == timer)


def test_a_writer_that_cannot_watch_scans_as_often_as_it_costs_and_says_so() -> None:
    talk = published(publisher(), 1)
    assert due(talk.at(1_000).say(WatchChanged(FULL)), "rescan") == 3_000
    talk.at(3_000).say(TimerFired("rescan")).at(3_200).say(TimerFired("settle"))
    costly = replace(found("root 2", changed=1), cost=ScanCost(cpu_ms=300, wall_ms=500))
    assert due(talk.say(p.TreeScanned(talk.asked(p.Scan), costly)), "rescan") == 3_200 + 20 * 300
    assert due(talk.at(4_000).say(WatchChanged(None)), "rescan") == 4_000 + 1_000 * 300
    talk.check("not_watched")


def test_by_hand_everything_is_looked_at_while_the_watch_does_not_see_all() -> None:
    talk = published(publisher(), 1).at(1_000).say(WatchChanged(FULL), p.TreeChanged((b"seen",)))
    talk.say(p.PublishAsked(1))
    (scan,) = (each for each in talk.effects if isinstance(each, p.Scan))
    assert scan.paths == ()


def test_a_partner_that_cannot_watch_looks_for_drift_as_often_as_it_costs() -> None:
    talk = live(begun(follower()), 1)
    assert due(talk.at(1_000).say(WatchChanged(FULL)), "drift-scan") == 3_000
    talk.at(3_000).say(TimerFired("drift-scan"))
    checked = f.DriftChecked(talk.asked(f.CheckDrift), (), 0, (), ScanCost(cpu_ms=300, wall_ms=2_000))
    assert due(talk.say(checked), "drift-scan") == 3_000 + 4 * 2_000
    assert due(talk.at(4_000).say(WatchChanged(None)), "drift-scan") == 4_000 + 600_000
    talk.check("drift_not_watched")


def test_a_file_that_partners_cannot_fetch_is_published_with_a_copy_now_and_then() -> None:
    talk = published(publisher(), 1)
    talk.at(5_000).say(p.ContentMissed(b"app.db"), p.ContentMissed(b"app.db")).at(5_200)
    talk.say(TimerFired("settle"))
    (scan,) = (each for each in talk.effects if isinstance(each, p.Scan))
    assert (scan.hot, scan.cooling) == ((b"app.db",), ())
    talk.say(p.TreeScanned(scan.req, replace(found("root 2", changed=1), copied=(b"app.db",))))
    talk.say(p.Committed(talk.asked(p.Commit), ref(2)))
    talk.at(6_000).say(p.TreeChanged((b"app.db",))).at(6_200).say(TimerFired("settle"))
    (scan,) = (each for each in talk.effects if isinstance(each, p.Scan))
    assert (scan.hot, scan.cooling) == ((b"app.db",), (Cooling(b"app.db", 10_000),))
    talk.check("hot_file")


def test_a_large_file_that_is_published_again_and_again_is_published_now_and_then() -> None:
    talk = published(publisher(), 1)
    for number in range(2, 11):
        at = 5_000 + number * 1_000
        talk.at(at).say(p.TreeChanged((b"access.log",))).at(at + 200).say(TimerFired("settle"))
        (scan,) = (each for each in talk.effects if isinstance(each, p.Scan))
        copied = (b"access.log",) if scan.hot else ()
        summary = replace(found(f"root {number}", changed=1), large=(b"access.log",), copied=copied)
        talk.say(p.TreeScanned(scan.req, summary))
        talk.say(p.Committed(talk.asked(p.Commit), ref(number)))
        assert scan.hot == ((b"access.log",) if number == 10 else ())
    talk.at(16_000).say(p.TreeChanged((b"access.log",))).at(16_200).say(TimerFired("settle"))
    (scan,) = (each for each in talk.effects if isinstance(each, p.Scan))
    assert [each.path for each in scan.cooling] == [b"access.log"]
    talk.check("large_file")


def test_a_hot_file_that_a_program_left_alone_is_looked_at_when_its_rhythm_says_that_it_ended() -> None:
    talk = published(publisher(), 1)
    talk.at(5_000).say(p.ContentMissed(b"app.db"), p.ContentMissed(b"app.db")).at(5_200)
    talk.say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("root 2", changed=1), copied=(b"app.db",))))
    talk.say(p.Committed(talk.asked(p.Commit), ref(2)))
    for at in (6_000, 6_300, 6_500):
        talk.at(at).say(p.TreeChanged((b"app.db",)))
    talk.at(6_700).say(TimerFired("settle"))
    (scan,) = (each for each in talk.effects if isinstance(each, p.Scan))
    assert scan.cooling == (Cooling(b"app.db", 1_200),)
    held = HeldPaths((ScanProblem(b"app.db", "hot", "partners could not fetch it", 1),), 1, 1, 0)
    talk.say(p.TreeScanned(scan.req, replace(found("root 2"), held=held, is_full=False)))
    assert due(talk, "hot") == 7_900
    talk.at(7_900).say(TimerFired("hot")).at(8_100).say(TimerFired("settle"))
    (scan,) = (each for each in talk.effects if isinstance(each, p.Scan))
    assert b"app.db" in {each.path for each in scan.again} | set(scan.paths)
    talk.check("hot_file_left_alone")


def test_a_distant_partner_finishes_an_older_head_when_newer_ones_come_all_the_time() -> None:
    talk = begun(follower())
    for number in range(1, 12):
        talk.say(f.HeadSeen(MAIN, generation(number), OK))
    fetched = talk.machine._job
    talk.say(f.PagesFetched(fetched.req))
    (staging,) = (each for each in talk.effects if isinstance(each, f.StageContents))
    assert staging.head == fetched.head
    talk.say(f.HeadSeen(MAIN, generation(12), OK), f.Staged(staging.req))
    (switch,) = (each for each in talk.effects if isinstance(each, f.Switch))
    assert switch.head == fetched.head
