"""The machine that brings a tree to the union of several lines, as dialogues."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.core.unite import vocabulary as u
from instep.core.vocabulary import HookEnded, HookKind, RetryAsked, RunHook, Started, TimerFired, Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.replication.union import UnionPart, Withheld
from tests.golden.dialogue import Dialogue, digest, uniter

A, B, ME = NodeName("a"), NodeName("b"), NodeName("main")
BAD = Trouble("exit_1", "it ended with 1", Retry.LATER, 7)


def union(number: int) -> HeadRef:
    return HeadRef(1, number, digest(f"union {number}"), digest(f"root {number}"))


def part(origin: NodeName, number: int) -> UnionPart:
    head = HeadRef(1, number, digest(f"{origin} {number}"), digest(f"{origin} root {number}"))
    return UnionPart(origin, head)


def begun(talk: Dialogue) -> Dialogue:
    """The tree held nothing, and the own line was published."""
    talk.say(Started())
    talk.say(f.RecoveryEnded(talk.asked(f.Recover), f.RecoveryKind.NOTHING), u.TreeKnown(None))
    return talk.say(u.OwnCommitted(union(1), part(ME, 1)))


def made(talk: Dialogue, number: int) -> Dialogue:
    return talk.say(u.UnionMade(talk.pending("Unite"), union(number)))


def live(talk: Dialogue, number: int) -> Dialogue:
    """From the union that is made to the one that is live."""
    made(talk, number)
    talk.say(f.Staged(talk.asked(f.StageContents)))
    talk.say(f.TreeSwitched(talk.asked(f.Switch)))
    return talk.say(f.LiveRecorded(talk.asked(f.RecordLive)))


def test_heads_of_two_homes_are_one_union_and_one_switch() -> None:
    """While it is staged the own line goes on: the stage is old then, and another union is made."""
    talk = begun(uniter())
    made(talk.say(u.PartsKnown((part(A, 1), part(B, 1)))), 2)
    talk.say(u.OwnCommitted(union(3), part(ME, 2)))
    live(talk, 4)
    talk.say(u.PartsKnown((part(A, 2), part(B, 1))))
    made(talk, 5).say(f.Staged(talk.asked(f.StageContents)))
    talk.say(u.OwnCommitted(union(6), part(ME, 3)), u.StageStale(talk.pending("Switch")))
    live(talk, 7).check("unite_heads")


def test_a_union_of_an_older_own_part_is_not_brought_into_the_tree() -> None:
    """The own line was committed after the union was asked for, and before it was made: it has a later number."""
    talk = begun(uniter()).say(u.PartsKnown((part(A, 1),)))
    talk.say(u.OwnCommitted(union(2), part(ME, 2)))
    made(talk, 3)
    live(talk, 4).check("unite_passed")


def test_names_that_the_parts_would_not_give_end_with_a_switch() -> None:
    """The own line let go of a name; another home's file lies under its other one until then, also after a restart."""
    talk = begun(uniter())
    live(talk.say(u.PartsKnown((part(A, 1),))), 2)
    talk.say(u.OwnCommitted(union(3), part(ME, 2), is_whole=False))
    trouble = Trouble("state_busy", "the state is busy", Retry.LATER, 7)
    talk.say(u.UniteFailed(talk.pending("Unite"), trouble)).at(60_000).say(TimerFired("backoff"))
    live(talk, 4).check("unite_kept_names")


def test_nothing_is_done_before_it_is_certain_what_the_tree_holds() -> None:
    talk = uniter()
    talk.say(Started(), u.PartsKnown((part(A, 1),)))
    talk.say(f.RecoveryEnded(talk.pending("Recover"), f.RecoveryKind.NOTHING))
    talk.say(u.TreeKnown(None, is_certain=False), f.TreeTouched((b"x",)), TimerFired("drift-settle"))
    talk.at(900).say(u.TreeKnown(union(7), (part(A, 1), part(ME, 4))), u.PartsKnown((part(A, 2),)))
    live(talk, 8).check("unite_tree_unknown")


def test_of_several_heads_that_are_refused_together_each_is_tried_alone() -> None:
    talk = begun(uniter(has_validate=True))
    made(talk.say(u.PartsKnown((part(A, 1), part(B, 1)))), 2)

    def validated(trouble: Trouble | None) -> None:
        talk.say(f.Staged(talk.asked(f.StageContents)))
        talk.say(HookEnded(talk.asked(RunHook), HookKind.VALIDATE, trouble))

    validated(BAD)
    made(talk, 3)
    validated(BAD)
    made(talk, 4)
    validated(None)
    talk.say(f.TreeSwitched(talk.asked(f.Switch)))
    talk.say(f.LiveRecorded(talk.asked(f.RecordLive)))
    made(talk.say(RetryAsked()), 5).check("unite_refused")


def test_a_head_without_room_keeps_no_other_home_out() -> None:
    """The disk is too small for what ``a`` published: ``b`` and later heads of it go on, ``a`` waits for room."""
    full = Trouble("no_space", "too small", Retry.LATER, 8)
    talk = begun(uniter())
    made(talk.say(u.PartsKnown((part(A, 1), part(B, 1)))), 2)
    talk.say(f.StageFailed(talk.asked(f.StageContents), full))
    made(talk, 3).say(f.StageFailed(talk.asked(f.StageContents), full))
    live(talk, 4)
    made(talk, 5).say(f.StageFailed(talk.asked(f.StageContents), full))
    live(talk.say(u.PartsKnown((part(A, 1), part(B, 2)))), 6)
    made(talk, 7).say(f.StageFailed(talk.asked(f.StageContents), full))
    talk.at(60_000).say(RetryAsked())
    talk.say(f.Staged(talk.pending("StageContents")))
    talk.say(f.TreeSwitched(talk.asked(f.Switch)))
    talk.say(f.LiveRecorded(talk.asked(f.RecordLive))).check("unite_no_room")


def test_a_file_that_cannot_be_had_and_a_line_without_a_source_keep_nothing_else_back() -> None:
    wanted = Entry(b"bad", Kind.FILE, 0o644, 3, 1, digest("bad"), 1)
    talk = begun(uniter())
    made(talk.say(u.PartsKnown((part(A, 1), part(B, 1)))), 2)
    trouble = Trouble("contents_missing", "1 file cannot be had: bad", Retry.LATER, 7)
    talk.say(u.ContentsMissing(talk.asked(f.StageContents), (B,), (Withheld(A, wanted, None),), trouble))
    live(talk, 3)
    talk.at(5_000).say(u.LineReachable(B))
    live(talk, 4).say(TimerFired("poll")).check("unite_withheld")


def test_withheld_files_come_though_the_own_line_goes_on_and_another_one_is_missing_still() -> None:
    """The union without withheld entries is passed by an own commit, and made again. Then one of two files is there: it
    does not wait for the other."""
    one, other = (Entry(path, Kind.FILE, 0o644, 3, 1, digest("bad"), 1) for path in (b"one", b"other"))
    talk = begun(uniter())
    made(talk.say(u.PartsKnown((part(A, 1),))), 2)
    trouble = Trouble("contents_missing", "2 files cannot be had: one, other", Retry.LATER, 7)
    missing = (Withheld(A, one), Withheld(A, other))
    talk.say(u.ContentsMissing(talk.asked(f.StageContents), (), missing, trouble))
    live(talk, 3)
    talk.at(30_000).say(TimerFired("poll"), u.OwnCommitted(union(4), part(ME, 2)))
    made(talk, 5)
    made(talk, 6).say(u.ContentsMissing(talk.asked(f.StageContents), (), missing[1:], trouble))
    live(talk, 7).check("unite_withheld_again")


def test_a_head_that_takes_names_waits_for_an_operator() -> None:
    talk = begun(uniter()).say(u.PartsKnown((part(A, 1),)))
    trouble = Trouble("takes_names", "it would take 30 names", Retry.NEVER, 4)
    talk.say(u.PartRefused(talk.asked(u.Unite), part(A, 1), trouble))
    talk.say(RetryAsked()).check("unite_takes_names")


def test_an_answer_about_contents_that_names_nothing_new_is_followed_by_a_pause() -> None:
    talk = begun(uniter())
    made(talk.say(u.PartsKnown((part(A, 1), part(B, 1)))), 2)
    trouble = Trouble("contents_missing", "a: no source answers", Retry.LATER, 7)
    talk.say(u.ContentsMissing(talk.asked(f.StageContents), (A,), (), trouble))
    made(talk, 3)
    talk.say(u.ContentsMissing(talk.asked(f.StageContents), (A,), (), trouble))
    assert not any(isinstance(effect, u.Unite) for effect in talk.effects)
    talk.at(60_000).say(TimerFired("apply")).check("unite_missing_again")


def test_a_union_that_was_made_over_older_live_heads_is_not_brought_into_the_tree() -> None:
    """It was asked for while another was staged, and is made in its switch, or behind it: it has not the head of ``a``."""
    talk = begun(uniter())

    def switched(known: UnionPart, to_make: int | None) -> None:
        staged = talk.pending("StageContents")
        talk.say(u.PartsKnown((known,)), f.Staged(staged))
        asked = talk.pending("Unite")
        if to_make is not None:
            talk.say(u.UnionMade(asked, union(to_make)))
        talk.say(f.TreeSwitched(talk.pending("Switch")))
        talk.say(f.LiveRecorded(talk.pending("RecordLive")))

    made(talk.say(u.PartsKnown((part(A, 1),))), 2)
    switched(part(B, 1), 3)
    made(talk, 4)
    switched(part(A, 2), None)
    made(talk, 5)
    live(talk, 6)
    assert talk.machine._facts.attempts.live == (part(A, 2), part(B, 1), part(ME, 1))
    talk.check("unite_older_live")


def test_files_that_the_tree_does_not_have_are_fetched_after_a_start_with_an_older_state() -> None:
    """Only the record of the tree says which: by the state nothing is withheld."""
    wanted = Entry(b"bad", Kind.FILE, 0o644, 3, 1, digest("bad"), 1)
    talk = uniter()
    talk.say(Started(), u.PartsKnown((part(A, 1),)))
    known = u.TreeKnown(union(7), (part(A, 1), part(ME, 4)), withheld=(Withheld(A, wanted),))
    talk.say(f.RecoveryEnded(talk.pending("Recover"), f.RecoveryKind.NOTHING), known)
    live(talk, 8)
    assert talk.machine._facts.withheld == ()
    talk.check("unite_withheld_by_the_tree")
