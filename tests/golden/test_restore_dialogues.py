"""Going back at a writer, as dialogues: rollback, restore, recovery, and a head that was adopted."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from instep.core.guards.held import HeldPaths, ScanProblem
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.commit_facts import LastCommit, committed
from instep.core.vocabulary import HookEnded, HookKind, KeepGeneration, RunHook, TimerFired, Trouble
from instep.errors import Retry
from instep.model.ids import NodeName
from instep.model.standing import Standing
from tests.golden.dialogue import OK, Dialogue, generation, publisher, ref
from tests.golden.test_publish_dialogues import found, published

S1 = NodeName("s1")


def plan(root: str, tree: s.TreeCounts, **counts: int) -> s.RestorePlan:
    return s.RestorePlan(found(root, **counts), tree)


def effects(talk: Dialogue, kind: Any) -> list[Any]:
    return [effect for effect in talk.effects if isinstance(effect, kind)]


def restored_from_a_snapshot(mode: p.PublishMode = p.PublishMode.AUTO) -> Dialogue:
    """A writer whose state knows generation 1 hears of its own generation 4, and has looked at its tree."""
    facts = p.PublishFacts(head=ref(1), base=ref(1), highest=1, was_confirmed=True)
    talk = publisher(facts, partners=(S1,), mode=mode).say(p.Started())
    asked = talk.asked(p.AskPartners)
    talk.say(s.TreeRecovered(talk.asked(s.Recover)))
    talk.at(300).say(p.HeadOfOursSeen(S1, generation(4), OK), p.PartnersAnswered(asked, (S1,)))
    talk.say(p.ManifestFetched(talk.pending("FetchPages"))).at(600).say(TimerFired("settle"))
    return talk.say(p.TreeScanned(talk.asked(p.Scan), found("old", removed=3, changed=1, entries_before=23)))


def test_a_rollback_of_an_emptied_tree_obeys_the_guard_and_publishes_exactly_its_target() -> None:
    talk = published(publisher(), 3).at(5_000)
    back = s.TreeCounts(added=43)
    talk.say(s.RestoreAsked(1, ref(1), author="ana", message="back"))
    talk.say(s.RestorePlanned(talk.asked(s.PlanRestore), plan("root 1", back, removed=97)))
    talk.say(s.RestoreAsked(2, ref(1), author="ana", message="back", accept_deletions=True))
    talk.say(s.RestorePlanned(talk.asked(s.PlanRestore), plan("root 1", back, removed=97)))
    talk.say(p.TreeChanged((b"typed meanwhile",)))
    talk.say(s.Restored(talk.pending("Restore")))
    commit = effects(talk, p.Commit)[0]
    assert (commit.root, commit.parent) == (ref(1).root, ref(3))
    assert not effects(talk, p.Scan)
    talk.say(p.Committed(commit.req, ref(4, "root 1"))).at(5_200).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 5", added=1)))
    talk.say(p.Committed(talk.asked(p.Commit), ref(5))).check("rollback")


def test_a_rollback_to_what_is_there_already_changes_nothing() -> None:
    talk = published(publisher(), 1).at(5_000)
    talk.say(s.RestoreAsked(1, ref(1), author="ana"))
    talk.say(s.RestorePlanned(talk.asked(s.PlanRestore), plan("root 1", s.TreeCounts())))
    assert effects(talk, p.GiveAnswer) == [p.GiveAnswer(1, p.Unchanged(ref(1)))]
    assert not effects(talk, p.Commit)


def test_an_interrupted_restore_is_finished_before_anything_is_scanned_or_published() -> None:
    talk = published(publisher(), 2).at(5_000).say(s.RestoreAsked(1, ref(1), author="ana", message="back"))
    talk.say(s.RestorePlanned(talk.asked(s.PlanRestore), plan("root 1", s.TreeCounts(changed=2), changed=2)))
    stuck = Trouble("no_permission", "z/f: Operation not permitted", Retry.LATER, 8)
    talk.say(s.RestoreFailed(talk.asked(s.Restore), stuck, is_open=True))
    assert talk.machine.report.standing is Standing.FAILING
    assert "z/f" in talk.machine.report.reason
    talk.at(5_300).say(p.TreeChanged((b"a",))).at(5_500).say(TimerFired("settle"))
    assert not effects(talk, p.Scan)
    talk.at(6_000).say(p.PublishAsked(2, "ana"))
    assert not effects(talk, p.Scan)
    talk.say(s.RecoverFailed(talk.pending("Recover"), stuck))
    assert effects(talk, p.GiveAnswer) == [p.GiveAnswer(2, p.NotPublished(stuck))]
    talk.at(9_000).say(TimerFired("retry-recover")).say(s.TreeRecovered(talk.asked(s.Recover)))
    talk.at(9_200).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 1", changed=2))).check("restore_interrupted")


def test_a_writer_from_a_snapshot_publishes_nothing_until_somebody_decides() -> None:
    talk = restored_from_a_snapshot()
    report = talk.machine.report
    assert (report.standing, report.code) == (Standing.HELD, "restored")
    assert "3 are missing here and 1 differs, 0 more are only here" in report.reason
    assert not effects(talk, p.Commit)
    talk.at(2_000).say(p.TreeChanged((b"a",))).at(2_200).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("old", removed=97)))
    talk.say(p.RetryAsked()).say(p.PublishAsked(1, "ana"))
    talk.say(p.TreeScanned(talk.pending("Scan"), found("old", removed=97)))
    talk.say(p.PublishAsked(2, "ana", is_over=True))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("old", removed=97)))
    talk.say(p.PublishAsked(3, "ana", is_over=True, accept_deletions=True))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("old", removed=97)))
    commit = effects(talk, p.Commit)[0]
    assert (commit.number, commit.parent, committed(commit.facts, ref(5)).is_adopted) == (5, ref(4), False)
    talk.say(p.Committed(commit.req, ref(5))).check("restored_published_over")


def test_a_writer_from_a_snapshot_takes_its_newest_generation_back() -> None:
    talk = restored_from_a_snapshot(p.PublishMode.MANUAL)
    assert talk.machine.report.code == "restored"
    talk.at(2_000).say(s.RestoreAsked(1, ref(4), author="ana", publishes=False))
    talk.say(s.RestorePlanned(talk.asked(s.PlanRestore), plan("root 4", s.TreeCounts(added=3, changed=1))))
    talk.say(s.Restored(talk.asked(s.Restore)))
    assert not talk.machine.facts.is_adopted
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 4"))).check("restored_taken_back")
    assert talk.machine.report.standing is Standing.IN_STEP


def test_the_decision_survives_a_restart() -> None:
    talk = restored_from_a_snapshot()
    again = publisher(talk.machine.facts, partners=(S1,)).say(p.Started())
    asked = again.asked(p.AskPartners)
    again.say(s.TreeRecovered(again.asked(s.Recover)), p.PartnersAnswered(asked, ()), TimerFired("ask"))
    again.at(5_000).say(TimerFired("ask")).say(TimerFired("settle"))
    again.say(p.TreeScanned(again.pending("Scan"), found("old", removed=3)))
    assert not effects(again, p.Commit)
    assert again.machine.report.code == "restored"


def test_a_head_known_by_its_number_only_leaves_no_command_without_an_answer() -> None:
    talk = publisher(
        p.PublishFacts(
            head=ref(4), base=ref(1), highest=4, was_confirmed=True, is_adopted=True, has_pages=False
        ),
        partners=(S1,),
    ).say(p.Started())
    talk.say(s.TreeRecovered(talk.asked(s.Recover)))
    assert talk.machine.report.code == "adopting"
    talk.at(5_000).say(TimerFired("ask"))
    report = talk.machine.report
    assert (report.standing, report.code) == (Standing.HELD, "restored")
    for request, asked in ((1, p.PublishAsked(1, "ana")), (2, s.RestoreAsked(2, ref(4), author="ana"))):
        talk.say(asked)
        assert [each.request for each in effects(talk, p.GiveAnswer)] == [request]
    talk.say(p.PublishAsked(3, "ana", is_over=True))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("here", changed=1)))
    commit = effects(talk, p.Commit)[0]
    assert (commit.number, commit.parent) == (5, ref(4))
    talk.say(p.Committed(commit.req, ref(5))).check("restored_known_by_number")


def test_a_head_known_by_its_number_only_is_fetched_when_a_partner_comes_that_has_it() -> None:
    facts = p.PublishFacts(
        head=ref(4), base=ref(1), highest=4, was_confirmed=True, is_adopted=True, has_pages=False
    )
    talk = publisher(facts, partners=(S1,)).say(p.Started())
    talk.say(s.TreeRecovered(talk.asked(s.Recover))).at(5_000).say(
        TimerFired("ask"), p.PublishAsked(1, "ana")
    )
    assert talk.machine.report.code == "restored"
    talk.say(p.HeadOfOursSeen(S1, generation(4), OK))
    assert talk.machine.report.code == "adopting"
    talk.say(p.ManifestFetched(talk.asked(p.FetchPages)))
    assert talk.machine.facts.has_pages


def test_a_path_that_cannot_be_read_is_not_taken_for_the_newest_one() -> None:
    talk = restored_from_a_snapshot()
    talk.at(2_000).say(p.TreeChanged((b"a",))).at(2_200).say(TimerFired("settle"))
    locked = HeldPaths((ScanProblem(b"locked", "unreadable", "EACCES", 1),), 1, 1, 5)
    same = replace(found("root 4"), held=locked)
    talk.say(p.TreeScanned(talk.asked(p.Scan), same))
    report = talk.machine.report
    assert (report.standing, report.code) == (Standing.HELD, "restored")
    assert "locked" in report.reason
    talk.at(5_000).say(p.TreeChanged((b"locked",))).at(5_200).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("old", changed=1)))
    assert not effects(talk, p.Commit)
    assert talk.machine.facts.is_adopted


def test_another_generation_of_the_same_number_ends_nothing_and_is_not_overwritten_unasked() -> None:
    """A writer from a snapshot published up to the very number that its partner holds, before it heard of it."""
    talk = published(publisher(), 3).at(5_000)
    talk.say(p.HeadOfOursSeen(S1, generation(3, root="newer"), OK))
    assert not effects(talk, KeepGeneration), "the number is taken: the store would refuse it"
    talk.at(6_000).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 3")))
    talk.say(p.TreeChanged((b"typed",))).at(7_000).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("typed", added=1)))
    assert [each.parent for each in effects(talk, p.Commit)] in ([], [None])
    report = talk.machine.report
    assert (report.standing, report.code) == (Standing.HELD, "generation_twice")
    talk.say(p.PublishAsked(1, author="ana", is_over=True))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("typed", added=1)))
    commit = effects(talk, p.Commit)[-1]
    assert commit.parent == ref(3)
    talk.say(p.Committed(commit.req, ref(4, "typed")))
    assert talk.machine.report.standing is Standing.IN_STEP


def test_a_writer_that_published_past_its_partners_generation_is_held_also_after_a_restart() -> None:
    """It came back with an older state, and went past the partner's generation 3 before it heard of that one."""
    facts = p.PublishFacts(head=ref(5), base=ref(5), highest=5, was_confirmed=True)
    talk = publisher(facts).say(p.Started())
    held = talk.say(p.HeadOfOursSeen(S1, generation(3, root="lost"), OK, ours=ref(3).id))
    assert held.machine.report.code == "generation_twice"
    save = effects(held, p.SavePublish)[-1]

    again = publisher(save.facts).say(p.Started())
    again.say(s.TreeRecovered(again.asked(s.Recover)), p.TreeChanged((b"typed",)))
    assert again.machine.report.code == "generation_twice", "the hold survives a restart"
    again.at(2_000).say(TimerFired("settle"))
    again.say(p.TreeScanned(again.asked(p.Scan), found("typed", added=1)))
    assert not effects(again, p.Commit)
    assert "generation 3 at s1" in again.machine.report.reason

    again.say(p.PublishAsked(1, author="ana", is_over=True))
    again.say(p.TreeScanned(again.asked(p.Scan), found("typed", added=1)))
    commit = effects(again, p.Commit)[-1]
    again.say(p.Committed(commit.req, ref(6, "typed")))
    again.say(p.HeadOfOursSeen(S1, generation(3, root="lost"), OK, ours=ref(3).id))
    assert again.machine.report.standing is Standing.IN_STEP, "the operator decided, and is not asked again"
    again.check("published_past_a_lost_generation")


def test_a_partner_that_holds_an_ancestor_of_the_head_holds_nothing_up() -> None:
    talk = published(publisher(), 5)
    talk.say(p.HeadOfOursSeen(S1, generation(3), OK, ours=ref(3).id))
    talk.say(p.HeadOfOursSeen(S1, generation(4, root="not kept here"), OK, ours=None))
    assert talk.machine.report.standing is Standing.IN_STEP


def test_a_number_that_turns_up_twice_while_a_hook_runs_stops_that_publish() -> None:
    facts = p.PublishFacts(head=ref(3), base=ref(3), highest=3, was_confirmed=True)
    talk = publisher(facts, has_reload=True).say(p.Started())
    talk.say(s.TreeRecovered(talk.asked(s.Recover))).at(5_000)
    talk.say(p.TreeChanged((b"typed",))).at(6_000).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("typed", added=1)))
    hook = talk.asked(RunHook)
    talk.say(p.HeadOfOursSeen(S1, generation(3, root="newer"), OK))
    talk.say(HookEnded(hook, HookKind.RELOAD))
    assert not effects(talk, p.Commit)


def test_a_head_that_is_told_during_a_commit_is_judged_after_it() -> None:
    """The number that is being committed may be its own: the store would refuse a second generation of it."""
    talk = published(publisher(), 3).at(5_000)
    talk.say(p.TreeChanged((b"typed",))).at(6_000).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("typed", added=1)))
    commit = talk.asked(p.Commit)
    talk.say(p.HeadOfOursSeen(S1, generation(4, root="newer"), OK))
    assert not effects(talk, KeepGeneration)
    talk.say(p.Committed(commit, ref(4, "typed")))
    assert talk.machine.report.code == "generation_twice"


def test_a_save_between_a_commit_and_its_answer_takes_the_generation_not_back() -> None:
    """A crash there lost the head, and with it what the next generation is judged by: a tree that was emptied meanwhile
    was published as a first generation."""
    talk = publisher(partners=(S1,)).say(p.Started(), p.PartnerSeen(S1))
    talk.say(s.TreeRecovered(talk.pending("Recover"))).at(2_000).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("all", added=40)))
    durable = LastCommit()
    durable.is_durable(None, ref(1))
    talk.say(p.Paused("maintenance"))
    kept = durable.saved(effects(talk, p.SavePublish)[0].facts)
    assert (kept.head, kept.base, kept.is_paused) == (ref(1), ref(1), True)

    again = publisher(msgspec.structs.replace(kept, is_paused=False), partners=(S1,)).say(
        p.Started(), p.PartnerSeen(S1)
    )
    again.say(s.TreeRecovered(again.pending("Recover"))).at(2_000).say(TimerFired("settle"))
    assert effects(again, p.Scan)[0].base == ref(1), "the emptied tree is judged against what was published"


def test_a_restore_of_some_paths_publishes_not_that_the_others_are_gone() -> None:
    """The tree is empty, and few enough paths were in it to pass the guard."""
    talk = published(publisher(), 1).at(5_000)
    talk.say(s.RestoreAsked(1, ref(1), (b"a",), "ana"))
    talk.say(s.RestorePlanned(talk.asked(s.PlanRestore), plan("root 1", s.TreeCounts(added=1))))
    talk.say(s.Restored(talk.asked(s.Restore))).at(6_000).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("a only", removed=9)))
    assert not effects(talk, p.Commit)
    report = talk.machine.report
    assert (report.standing, report.code) == (Standing.BLOCKED, "max_deletions")
    assert "9 of 100 paths are missing" in report.reason
    talk.say(p.PublishAsked(2, author="ana"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("a only", removed=9)))
    assert effects(talk, p.Commit), "an operator who publishes by hand means it"


def test_a_number_that_a_failed_commit_skipped_hides_no_lost_generation() -> None:
    """No generation has the position of the partner's generation 4: the base of the next one is no ancestor of it."""
    facts = p.PublishFacts(head=ref(5), base=ref(5), highest=5, was_confirmed=True)
    talk = publisher(facts).say(p.Started())
    talk.say(p.HeadOfOursSeen(S1, generation(4, root="lost"), OK, ours=ref(3).id))
    assert talk.machine.report.code == "generation_twice"
