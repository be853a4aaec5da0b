"""Which paths a home says that change sets changed there."""

from __future__ import annotations

import msgspec
import pytest

from instep.model.change import ChangeAnswer, OutcomeKind, PathOutcome
from instep.model.ids import Digest, LineId, fileset_name, node_name
from instep.net.messages.messages import REQUEST_BYTES_MAX, encode
from instep.net.messages.syncing import MarksReply
from instep.node.profiles.answered_sets import PATHS_NAMED_MAX, made_by
from instep.store.memory import MemoryStore

LINE = LineId(fileset_name("data"), node_name("main"))


@pytest.mark.parametrize(
    ("count", "length", "named"), [(PATHS_NAMED_MAX, 100, PATHS_NAMED_MAX), (PATHS_NAMED_MAX, 300, 0), (PATHS_NAMED_MAX + 1, 9, 0)]
)  # fmt: skip
def test_the_paths_that_sets_changed_fit_a_reply(count: int, length: int, named: int) -> None:
    """Goal: no run ends because the sets of the one before changed very many paths, or very long ones."""
    store, sets = MemoryStore(), (Digest(b"1" * 32), Digest(b"2" * 32))
    outcomes = [PathOutcome(b"%0*d" % (length, at), OutcomeKind.APPLIED) for at in range(count)]
    for change_set, part in zip(sets, (outcomes[:9], outcomes[9:]), strict=True):
        answer = msgspec.msgpack.encode(ChangeAnswer(change_set, tuple(part)))
        store.answer_change(LINE, change_set, answer, 1, node_name("s1"))
    made = made_by(store, sets)
    assert len(made) == named
    assert len(encode(MarksReply((), made=made))) < REQUEST_BYTES_MAX
