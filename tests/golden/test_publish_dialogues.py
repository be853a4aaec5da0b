"""The publish machine, as dialogues."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from instep.core.guards.held import HeldPaths, ScanProblem
from instep.core.guards.losses import Lost
from instep.core.hook_writes import HOOK_WRITES
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.vocabulary import (
    HookAdded,
    HookEnded,
    HookKind,
    HookWrite,
    RunHook,
    SignerVerdict,
    TimerFired,
    Trouble,
)
from instep.errors import Retry
from instep.model.ids import NodeName
from instep.model.standing import Standing
from tests.golden.dialogue import MAIN, OK, Dialogue, digest, epoch, generation, publisher, ref

S1 = NodeName("s1")


def found(root: str = "root", **counts: int) -> p.ScanSummary:
    values: dict[str, Any] = {
        "entries": 100,
        "size_bytes": 1,
        "entries_before": 100,
        "added": 0,
        "changed": 0,
        "removed": 0,
    }
    values.update(counts)
    losses = (Lost(values["removed"], 0, values["entries_before"]),) if values["removed"] else ()
    return p.ScanSummary(root=digest(root), changed_bytes=0, losses=losses, **values)


def published(talk: Dialogue, number: int) -> Dialogue:
    talk.say(p.Started()).say(s.TreeRecovered(talk.asked(s.Recover))).at(200).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found(f"root {number}", added=100, entries_before=0)))
    return talk.say(p.Committed(talk.asked(p.Commit), ref(number)))


def test_a_burst_is_one_publish_with_hooks_before_the_announcement() -> None:
    talk = published(publisher(), 1)
    talk.say(p.PublishConfigChanged(p.PublishConfig(node=MAIN, has_validate=True, has_reload=True)))
    for moment in (1_000, 1_100, 1_250):
        talk.at(moment).say(p.TreeChanged((b"global.xml",)))
    talk.at(1_450).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2", changed=1)))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.VALIDATE))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.RELOAD))
    talk.say(p.Committed(talk.asked(p.Commit), ref(2))).check("burst")


def test_a_read_only_node_looks_but_publishes_only_after_its_end() -> None:
    """A run under way ends without a generation, a request is refused by name; what changed meanwhile comes at the end."""
    talk = published(publisher(), 1)
    talk.at(1_000).say(p.TreeChanged((b"global.xml",))).at(1_200).say(TimerFired("settle"))
    why = Trouble("read_only", "main is read-only", Retry.LATER, 4, "instep readonly off")
    config = p.PublishConfig(node=MAIN, mode=p.PublishMode.MANUAL, read_only=why)
    scan = talk.asked(p.Scan)
    talk.say(p.PublishConfigChanged(config))
    talk.say(p.TreeScanned(scan, found("root 2", changed=1)))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2", changed=1)))
    report = talk.machine.report
    assert (report.standing, report.code) == (Standing.HELD, "read_only")
    talk.say(p.PublishAsked(7)).say(s.RestoreAsked(8, ref(1)))
    talk.at(2_000).say(p.TreeChanged((b"late.xml",)))
    talk.say(p.PublishConfigChanged(p.PublishConfig(node=MAIN)))
    talk.at(2_300).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2", added=1, changed=1)))
    talk.say(p.Committed(talk.asked(p.Commit), ref(2))).check("read_only")


def test_a_hook_that_writes_into_the_tree_makes_no_endless_row_of_generations() -> None:
    """The second generation is the hook's own write, the third what it wrote while it ran for that; no fourth comes."""
    talk = published(publisher(), 1)
    talk.say(p.PublishConfigChanged(p.PublishConfig(node=MAIN, has_reload=True)))
    wrote = (HookWrite(b"global.xml", "reload"),)
    for number in (2, 3, 4):
        talk.at(1_000 * number).say(p.TreeChanged((b"style" if number == 2 else b"global.xml",)))
        talk.at(1_000 * number + 200).say(TimerFired("settle"))
        by_hooks = () if number == 2 else wrote
        talk.say(
            p.TreeScanned(talk.asked(p.Scan), replace(found(f"r{number}", changed=1), hook_writes=by_hooks))
        )
        if number < 4:
            talk.say(HookEnded(talk.asked(RunHook), HookKind.RELOAD))
        talk.say(p.Committed(talk.asked(p.Commit), ref(number)))
    talk.check("hook_writes_here")
    assert (talk.machine.report.standing, talk.machine.report.code) == (Standing.IN_STEP, HOOK_WRITES)


def test_what_a_hook_says_it_writes_is_published_without_running_it() -> None:
    talk = published(publisher(), 1)
    talk.say(p.PublishConfigChanged(p.PublishConfig(node=MAIN, has_validate=True, has_reload=True)))
    talk.at(1_000).say(p.TreeChanged((b"global.xml",))).at(1_200).say(TimerFired("settle"))
    wrote = (HookWrite(b"global.xml", "reload", is_expected=True),)
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("r2", changed=1), hook_writes=wrote)))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.VALIDATE))
    talk.say(p.Committed(talk.asked(p.Commit), ref(2)))
    assert talk.machine.report.code is None
    talk.at(2_000).say(p.TreeChanged((b"global.xml",)), p.PublishAsked(1, "ana", "by hand"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("r3", changed=1), hook_writes=wrote)))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.VALIDATE))
    assert talk.asked(RunHook), "an operator asked for it"


def test_a_dry_run_asks_the_validate_hook_and_publishes_nothing() -> None:
    talk = published(publisher(), 1)
    talk.say(p.PublishConfigChanged(p.PublishConfig(node=MAIN, has_validate=True, has_reload=True)))
    for number, trouble in ((1, None), (2, Trouble("hook", "two styles are missing", Retry.NEVER, 4))):
        talk.at(number * 9_000).say(p.PublishAsked(number, is_dry_run=True))
        talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2", changed=1)))
        talk.say(HookEnded(talk.asked(RunHook), HookKind.VALIDATE, trouble))
        (answer,) = [one for one in talk.effects if isinstance(one, p.GiveAnswer)]
        assert isinstance(answer.outcome, p.WouldPublish)
        assert (answer.outcome.refusal is None) is (trouble is None)
        if trouble is not None:
            assert answer.outcome.refusal is not None
            assert "two styles" in answer.outcome.refusal.reason
        assert not [one for one in talk.effects if isinstance(one, p.Commit)]


def test_a_hook_that_was_added_runs_once_for_the_present_generation() -> None:
    talk = published(publisher(), 1)
    talk.say(
        p.PublishConfigChanged(p.PublishConfig(node=MAIN, has_reload=True, has_validate=True)), HookAdded()
    )
    talk.say(
        HookEnded(talk.asked(RunHook), HookKind.RELOAD, Trouble("hook", "no such program", Retry.LATER, 8))
    )
    assert (talk.machine.report.standing, talk.machine.report.code) == (Standing.FAILING, "reload_failed")
    talk.at(60_000).say(TimerFired("retry-publish"))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.RELOAD))
    if scan := [one for one in talk.effects if isinstance(one, p.Scan)]:
        talk.say(p.TreeScanned(scan[0].req, found("root 1")))
    talk.at(90_000).say(TimerFired("settle"))
    assert not [one for one in talk.effects if isinstance(one, RunHook)]
    talk.check("hook_added")
    assert talk.machine.report.standing is Standing.IN_STEP


def test_a_writer_that_starts_again_is_unknown_until_it_has_looked_at_its_tree() -> None:
    talk = publisher(p.PublishFacts(head=ref(1), base=ref(1), highest=1, was_confirmed=True))
    talk.say(p.Started()).say(s.TreeRecovered(talk.asked(s.Recover))).at(200).say(TimerFired("settle"))
    before = talk.machine.report.standing
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 1"))).check("not_looked_yet")
    assert (before, talk.machine.report.standing) == (Standing.UNKNOWN, Standing.IN_STEP)


def test_requests_share_a_scan_and_each_gets_one_answer() -> None:
    talk = publisher(mode=p.PublishMode.MANUAL)
    talk.say(p.Started())
    talk.say(s.TreeRecovered(talk.asked(s.Recover)), p.PublishAsked(1, "ana", "first"))
    scan = talk.asked(p.Scan)
    talk.say(p.PublishAsked(2), p.PublishAsked(3), p.PublishAsked(4, is_dry_run=True))
    talk.say(p.TreeScanned(scan, found("root 1", added=100, entries_before=0)))
    talk.say(p.Committed(talk.asked(p.Commit), ref(1)))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 1")))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 1"))).check("requests")


def test_two_publishes_in_one_run_name_both_persons_and_both_messages() -> None:
    talk = publisher(mode=p.PublishMode.MANUAL).say(p.Started())
    talk.say(s.TreeRecovered(talk.asked(s.Recover)), p.PublishAsked(1, "eve"))
    scan = talk.asked(p.Scan)
    talk.say(p.PublishAsked(2, "ana", "one"), p.PublishAsked(3, "ben by token ci", "two"))
    talk.say(p.PublishAsked(4, "ana"), p.TreeScanned(scan, found("root 1", added=100, entries_before=0)))
    talk.say(p.Committed(talk.asked(p.Commit), ref(1)))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2", changed=1)))
    (commit,) = (effect for effect in talk.effects if isinstance(effect, p.Commit))
    assert (commit.author, commit.message) == ("ana; ben by token ci", "one\ntwo")


def test_mass_deletions_need_a_word() -> None:
    talk = published(publisher(), 1).at(5_000).say(p.TreeChanged((), is_overflow=True), p.PublishAsked(1))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2", removed=97)))
    talk.say(p.PublishAsked(2, accept_deletions=True))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2", removed=97)))
    talk.say(p.Committed(talk.asked(p.Commit), ref(2))).check("mass_deletion")


def test_a_missing_marker_and_a_damaged_file_stop_everything() -> None:
    talk = published(publisher(), 1).at(5_000).say(p.PublishAsked(1, accept_deletions=True))
    gone = Trouble("marker_missing", "/srv/catalog/.instep/id is missing", Retry.NEVER, 4)
    talk.say(p.ScanFailed(talk.asked(p.Scan), gone)).say(p.PublishAsked(2, accept_deletions=True))
    rotten = p.ScanSummary(digest("r"), 1, 1, 1, 0, 1, 0, 0, (ScanProblem(b"a.tif", "damaged"),))
    talk.say(p.TreeScanned(talk.asked(p.Scan), rotten)).check("disaster")


def test_a_held_path_is_named_and_the_rest_is_published() -> None:
    talk = published(publisher(), 1).at(5_000).say(p.TreeChanged((b"a",)), p.PublishAsked(1))
    held = HeldPaths((ScanProblem(b"a", "pipe", "", 1, 5),), 1, 1, 5)
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("root 2", changed=1), held=held)))
    talk.say(p.Committed(talk.asked(p.Commit), ref(2)))
    assert talk.machine.report.standing is Standing.HELD
    talk.at(10_000).say(TimerFired("held")).at(10_200).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 2"))).check("held_path")
    assert (talk.machine.report.standing, talk.machine.facts.held.total) == (Standing.IN_STEP, 0)


def test_what_is_held_by_a_publish_by_hand_is_looked_at_again_and_nothing_else_is_called_published() -> None:
    talk = published(publisher(), 1)
    talk.say(p.PublishConfigChanged(p.PublishConfig(node=MAIN, mode=p.PublishMode.MANUAL)))
    talk.at(5_000).say(p.PublishAsked(1))
    held = HeldPaths((ScanProblem(b"a", "unstable", "", 1, 5),), 1, 1, 5)
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("root 1"), held=held)))
    assert talk.machine.report.next_steps == ()
    talk.at(6_000).say(p.TreeChanged((b"b",)))
    assert talk.machine.report.standing is Standing.HELD
    assert "instep publish catalog" in talk.machine.report.next_steps, "b waits for the operator"
    talk.say(p.PublishAsked(2, is_dry_run=True))
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("root 2", changed=1), held=held)))
    assert "instep publish catalog" in talk.machine.report.next_steps, "a dry run publishes nothing"
    talk.at(10_000).say(TimerFired("held"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("root 2", changed=1), held=held)))
    assert talk.machine.facts.held.total == 1, "a program still writes it"
    talk.at(15_000).say(TimerFired("held"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 3", changed=2))).check("held_by_hand")
    assert (talk.machine.report.code, talk.machine.facts.held.total) == ("unpublished", 0)


def test_a_strict_fileset_publishes_all_or_nothing() -> None:
    talk = published(publisher(), 1)
    talk.say(p.PublishConfigChanged(p.PublishConfig(node=MAIN, is_strict=True)))
    talk.at(5_000).say(p.PublishAsked(1))
    held = HeldPaths((ScanProblem(b"a", "unreadable", "Permission denied"),), 1)
    talk.say(p.TreeScanned(talk.asked(p.Scan), replace(found("root 2", changed=1), held=held))).check(
        "strict"
    )


def test_a_writer_with_amnesia_goes_on_above_its_own_past() -> None:
    talk = publisher(partners=(S1,), has_past=True).say(p.Started())
    asked = talk.asked(p.AskPartners)
    talk.say(s.TreeRecovered(talk.asked(s.Recover))).at(200).say(TimerFired("settle"))
    talk.at(300).say(p.HeadOfOursSeen(S1, generation(41), OK), p.PartnersAnswered(asked, (S1,)))
    talk.say(p.ManifestFetched(talk.pending("FetchPages"))).at(600).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 41")))
    talk.at(5_000).say(p.TreeChanged((b"global.xml",))).at(5_200).say(TimerFired("settle"))
    talk.say(p.TreeScanned(talk.asked(p.Scan), found("root 42", changed=1)))
    talk.say(p.Committed(talk.asked(p.Commit), ref(42))).check("amnesia")


def test_an_empty_store_waits_for_a_partner_or_the_operator() -> None:
    talk = publisher(partners=(S1,)).say(p.Started())
    asked = talk.asked(p.AskPartners)
    talk.say(s.TreeRecovered(talk.asked(s.Recover)))
    talk.at(5_000).say(p.PartnersAnswered(asked, ()), TimerFired("ask"))
    talk.say(TimerFired("settle")).at(6_000).say(p.PublishAsked(1)).check("first_publish")


def test_a_run_under_way_ends_when_another_node_became_the_writer() -> None:
    talk = published(publisher(), 1)
    talk.say(p.EpochSeen(S1, epoch(), OK))
    talk.at(1_000).say(p.TreeChanged((b"global.xml",))).at(1_200).say(TimerFired("settle"))
    scan = talk.asked(p.Scan)
    talk.say(p.EpochSeen(S1, epoch(2, S1, "base"), SignerVerdict(True, NodeName("ca"), is_ca=True)))
    talk.say(p.TreeScanned(scan, found("root 2", changed=1)))
    assert not [effect for effect in talk.effects if isinstance(effect, p.Commit)]
    assert talk.machine.facts.head == ref(1)
    report = talk.machine.report
    assert report.code == "not_the_writer"
    assert "s1 writes epoch 2" in report.reason
    assert ref(1).id.hex()[:16] in report.reason
    talk.check("writer_replaced")
