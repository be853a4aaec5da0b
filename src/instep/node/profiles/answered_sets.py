"""The change sets that this home answered, as its state keeps them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from instep.model.change import ChangeAnswer
from instep.model.ids import Digest
from instep.store.port import NodeStore

PATHS_NAMED_MAX = 16_384
PATHS_BYTES_MAX = 2 << 20
"""They fit a reply: one that is too large would end this run, and each later one, with the same question."""


def answer_to(store: NodeStore, change_id: Digest) -> ChangeAnswer | None:
    """The answer that was given to a change set before."""
    row = store.change(change_id)
    if row is None or row.answer is None:
        return None
    return msgspec.msgpack.decode(row.answer, type=ChangeAnswer)


def made_by(store: NodeStore, sets: Iterable[Digest]) -> tuple[bytes, ...]:
    """The paths that these change sets changed here, as far as they were answered; none where these are too many to
    name."""
    answers = (answer_to(store, change_id) for change_id in sets)
    made = [each.path for answer in answers if answer is not None for each in answer.outcomes if each.is_made]
    is_few = len(made) <= PATHS_NAMED_MAX and sum(map(len, made)) <= PATHS_BYTES_MAX
    return tuple(made) if is_few else ()
