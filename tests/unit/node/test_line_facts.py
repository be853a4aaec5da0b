"""The saved state of a line across a change of role."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from instep.core.follow.vocabulary import Due, FollowFacts
from instep.core.lines.accept import EpochBook, EpochClaim
from instep.core.publish.vocabulary import PublishFacts
from instep.errors import RefusedError
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.node.config.loading import parse
from instep.node.lines.saved_facts import follow_facts, load_facts, publish_facts, save_facts
from instep.node.writing.committing import _missing_epoch
from instep.store.memory import MemoryStore

LINE = LineId(FilesetName("data"), NodeName("main"))
BOOK = EpochBook(EpochClaim(2, Digest(b"e" * 32), NodeName("s1"), b"key", Digest(b"7" * 32)))


def ref(number: int, epoch: int = 1) -> HeadRef:
    return HeadRef(epoch, number, Digest(b"%032d" % number), Digest(b"r" * 32))


def test_a_follower_that_becomes_the_writer_goes_on_from_what_its_tree_holds() -> None:
    """Goal: no number is used twice and the first scan compares with the tree. Method: a head not yet applied."""
    store = MemoryStore()
    save_facts(store, LINE, FollowFacts(head=ref(9), live=ref(7), tree=ref(7), epochs=BOOK, is_paused=True))
    facts = publish_facts(store, LINE)
    assert (facts.head, facts.base, facts.highest, facts.epoch) == (ref(7), ref(7), 9, 2)
    assert facts.was_confirmed and facts.has_pages and not facts.is_paused and facts.epochs == BOOK
    assert load_facts(store, LINE) == facts  # kept in its new role


def test_a_replaced_writer_follows_from_its_last_generation_and_back_again() -> None:
    """Goal: nothing is lost there and back. Method: both conversions on one store."""
    store = MemoryStore()
    written = PublishFacts(epoch=1, head=ref(8), base=ref(8), highest=8, was_confirmed=True, epochs=BOOK)
    save_facts(store, LINE, written)
    facts = follow_facts(store, LINE)
    assert (facts.head, facts.live, facts.tree, facts.due) == (ref(8), ref(8), ref(8), Due.NOTHING)
    again = publish_facts(store, LINE)
    assert (again.head, again.highest, again.epochs) == (ref(8), 8, BOOK)


@pytest.mark.parametrize(
    "facts",
    [
        FollowFacts(),
        FollowFacts(head=ref(3), live=ref(2), tree=ref(2)),
        PublishFacts(),
        PublishFacts(head=ref(3), base=ref(3), highest=300, epoch=70_000),
    ],
)
def test_state_of_before_is_told_apart_by_its_shape(facts: FollowFacts | PublishFacts) -> None:
    """Goal: a node that is updated goes on. Method: facts without a role, as they were saved before."""
    store = MemoryStore()
    store.save_line(LINE, msgspec.msgpack.encode(facts))
    assert load_facts(store, LINE) == facts


def test_only_the_first_epoch_begins_by_itself() -> None:
    """Goal: no node gives itself a line. Method: the record that a commit would add, in epoch 1 and in epoch 2."""
    store = MemoryStore()
    runtime = SimpleNamespace(
        store=store, name=NodeName("s1"), pki=SimpleNamespace(sign_key=b"key", sign=lambda _: None)
    )
    with pytest.raises(RefusedError) as caught:
        _missing_epoch(cast(Any, runtime), LINE, 2)
    assert caught.value.error_code == "no_epoch_record"
    assert caught.value.facts["epoch"] == 2


def test_the_line_keeps_its_origin_when_the_writer_changes() -> None:
    """Goal: the same line before and after. Method: the row of each node, with and without ``origin``."""
    before = parse('name = "s1"\n[filesets.data]\npath = "/srv/data"\nwriter = "main"\n[partners.main]\n')
    after = parse('name = "s1"\n[filesets.data]\npath = "/srv/data"\nwriter = "s1"\norigin = "main"\n')
    name = FilesetName("data")
    assert before.filesets[name].line == after.filesets[name].line == LINE
    assert after.filesets[name].is_written_here
