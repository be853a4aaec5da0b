"""A writer's own generation at the position of a partner's."""

from __future__ import annotations

import msgspec

from instep.core.lines.accept import AcceptedHead, EpochBook, EpochClaim, Refused, judge_head
from instep.core.publish.own_line import own_at
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef
from tests.golden.dialogue import LINE, MAIN, OK, generation


def built_on(parent: SignedGeneration | None, number: int, root: str = "") -> SignedGeneration:
    made = generation(number, root=root)
    body = msgspec.structs.replace(made.body(), parent=made.body().parent if parent is None else parent.id)
    return SignedGeneration(body.encoded(), made.signature)


ONE = built_on(None, 1)
LOST = built_on(ONE, 2, "lost")
TWO = built_on(ONE, 2)
THREE = built_on(ONE, 3)
"""The commit of 2 failed."""


def own(ref: HeadRef, *stored: SignedGeneration) -> HeadRef | None:
    at = {each.ref().position: each for each in stored}
    known: dict[Digest, SignedGeneration] = {each.id: each for each in stored}
    return own_at(ref, lambda epoch, number: at.get((epoch, number)), known.get)


def test_a_number_that_a_failed_commit_took_does_not_hide_what_the_line_was_built_on() -> None:
    lost = LOST.ref()
    assert own(lost, ONE, TWO) == TWO.ref()
    assert own(lost, ONE, THREE) == ONE.ref()
    assert own(lost, ONE) is None, "nothing goes past it yet"
    assert own(lost, THREE) is None, "its base is unknown"
    assert own(TWO.ref(), ONE, built_on(TWO, 3)) is None, "it was built on that one, whose record is gone"


def test_a_partner_takes_nothing_that_goes_past_its_head_on_a_lower_one() -> None:
    book = EpochBook(EpochClaim(1, Digest(b"e" * 32), MAIN, b"key"))
    for beside, kind in (
        (ONE.ref(), Refused),
        (TWO.ref(), Refused),
        (LOST.ref(), AcceptedHead),
        (None, AcceptedHead),
    ):
        judged = judge_head(THREE, OK, LINE, LOST.ref(), book, beside)
        assert isinstance(judged, kind), (beside, judged)
