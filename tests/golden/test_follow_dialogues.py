"""The follow machine, as dialogues."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.hook_writes import HOOK_WRITES
from instep.core.vocabulary import HookEnded, HookKind, HookWrite, RunHook, SetTimer, TimerFired, Trouble
from instep.errors import Retry
from instep.model.standing import Standing
from tests.golden.dialogue import HUB, MAIN, OK, Dialogue, epoch, follower, generation

NO = Trouble("probe_failed", "GetCapabilities answered 500", Retry.LATER, 1)


def begun(dialogue: Dialogue) -> Dialogue:
    dialogue.say(f.Started())
    dialogue.say(f.RecoveryEnded(dialogue.asked(f.Recover), f.RecoveryKind.NOTHING))
    return dialogue.say(f.SourceUp(MAIN, is_writer=True), f.EpochSeen(MAIN, epoch(), OK))


def staged(dialogue: Dialogue, number: int) -> Dialogue:
    dialogue.say(f.HeadSeen(MAIN, generation(number), OK))
    dialogue.say(f.PagesFetched(dialogue.asked(f.FetchPages)))
    return dialogue.say(f.Staged(dialogue.asked(f.StageContents)))


def live(dialogue: Dialogue, number: int) -> Dialogue:
    staged(dialogue, number).say(f.TreeSwitched(dialogue.asked(f.Switch)))
    if dialogue.machine._config.has_reload:
        dialogue.say(HookEnded(dialogue.asked(RunHook), HookKind.RELOAD))
    if dialogue.machine._config.has_probe:
        dialogue.say(HookEnded(dialogue.asked(RunHook), HookKind.PROBE))
    return dialogue.say(f.LiveRecorded(dialogue.asked(f.RecordLive)))


def test_a_head_becomes_live() -> None:
    live(begun(follower(has_reload=True, has_probe=True)), 1).check("head_becomes_live")


def test_a_newer_head_takes_over_while_fetching_but_not_while_switching() -> None:
    talk = begun(follower())
    talk.say(f.HeadSeen(MAIN, generation(1), OK)).say(f.HeadSeen(MAIN, generation(2), OK))
    talk.say(f.PagesFetched(talk.asked(f.FetchPages)))
    talk.say(f.Staged(talk.asked(f.StageContents)))
    switch = talk.asked(f.Switch)
    talk.say(f.HeadSeen(MAIN, generation(3), OK), f.TreeSwitched(switch))
    talk.say(f.LiveRecorded(talk.asked(f.RecordLive))).check("newest_head_wins")


def test_a_failing_probe_puts_back_and_the_generation_is_not_tried_again() -> None:
    talk = live(begun(follower(has_probe=True)), 1)
    staged(talk, 2).say(f.TreeSwitched(talk.asked(f.Switch)))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.PROBE, NO))
    talk.say(f.PutBackDone(talk.asked(f.PutBack)), f.HeadSeen(MAIN, generation(2), OK), TimerFired("poll"))
    talk.say(f.RetryAsked()).check("put_back")


def test_a_reload_that_was_due_runs_after_a_crash() -> None:
    first = staged(begun(follower(has_reload=True)), 1)
    target = next(e for e in first.effects if isinstance(e, f.Switch)).head
    facts = first.machine.facts
    talk = follower(facts, has_reload=True)
    talk.say(f.Started()).say(f.RecoveryEnded(talk.asked(f.Recover), f.RecoveryKind.FINISHED, target))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.RELOAD)).say(f.LiveRecorded(talk.asked(f.RecordLive)))
    talk.check("reload_after_crash")


def test_a_failed_thaw_is_told_beside_all_else_until_it_went_well() -> None:
    talk = live(begun(follower(has_probe=True)), 1)
    frozen = Trouble("thaw_failed", "thaw exited with 1", Retry.LATER, 7, "mend it")
    talk.say(f.HookOwed(frozen), f.Paused("for a while", None), f.Resumed())
    staged(talk, 2).say(f.TreeSwitched(talk.asked(f.Switch)))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.PROBE, NO))
    talk.say(f.PutBackDone(talk.asked(f.PutBack)), f.HookOwed(None)).check("thaw_failed")


def test_what_validate_said_under_other_settings_counts_for_nothing_and_is_asked_anew() -> None:
    talk = staged(begun(follower(has_validate=True)), 1)
    other = f.FollowConfig(writer=MAIN, has_validate=True, has_probe=True)
    refused = Trouble("validate_failed", "the old check says no", Retry.LATER, 7)
    hook = talk.asked(RunHook)
    talk.say(f.FollowConfigChanged(other), HookEnded(hook, HookKind.VALIDATE, refused))
    talk.say(f.PagesFetched(talk.asked(f.FetchPages))).say(f.Staged(talk.asked(f.StageContents)))
    talk.say(HookEnded(talk.asked(RunHook), HookKind.VALIDATE)).check("validate_of_other_settings")


def test_what_a_source_lacks_comes_from_the_next() -> None:
    talk = begun(follower()).say(f.SourceUp(HUB, is_writer=False), f.HeadSeen(HUB, generation(1), OK))
    talk.say(f.HeadSeen(MAIN, generation(1), OK))
    talk.say(f.PagesFetched(2))
    wrong = Trouble("content_mismatch", "bytes differ from their digest", Retry.ELSEWHERE, 9)
    talk.say(f.StageFailed(talk.asked(f.StageContents), wrong)).check("source_fails")


def test_a_full_disk_is_retried_later_and_told() -> None:
    talk = begun(follower()).say(f.HeadSeen(MAIN, generation(1), OK))
    talk.say(f.PagesFetched(talk.asked(f.FetchPages)))
    full = Trouble("disk_full", "no space left on device", Retry.LATER, 8)
    talk.say(f.StageFailed(talk.asked(f.StageContents), full)).at(500).say(TimerFired("retry-apply"))
    talk.say(f.Staged(talk.asked(f.StageContents))).check("full_disk")


def test_what_can_never_be_applied_is_left_alone_until_a_newer_generation_comes() -> None:
    talk = begun(follower())
    talk.say(f.HeadSeen(MAIN, generation(1), OK))
    talk.say(f.PagesFetched(talk.asked(f.FetchPages)))
    never = Trouble("definition_refused", "it asks for owners, this node allows none", Retry.NEVER, 4)
    talk.say(f.StageFailed(talk.asked(f.StageContents), never))
    for minute in range(1, 60):
        for timer in ("retry-apply", "poll"):
            talk.at(minute * 60_000).say(TimerFired(timer))
            assert not any(isinstance(each, f.FetchPages | f.StageContents) for each in talk.effects)
    talk.say(f.HeadSeen(MAIN, generation(2), OK))
    assert talk.asked(f.FetchPages)


def test_drift_is_reverted_three_times_and_then_named() -> None:
    talk = live(begun(follower()), 1)
    for turn in range(4):
        talk.at(10_000 * (turn + 1)).say(f.TreeTouched((b"global.xml",)))
        talk.at(10_000 * (turn + 1) + 200).say(TimerFired("drift-settle"))
        talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (b"global.xml",), 1))
        if turn < 3:
            talk.say(f.Reverted(talk.asked(f.Revert), (b"global.xml",)))
            talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (), 0))
    talk.check("drift_fight")


def looked(talk: Dialogue, at_ms: int, *drifted: bytes) -> Dialogue:
    """The watch reports paths, and the look finds that they differ."""
    talk.at(at_ms).say(f.TreeTouched(drifted))
    talk.at(at_ms + 200).say(TimerFired("drift-settle"))
    return talk.say(f.DriftChecked(talk.asked(f.CheckDrift), drifted, len(drifted)))


def test_what_was_offered_stays_and_what_was_refused_is_restored() -> None:
    """With ``offer`` nothing is restored unasked; what the writer refused is, and nothing else."""
    talk = live(begun(follower(drift=f.DriftPolicy.OFFER)), 1)
    talk.say(
        f.DriftChecked(talk.asked(f.CheckDrift), (), 0)
    )  # An edit of the time of the first apply counts.
    looked(talk, 10_000, b"a", b"b")
    talk.say(f.OffersChanged(pending=(b"a", b"b")))
    talk.say(f.OffersChanged(pending=(b"a",), lost=(b"b",)))
    talk.say(f.Reverted(talk.asked(f.Revert), (b"b",))).say(f.DriftChecked(talk.asked(f.CheckDrift), (), 0))
    talk.say(f.OffersChanged(pending=(b"a",))).check("offered")


def test_what_is_edited_under_a_lock_is_not_restored_before_it_ends() -> None:
    talk = live(begun(follower()), 1).say(f.OffersChanged(pending=(b"a",)))
    looked(talk, 10_000, b"a", b"b")
    talk.say(f.Reverted(talk.asked(f.Revert), (b"b",))).say(f.DriftChecked(talk.asked(f.CheckDrift), (), 0))
    talk.say(f.OffersChanged()).check("edited_under_a_lock")


def after_the_hook(talk: Dialogue, wrote: HookWrite) -> Dialogue:
    """The reload hook ends well and wrote a path; a look finds it, and it is restored."""
    talk.say(f.TreeTouched((wrote.path,)), HookEnded(talk.asked(RunHook), HookKind.RELOAD))
    if any(isinstance(each, f.RecordLive) for each in talk.effects):
        talk.say(f.LiveRecorded(talk.asked(f.RecordLive)))
    talk.at(talk.now + 200).say(TimerFired("drift-settle"))
    talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (wrote.path,), 1, hook_writes=(wrote,)))
    return talk.say(f.Reverted(talk.asked(f.Revert), (wrote.path,)))


def test_a_hook_that_writes_into_the_tree_runs_once_more_and_is_named() -> None:
    """Seen with GeoServer, whose reload rewrites global.xml: three put-backs, four reloads a generation, and status
    blamed a program."""
    talk = begun(follower(has_reload=True))
    wrote = HookWrite(b"global.xml", "reload")
    for number in (1, 2, 3, 4):  # in less than ten minutes: it is no fight
        staged(talk, number).say(f.TreeSwitched(talk.asked(f.Switch)))
        after_the_hook(talk, wrote)
        after_the_hook(talk, wrote)
        talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (), 0))
        assert talk.machine.report.code == HOOK_WRITES
        assert talk.machine.report.standing is Standing.IN_STEP
        if number == 1:
            talk.check("hook_writes")


def test_a_hook_that_says_what_it_writes_runs_once() -> None:
    talk = staged(begun(follower(has_reload=True)), 1)
    talk.say(f.TreeSwitched(talk.asked(f.Switch)))
    after_the_hook(talk, HookWrite(b"global.xml", "reload", is_expected=True))
    talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (), 0))
    assert (talk.machine.report.standing, talk.machine.report.code) == (Standing.IN_STEP, None)


def test_an_edit_beside_the_hooks_own_write_makes_the_hook_run_again() -> None:
    talk = staged(begun(follower(has_reload=True)), 1)
    talk.say(f.TreeSwitched(talk.asked(f.Switch)))
    wrote = HookWrite(b"global.xml", "reload", is_expected=True)
    talk.say(f.TreeTouched((b"edit",)), HookEnded(talk.asked(RunHook), HookKind.RELOAD))
    talk.say(f.LiveRecorded(talk.asked(f.RecordLive))).at(200).say(TimerFired("drift-settle"))
    both = (b"edit", wrote.path)
    talk.say(f.DriftChecked(talk.asked(f.CheckDrift), both, 2, hook_writes=(wrote,)))
    talk.say(f.Reverted(talk.asked(f.Revert), both))
    assert talk.asked(RunHook)


def test_a_path_that_drifted_is_not_in_step_after_a_switch_before_it_was_looked_at() -> None:
    """Seen on a busy machine: a generation that changed another path was switched to, and for a moment the node said
    IN STEP beside an edit that it knew."""
    talk = live(begun(follower(drift=f.DriftPolicy.KEEP)), 1)
    talk.at(10_000).say(f.TreeTouched((b"global.xml",)))
    talk.at(10_200).say(TimerFired("drift-settle"))
    talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (b"global.xml",), 1))
    live(talk, 2)
    assert talk.machine._stand().standing is Standing.DRIFTED
    talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (), 0))
    assert talk.machine._stand().standing is Standing.IN_STEP


def test_a_timer_that_fires_a_moment_early_is_not_the_last_word_on_what_was_touched() -> None:
    """A clock of milliseconds cuts off: the loop's timer may come before the moment that it was set to."""
    talk = live(begun(follower()), 1)
    talk.at(10_000).say(f.TreeTouched((b"global.xml",)))
    talk.at(10_199).say(TimerFired("drift-settle"))
    assert talk.asked(f.CheckDrift)


def test_what_cannot_be_restored_is_tried_more_and_more_seldom() -> None:
    talk = live(begun(follower()), 1)
    talk.at(10_000).say(f.TreeTouched((b"global.xml",)))
    talk.at(10_200).say(TimerFired("drift-settle"))
    waits = []
    for _ in range(4):
        talk.say(f.DriftChecked(talk.asked(f.CheckDrift), (b"global.xml",), 1))
        began = talk.now
        talk.say(f.RevertFailed(talk.asked(f.Revert), NO))
        failed = talk.effects
        talk.say(f.RecoveryEnded(talk.asked(f.Recover), f.RecoveryKind.NOTHING))
        due = next(e.at_ms for e in failed if isinstance(e, SetTimer) and e.name == "retry-revert")
        assert due is not None
        check = talk.asked(f.CheckDrift)
        talk.say(f.DriftChecked(check, (b"global.xml",), 1))
        assert not any(isinstance(e, f.Revert) for e in talk.effects)
        waits.append(due - began)
        talk.at(due).say(f.TreeTouched((b"global.xml",)), TimerFired("retry-revert"))
        talk.at(due + 200).say(TimerFired("drift-settle"))
    assert waits == sorted(waits) and waits[-1] > 2 * waits[0]


def test_a_switch_that_fails_again_and_again_is_tried_more_and_more_seldom() -> None:
    """The steps before it go well each time, the recovery too; neither is a reason to begin anew from the shortest
    wait, nor to show the node as applying. A newer head begins afresh."""
    talk = begun(follower()).say(f.HeadSeen(MAIN, generation(1), OK))
    refused = Trouble("no_permission", "a: permission denied", Retry.LATER, 8)
    waits = []
    for _ in range(5):
        talk.say(f.PagesFetched(talk.asked(f.FetchPages))).say(f.Staged(talk.asked(f.StageContents)))
        began = talk.now
        talk.say(f.SwitchFailed(talk.asked(f.Switch), refused))
        due = next(e.at_ms for e in talk.effects if isinstance(e, SetTimer) and e.name == "retry-apply")
        assert due is not None
        waits.append(due - began)
        talk.say(f.RecoveryEnded(talk.asked(f.Recover), f.RecoveryKind.UNDONE))
        assert talk.machine.report.code == "no_permission"
        talk.at(due).say(TimerFired("retry-apply"))
    assert waits == sorted(waits) and waits[-1] > 10 * waits[0]
    talk.say(f.PagesFetched(talk.asked(f.FetchPages)))
    assert talk.machine.report.code == "no_permission"
    assert sum("the switch to generation 1 failed" in line for line in talk.lines) == 1
    talk.say(f.HeadSeen(MAIN, generation(2), OK)).say(f.PagesFetched(talk.asked(f.FetchPages)))
    assert talk.machine.report.code is None


def test_paused_stages_but_does_not_switch() -> None:
    talk = begun(follower()).say(f.Paused("exam week"))
    staged(talk, 1).say(f.Resumed()).check("paused")


def test_observing_compares_and_never_writes() -> None:
    talk = begun(follower(is_observing=True)).say(f.HeadSeen(MAIN, generation(1), OK))
    talk.say(f.PagesFetched(talk.asked(f.FetchPages)))
    talk.say(f.Compared(talk.asked(f.CompareTree), 2, 1, 0, (b"a", b"b"))).check("observing")


def test_two_records_for_one_epoch_block_and_answers_to_old_questions_are_dropped() -> None:
    talk = live(begun(follower()), 1)
    ca = type(OK)(True, MAIN, is_ca=True)
    talk.say(f.EpochSeen(MAIN, epoch(1, HUB, "x"), ca), f.HeadSeen(MAIN, generation(2), OK))
    talk.say(f.LiveRecorded(4), f.Staged(3), f.EpochSeen(MAIN, epoch(2, MAIN, "y"), ca))
    talk.check("two_epochs")


def test_a_source_whose_newest_generation_was_gone_is_asked_what_it_has_and_tried_again() -> None:
    """A source leaves out a head that the asker says is known: then no source would have it until there is a newer
    one."""
    talk = begun(follower())
    talk.say(f.HeadSeen(MAIN, generation(1), OK)).say(f.PagesFetched(talk.asked(f.FetchPages)))
    talk.say(f.HeadSuperseded(talk.asked(f.StageContents)))
    asked = [effect for effect in talk.effects if isinstance(effect, f.AskHeads)][-1]
    assert asked.is_repeated
    talk.say(f.AskFailed(asked.req, MAIN, Trouble("unavailable", "no answer", Retry.LATER, 7)))
    talk.at(40_000).say(TimerFired("poll"))
    again = [effect for effect in talk.effects if isinstance(effect, f.AskHeads)][-1]
    assert again.req != asked.req
    assert again.is_repeated
    talk.say(f.HeadSeen(MAIN, generation(1), OK), f.HeadsAnswered(again.req, MAIN))
    talk.say(f.Staged(talk.pending("StageContents")))
    assert talk.asked(f.Switch)


def test_a_generation_that_goes_past_what_a_partner_has_is_not_taken() -> None:
    """The writer came back with an older state, and published up to 5 before it heard of the 3 that is here."""
    talk = live(begun(follower()), 3)
    beside = generation(3, root="other").ref()
    talk.say(f.HeadSeen(MAIN, generation(5), OK, beside=beside))
    assert talk.machine.facts.head.number == 3
    assert [effect.head.number for effect in talk.effects if isinstance(effect, f.OfferHead)] == [3]
    assert talk.machine.report.code == "reused_number"
    talk.say(
        f.HeadSeen(MAIN, generation(6), OK)
    )  # an operator decided: the writer names nothing beside it any more
    assert talk.machine.facts.head.number == 6
    talk.check("goes_past_what_a_partner_has")


def test_what_goes_past_is_not_taken_either_before_its_writer_counts_as_connected() -> None:
    """The head overtakes the event that says that the link is up."""
    talk = live(begun(follower()), 3).say(f.SourceDown(MAIN))
    talk.say(f.HeadSeen(MAIN, generation(5), OK, beside=generation(3, root="other").ref()))
    assert talk.machine.facts.head.number == 3
    talk.say(f.SourceUp(MAIN, is_writer=True), f.HeadSeen(MAIN, generation(5), OK))
    assert talk.machine.facts.head.number == 5
