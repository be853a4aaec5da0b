"""Records that a hostile or confused peer may send, and the verdict on each."""

from __future__ import annotations

import msgspec
import pytest

from instep.core.lines.accept import (
    AcceptedEpoch,
    AcceptedHead,
    EpochBook,
    KnownRecord,
    OldRecord,
    Refused,
    judge_epoch,
    judge_head,
)
from instep.core.vocabulary import SignerVerdict
from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import FilesetName, LineId, NodeName
from tests.golden.dialogue import HUB, LINE, MAIN, OK, epoch, generation

S1 = NodeName("s1")
CA = SignerVerdict(True, NodeName("ca"), is_ca=True)
BY_HUB = SignerVerdict(True, HUB)


def book(*records: tuple[int, NodeName, str, SignerVerdict]) -> EpochBook:
    known = EpochBook()
    for number, writer, base, verdict in records:
        judged = judge_epoch(epoch(number, writer, base), verdict, LINE, known, MAIN)
        assert isinstance(judged, AcceptedEpoch), judged
        known = judged.book
    return known


def based_on(base: SignedGeneration, number: int, writer: NodeName) -> SignedEpoch:
    raw = msgspec.structs.replace(epoch(number, writer).body(), base=base.id).encoded()
    return SignedEpoch(raw, epoch().signature)


FIRST = book((1, MAIN, "", OK))


def code_of(judged: object) -> str:
    assert isinstance(judged, Refused), judged
    return judged.trouble.code


def test_only_rising_positions_are_accepted() -> None:
    head = generation(5).ref()
    assert isinstance(judge_head(generation(6), OK, LINE, head, FIRST), AcceptedHead)
    assert isinstance(judge_head(generation(5), OK, LINE, head, FIRST), KnownRecord)
    assert isinstance(judge_head(generation(4), OK, LINE, head, FIRST), OldRecord)


def test_a_reused_number_is_refused_and_names_both() -> None:
    head, other = generation(5).ref(), generation(5, root="other")
    judged = judge_head(other, OK, LINE, head, FIRST)
    assert code_of(judged) == "reused_number"
    assert isinstance(judged, Refused)
    assert dict(judged.trouble.facts) == {"here": head.id.hex(), "offered": other.id.hex()}


@pytest.mark.parametrize(
    ("signed", "verdict", "code"),
    [
        (generation(1), SignerVerdict(False, MAIN, code="bad_signature"), "bad_signature"),
        (generation(1), BY_HUB, "not_the_writer"),
        (generation(1, epoch=2), OK, "unknown_epoch"),
        (SignedGeneration(b"\xc1", generation(1).signature), OK, "bad_record"),
        (SignedGeneration(b"x" * 70_000, generation(1).signature), OK, "record_too_large"),
        (generation(0), OK, "bad_record"),
    ],
)
def test_refusals_have_names(signed: SignedGeneration, verdict: SignerVerdict, code: str) -> None:
    assert code_of(judge_head(signed, verdict, LINE, None, FIRST)) == code


def test_another_line_and_bad_fields_are_refused() -> None:
    other = LineId(FilesetName("other"), MAIN)
    assert code_of(judge_head(generation(1), OK, other, None, FIRST)) == "wrong_line"
    body = generation(1).body()
    for change in (
        {"root": b"short"},
        {"parent": b"short"},
        {"entries": -1},
        {"version": 9},
        {"author": "x" * 300},
    ):
        raw = msgspec.structs.replace(body, **change).encoded()
        assert isinstance(
            judge_head(SignedGeneration(raw, generation(1).signature), OK, LINE, None, FIRST), Refused
        )


def test_a_handover_and_a_promotion_make_a_new_writer() -> None:
    handed = book((1, MAIN, "", OK), (2, S1, "base", OK))
    assert handed.current is not None
    assert handed.current.writer == S1
    assert code_of(judge_head(generation(9), OK, LINE, None, handed)) == "old_epoch"
    by_s1 = SignerVerdict(True, S1)
    assert isinstance(
        judge_head(generation(9, epoch=2), by_s1, LINE, generation(9).ref(), handed), AcceptedHead
    )
    promoted = book((1, MAIN, "", OK), (7, HUB, "base", CA))
    assert promoted.current is not None
    assert promoted.current.epoch == 7


def test_who_is_behind_at_a_change_of_writer_still_gets_its_base_and_nothing_else_of_before() -> None:
    base, lost = generation(8), generation(9)
    record = based_on(base, 2, S1)
    handed = judge_epoch(record, OK, LINE, FIRST, MAIN)
    assert isinstance(handed, AcceptedEpoch)
    seventh = generation(7).ref()
    assert isinstance(judge_head(base, OK, LINE, seventh, handed.book), AcceptedHead)
    assert code_of(judge_head(lost, OK, LINE, seventh, handed.book)) == "old_epoch"
    assert code_of(judge_head(base, BY_HUB, LINE, seventh, handed.book)) == "old_epoch"
    forged = SignerVerdict(False, MAIN, code="signer_revoked")
    assert code_of(judge_head(base, forged, LINE, seventh, handed.book)) == "signer_revoked"
    rival = judge_epoch(based_on(base, 2, HUB), OK, LINE, handed.book, MAIN)
    assert isinstance(rival, AcceptedEpoch)
    assert rival.is_disputed
    assert code_of(judge_head(base, OK, LINE, seventh, rival.book)) == "old_epoch"


def test_a_new_epoch_puts_the_head_above_all_of_the_one_before() -> None:
    handed = judge_epoch(based_on(generation(8), 2, S1), OK, LINE, FIRST, MAIN)
    assert isinstance(handed, AcceptedEpoch)
    head = generation(9, epoch=2).ref()
    assert isinstance(judge_head(generation(8), OK, LINE, head, handed.book), OldRecord)
    assert isinstance(judge_head(generation(50), OK, LINE, head, handed.book), OldRecord)


def test_who_may_not_give_an_epoch_is_refused() -> None:
    assert code_of(judge_epoch(epoch(2, HUB, "b"), BY_HUB, LINE, FIRST, MAIN)) == "not_entitled"
    assert code_of(judge_epoch(epoch(3, S1, "b"), OK, LINE, FIRST, HUB)) == "epoch_gap"
    forged = SignerVerdict(False, MAIN)
    assert code_of(judge_epoch(epoch(2, S1, "b"), forged, LINE, FIRST, MAIN)) == "bad_signature"


@pytest.mark.parametrize("second", [(2, HUB, "base", OK), (2, HUB, "base", CA), (2, S1, "other", CA)])
def test_two_records_for_one_epoch_stop_it_until_a_higher_one(
    second: tuple[int, NodeName, str, SignerVerdict],
) -> None:
    disputed = book((1, MAIN, "", OK), (2, S1, "base", OK), second)
    assert disputed.disputed == 2
    for signer in (S1, HUB, MAIN):
        verdict = SignerVerdict(True, signer)
        assert code_of(judge_head(generation(9, epoch=2), verdict, LINE, None, disputed)) == "epoch_conflict"
    assert (
        code_of(judge_epoch(epoch(3, HUB, "c"), SignerVerdict(True, S1), LINE, disputed, MAIN))
        == "not_entitled"
    )
    resolved = judge_epoch(epoch(3, S1, "c"), CA, LINE, disputed, MAIN)
    assert isinstance(resolved, AcceptedEpoch)
    assert resolved.book.disputed is None
