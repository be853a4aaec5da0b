"""The lease machine, as dialogues: a lease of 10 s whose holder needs 2 s to stop."""

from __future__ import annotations

from random import Random

from instep.core.cluster import lease_words as w
from instep.core.cluster.lease import LeaseMachine
from instep.core.vocabulary import Started, TimerFired, Trouble
from instep.model.lease import LeaseFence
from tests.golden.dialogue import Dialogue

AWAY = Trouble("cluster_unreachable", "the database does not answer")
FIRST = LeaseFence(1, 1)


def talking() -> Dialogue:
    return Dialogue(LeaseMachine(10_000, 2_000, Random(1))).say(Started())


def held() -> Dialogue:
    talk = talking()
    return talk.at(20).say(w.LeaseGranted(talk.asked(w.TakeLease), FIRST))


def look(talk: Dialogue, at_ms: int) -> Dialogue:
    return talk.at(at_ms).say(TimerFired("look"))


def test_a_lease_is_taken_renewed_released_and_given_back() -> None:
    talk = look(held(), 3_333)
    talk.at(3_350).say(w.LeaseGranted(talk.asked(w.RenewLease), FIRST))
    talk.at(4_000).say(w.ReleaseLease()).at(4_500).say(w.HolderStopped())
    talk.say(w.LeaseGivenBack(talk.asked(w.GiveBackLease)), TimerFired("look"))
    talk.check("lease_whole_life")


def test_a_waiting_node_asks_again_is_told_the_holder_once_and_begins_when_it_is_free() -> None:
    talk = talking()
    talk.at(10).say(w.LeaseDenied(talk.asked(w.TakeLease), "s2", 8_000))
    look(talk, 1_000)
    talk.at(1_010).say(w.LeaseDenied(talk.asked(w.TakeLease), "s2", 7_000)).at(1_100).say(w.LeaseChanged())
    talk.at(1_120).say(w.LeaseGranted(talk.asked(w.TakeLease), LeaseFence(1, 5)))
    talk.check("lease_waits_for_another")


def test_without_the_database_the_holder_is_stopped_before_the_lease_can_be_another_nodes() -> None:
    talk = look(held(), 3_333)
    talk.at(3_400).say(w.LeaseFailed(talk.asked(w.RenewLease), AWAY))
    look(talk, 3_650)
    talk.at(5_900).say(w.LeaseFailed(talk.asked(w.RenewLease), AWAY))
    look(talk, 6_000).at(6_400).say(w.HolderStopped())
    talk.at(6_500).say(w.LeaseFailed(talk.asked(w.TakeLease), AWAY))
    look(talk, 8_000)
    talk.at(8_100).say(w.LeaseGranted(talk.asked(w.TakeLease), LeaseFence(1, 2)))
    talk.check("lease_database_away")


def test_a_paused_machine_wakes_up_after_its_time_and_believes_no_answer_of_before() -> None:
    talk = look(held(), 3_333)
    talk.at(60_000).say(w.LeaseGranted(talk.asked(w.RenewLease), FIRST)).at(60_100).say(w.HolderStopped())
    talk.check("lease_paused_machine")


def test_a_grant_that_comes_too_late_is_not_begun() -> None:
    talk = talking()
    talk.at(6_000).say(w.LeaseGranted(talk.asked(w.TakeLease), FIRST))
    talk.check("lease_late_grant")


def test_a_denied_renewal_and_a_newer_era_stop_the_holder_at_once() -> None:
    talk = look(held(), 3_333)
    talk.at(3_400).say(w.LeaseDenied(talk.asked(w.RenewLease), "", 6_000))
    talk.check("lease_broken")
    other = held().at(500).say(w.NewerEra(1), w.NewerEra(2))
    other.check("lease_newer_era")


def test_a_release_that_crosses_the_grant_gives_it_back_unused() -> None:
    talk = talking().at(5).say(w.ReleaseLease())
    talk.at(20).say(w.LeaseGranted(talk.pending("TakeLease"), FIRST))
    talk.at(30).say(w.LeaseFailed(talk.asked(w.GiveBackLease), AWAY))
    talk.check("lease_release_crosses_grant")


def test_in_a_new_era_a_renewal_is_a_new_grant() -> None:
    talk = held().at(900).say(w.LeaseChanged())
    talk.at(950).say(w.LeaseGranted(talk.asked(w.RenewLease), LeaseFence(2, 2)))
    talk.check("lease_new_era_renewed")
