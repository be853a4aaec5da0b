"""Which node may take a line, which one an outdated file makes the writer, and the generations that a promotion
costs."""

from __future__ import annotations

from random import Random

from instep.core.follow.vocabulary import Due, FollowFacts
from instep.core.lines.accept import (
    AcceptedEpoch,
    AcceptedHead,
    EpochBook,
    EpochClaim,
    KnownRecord,
    Refused,
    is_left_behind,
    judge_epoch,
    judge_head,
    word_of,
)
from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.machine import PublishMachine
from instep.core.publish.right_to_write import owes_a_generation, why_not_writer
from instep.core.publish.vocabulary import PublishFacts
from instep.core.vocabulary import SignerVerdict
from instep.core.writer_change import (
    follows_by_itself,
    lost_generations,
    next_epoch,
    rests_on,
    to_follow,
    to_publish,
)
from instep.model.ids import NodeName
from tests.golden.dialogue import HUB, LINE, MAIN, OK, epoch, generation, ref
from tests.unit.core.test_accept import CA, S1, based_on, book, code_of

FIRST = book((1, MAIN, "", OK))
BY_S1 = SignerVerdict(True, S1)


def test_a_replaced_writer_cannot_sign_itself_back_through_a_file_that_still_names_it() -> None:
    """Goal: the record counts, not the file it has not reached yet. Method: a promotion, then the old writer's own."""
    promoted = judge_epoch(based_on(generation(8), 2, S1), CA, LINE, FIRST, MAIN)
    assert isinstance(promoted, AcceptedEpoch)
    own = epoch(3, MAIN, "again")
    stale = word_of(MAIN, promoted.book, overrules=False)
    assert stale is None
    assert code_of(judge_epoch(own, OK, LINE, promoted.book, stale)) == "not_entitled"
    by_hand = word_of(MAIN, promoted.book, overrules=True)
    assert isinstance(judge_epoch(own, OK, LINE, promoted.book, by_hand), AcceptedEpoch)


def test_no_writer_signs_itself_an_epoch_that_nobody_could_go_above() -> None:
    """Goal: a stolen key does not end a line for ever. Method: the highest epoch there is, and the next one."""
    assert code_of(judge_epoch(epoch(1 << 53, MAIN, "x"), OK, LINE, FIRST, MAIN)) == "epoch_gap"
    assert isinstance(judge_epoch(epoch(2, MAIN, "x"), OK, LINE, FIRST, MAIN), AcceptedEpoch)


def test_who_comes_after_a_handover_begins_with_the_first_record() -> None:
    """Goal: a new partner verifies the whole row. Method: records 1 to 3 at a node that knows none, its file naming
    the last writer; and a first record that another node signed for itself."""
    known = EpochBook()
    for record, verdict in ((epoch(1), OK), (epoch(2, S1, "b"), OK), (epoch(3, HUB, "c"), BY_S1)):
        judged = judge_epoch(record, verdict, LINE, known, word_of(HUB, known, overrules=False))
        assert isinstance(judged, AcceptedEpoch), judged
        known = judged.book
    assert code_of(judge_epoch(epoch(1, S1), BY_S1, LINE, EpochBook(), HUB)) == "not_entitled"


def test_the_same_record_under_another_signature_is_no_rival() -> None:
    handed = judge_epoch(epoch(2, S1, "b"), OK, LINE, FIRST, MAIN)
    assert isinstance(handed, AcceptedEpoch)
    assert isinstance(judge_epoch(epoch(2, S1, "b"), CA, LINE, handed.book, S1), KnownRecord)


def test_a_promotion_leaves_behind_what_it_does_not_build_on() -> None:
    """Goal: no node begins a generation that the line goes on without. Method: the base, and a generation above it."""
    judged = judge_epoch(based_on(generation(8), 2, S1), CA, LINE, FIRST, MAIN)
    assert isinstance(judged, AcceptedEpoch)
    assert judged.book.current is not None and judged.book.current.is_promoted
    assert not is_left_behind(generation(8).ref(), judged.book)
    assert is_left_behind(generation(9).ref(), judged.book)
    assert not is_left_behind(generation(9, epoch=2).ref(), judged.book)


def test_the_base_of_a_promotion_out_of_a_dispute_counts_whoever_signed_it() -> None:
    """Goal: a node that is behind gets the base. Method: two claims, then the CA's word for the second claimant."""
    disputed = book((1, MAIN, "", OK), (2, S1, "base", CA), (2, HUB, "base", CA))
    base = generation(9, epoch=2, signer=HUB)
    resolved = judge_epoch(based_on(base, 3, HUB), CA, LINE, disputed, MAIN)
    assert isinstance(resolved, AcceptedEpoch)
    by_hub = SignerVerdict(True, HUB)
    assert isinstance(judge_head(base, by_hub, LINE, generation(8).ref(), resolved.book), AcceptedHead)
    other = generation(9, epoch=2, root="other")
    assert isinstance(judge_head(other, BY_S1, LINE, generation(8).ref(), resolved.book), Refused)


def test_what_a_promotion_loses_is_what_somebody_told_of_above_what_is_held() -> None:
    """Goal: every generation that is known above the base is named once, with the nodes that know it; none below."""
    told = [(MAIN, ref(9)), (NodeName("s2"), ref(8)), (MAIN, ref(8)), (NodeName("s2"), ref(3))]
    lost = lost_generations(ref(6), told, [ref(7), ref(6), ref(9)])
    assert [(one.number, one.known_by) for one in lost] == [(7, ()), (8, ("main", "s2")), (9, ("main",))]
    assert lost_generations(ref(9), told) == ()
    gap = lost_generations(ref(6), [(MAIN, ref(9))])
    assert [(one.number, one.id) for one in gap] == [(7, None), (8, None), (9, ref(9).id)]
    rival = generation(8, epoch=2, root="other").ref()
    mine = generation(9, epoch=2).ref()
    assert [one.id for one in lost_generations(mine, [(HUB, rival), (S1, mine)], [mine], 2)] == [rival.id]
    assert next_epoch(FIRST, [ref(9)]) == 2
    assert next_epoch(book((1, MAIN, "", OK), (2, S1, "a", CA), (2, HUB, "b", CA)), []) == 3
    assert next_epoch(EpochBook(), [generation(4, epoch=6).ref()]) == 7


def test_only_a_tree_at_rest_is_built_on() -> None:
    whole = FollowFacts(head=ref(9), live=ref(7), tree=ref(7))
    assert rests_on(whole) == ref(7)
    assert rests_on(FollowFacts(head=ref(9), live=ref(7), tree=ref(9), due=Due.RELOAD)) is None
    assert rests_on(FollowFacts()) is None
    assert to_publish(whole).highest == 9


def test_a_writer_steps_back_by_itself_only_when_the_line_holds_all_it_made() -> None:
    handed = judge_epoch(based_on(generation(8), 2, S1), OK, LINE, FIRST, MAIN)
    assert isinstance(handed, AcceptedEpoch)
    assert follows_by_itself(PublishFacts(head=generation(8).ref()), handed.book)
    assert not follows_by_itself(PublishFacts(head=generation(9).ref()), handed.book)


def test_a_writer_whose_state_is_older_than_its_epoch_waits_for_the_base_and_takes_it_from_whoever_has_it() -> (
    None
):
    """Goal: a restored backup publishes over nothing. Method: a record that builds on a generation of another node,
    at a writer that knows an older one; then that generation from a partner, and one that is not it."""
    record = based_on(generation(9, epoch=2, signer=S1), 3, MAIN)
    names = EpochBook(EpochClaim(2, based_on(generation(8), 2, S1).id, S1, b""))
    judged = judge_epoch(record, BY_S1, LINE, names, MAIN)
    assert isinstance(judged, AcceptedEpoch)
    facts = PublishFacts(epoch=3, head=ref(7), base=ref(7), highest=7, was_confirmed=True, epochs=judged.book)
    assert (why := why_not_writer(LINE, facts, MAIN)) is not None and why.code == "base_missing"
    machine = PublishMachine(LINE, p.PublishConfig(MAIN), Random(1), facts)
    machine.step(p.Started(), 0)
    other = generation(9, epoch=2, root="other", signer=S1)
    machine.step(p.HeadOfOursSeen(HUB, other, BY_S1), 1)
    assert machine.facts.head == ref(7)
    machine.step(p.HeadOfOursSeen(HUB, generation(9, epoch=2, signer=S1), BY_S1), 2)
    assert machine.facts.head == generation(9, epoch=2, signer=S1).ref()
    assert why_not_writer(LINE, machine.facts, MAIN) is None
    assert to_follow(machine.facts).tree == ref(7)


def test_a_promoted_writer_publishes_at_once_though_nothing_changed() -> None:
    judged = judge_epoch(based_on(generation(8), 2, MAIN), CA, LINE, FIRST, MAIN)
    assert isinstance(judged, AcceptedEpoch)
    held = generation(8).ref()
    facts = PublishFacts(epoch=2, head=held, base=held, highest=8, was_confirmed=True, epochs=judged.book)
    assert owes_a_generation(facts, MAIN)
    machine = PublishMachine(LINE, p.PublishConfig(MAIN, mode=p.PublishMode.MANUAL), Random(1), facts)
    recover = next(e for e in machine.step(p.Started(), 0) if isinstance(e, s.Recover))
    scan = next(e for e in machine.step(s.TreeRecovered(recover.req), 0) if isinstance(e, p.Scan))
    same = p.ScanSummary(held.root, 1, 1, 1, 0, 0, 0, 0)
    commit = next(e for e in machine.step(p.TreeScanned(scan.req, same), 1) if isinstance(e, p.Commit))
    assert (commit.epoch, commit.number, commit.root) == (2, 9, held.root)
