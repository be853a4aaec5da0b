"""Whether a side of a sync profile went back since the last run, from the rollbacks that its home recorded."""

from __future__ import annotations

import msgspec
import pytest

from instep.core.sync.rollbacks import went_back
from instep.core.sync.run import SyncRun
from instep.core.sync.table import Side
from instep.core.sync.work import KnownBases, LookAtHomes, Looked, ReadBases, SyncWork
from instep.errors import RefusedError
from instep.model.ids import Digest, HeadRef
from instep.model.sync import Rollback, SyncBase
from instep.net.messages.changing import FlushReply


def head(number: int, epoch: int = 1, root: str = "") -> HeadRef:
    return HeadRef(
        epoch, number, Digest(b"%032d" % number), Digest((root or f"root {number}").encode().ljust(32))
    )


@pytest.mark.parametrize(
    ("rollbacks", "found"),
    [
        ((), None),
        (((12, 8),), 12),
        (((9, 3),), None),
        (((12, 10),), None),
        (((12, 11),), None),
        (((12, 8), (13, 10)), None),
        (((12, 8), (13, 12)), 12),
        (((12, 8), (13, 11)), None),
        (((12, 8), (13, 11), (15, 12)), 12),
        (((12, 8), (14, 7)), 14),
        (((9, 3), (12, 9)), 12),
    ],
)  # fmt: skip
def test_a_side_went_back_when_what_it_has_is_older_than_the_base(
    rollbacks: tuple[tuple[int, int], ...], found: int | None
) -> None:
    known = tuple(Rollback(1, number, 1, target) for number, target in rollbacks)
    rollback = went_back(known, head(10))
    assert (rollback.number if rollback is not None else None) == found


def test_epochs_come_before_numbers() -> None:
    assert went_back((Rollback(2, 4, 1, 9),), head(10)) is not None
    assert went_back((Rollback(1, 12, 1, 9),), head(4, epoch=2)) is None


def looked(right: HeadRef, *rollbacks: Rollback) -> object:
    """What a run asks for after it looked; the last one left number 10 on both sides."""
    base = SyncBase(1, Digest(b"b" * 32), head(10), head(10))
    steps = SyncRun("site", ("data@s1", "data@p1"), SyncWork("", "", 0)).run()
    answer: object = None
    while True:
        request = steps.send(answer)
        answer = KnownBases((base,), (base.mark,)) if isinstance(request, ReadBases) else None
        if isinstance(request, LookAtHomes):
            return steps.send(Looked(head(10), right, rollbacks=((), rollbacks)))


def test_a_home_with_a_lower_number_or_epoch_went_back() -> None:
    with pytest.raises(RefusedError, match="generation 9, and had generation 10") as raised:
        looked(head(9))
    assert (raised.value.error_code, raised.value.facts["side"]) == ("went_back", Side.RIGHT.value)
    with pytest.raises(RefusedError, match="went back"):
        looked(head(20, epoch=0))
    looked(head(11))
    looked(head(9, root="root 10"))
    looked(head(12, root="root 10"), Rollback(1, 11, 1, 4))


def test_an_answer_of_an_older_home_names_no_rollbacks() -> None:
    reply = msgspec.msgpack.decode(msgspec.msgpack.encode(["flush_reply", None, [], 0]), type=FlushReply)
    assert reply.rollbacks == ()
    long = ["flush_reply", None, [], 0, [[1, 2, 1, 1]] * 65]
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(long), type=FlushReply)
