"""The list of collisions, from one union to the next."""

from __future__ import annotations

import random

from msgspec.structs import replace

from instep.core.union.listing import CollisionBook, CollisionPhase, Followed, follow, key_of, reviewed
from instep.model.ids import NodeName
from instep.model.replication.union import Collision

WAIT_MS = 1_000
A, B = NodeName("a"), NodeName("b")


def collision(number: int = 1) -> Collision:
    path, tag = b"map%d" % number, f"{number:08x}"
    return Collision(path, B, 5, path + b".collision-b-" + tag.encode(), tag, A, 1)


class Node:
    """A book that follows unions; ``lines`` has the new names that homes took over."""

    def __init__(self, most: int = 100) -> None:
        self.book = CollisionBook()
        self.most = most
        self.taken: set[bytes] = set()
        self.now_ms = 0

    def saw(self, *collisions: Collision, later_ms: int = 10) -> list[str]:
        self.now_ms += later_ms
        told: Followed = follow(
            self.book, collisions, lambda _, path: path in self.taken, self.now_ms, WAIT_MS, self.most
        )
        self.book = told.book
        return [row.collision.tag for row in told.news]

    def listed(self) -> list[tuple[str, str]]:
        return [(row.collision.tag, row.phase.value) for row in self.book.rows if row.is_listed]

    def review(self, tag: str) -> None:
        book = reviewed(self.book, tag, "ana", self.now_ms)
        assert book is not None
        self.book = book


def test_a_collision_that_passes_is_never_listed() -> None:
    node, one = Node(), collision()
    assert node.saw(one) == []
    assert node.listed() == []
    assert node.saw() == []
    assert node.book == CollisionBook()


def test_a_collision_is_listed_once_when_it_stood_or_was_taken_over() -> None:
    node, one, other = Node(), collision(1), collision(2)
    node.saw(one, other)
    assert node.saw(one, other, later_ms=WAIT_MS - 1) == []
    node.taken.add(other.shown)
    assert node.saw(one, later_ms=1) == [one.tag, other.tag]
    assert node.listed() == [(one.tag, "standing"), (other.tag, "taken_over")]
    assert node.saw(replace(one, entries=7)) == []
    assert node.book.rows[0].collision.entries == 7
    assert node.saw() == []
    assert node.listed() == [(one.tag, "over"), (other.tag, "taken_over")]


def test_a_clock_that_was_put_back_hides_nothing() -> None:
    node, one = Node(), collision()
    node.saw(one, later_ms=50_000)
    assert node.saw(one, later_ms=-40_000) == [one.tag]


def test_one_that_was_reviewed_is_news_again_only_when_it_ended_between() -> None:
    node, one = Node(), collision()
    node.saw(one)
    node.saw(one, later_ms=WAIT_MS)
    node.review(one.tag)
    assert node.saw(one) == []
    node.taken.add(one.shown)
    assert node.saw() == []
    assert node.book.rows[0].reviewed_by == "ana"
    node.taken.clear()
    assert node.saw(one) == []
    assert node.listed() == []
    assert node.saw(one, later_ms=WAIT_MS) == [one.tag]
    assert node.book.rows[0].reviewed_by == ""


def test_one_that_nobody_looked_at_stays_listed_when_it_comes_again() -> None:
    node, one = Node(), collision()
    node.saw(one)
    node.saw(one, later_ms=WAIT_MS)
    node.saw()
    assert node.saw(one) == []
    assert node.listed() == [(one.tag, "standing")]


def test_a_full_list_forgets_what_nobody_needs_and_counts_what_it_lacks() -> None:
    node = Node(most=3)
    ones = [collision(number) for number in range(5)]
    node.saw(*ones[:3])
    node.saw(*ones[:3], later_ms=WAIT_MS)
    node.saw(*ones)
    assert (len(node.book.rows), node.book.left_out) == (3, 2)
    node.taken.add(ones[0].shown)
    node.saw(*ones[1:])
    node.review(ones[0].tag)
    node.saw(*ones[1:])
    assert [row.collision.tag for row in node.book.rows] == [one.tag for one in (ones[1], ones[2], ones[3])]
    assert node.book.left_out == 1


def test_no_history_hides_a_collision_that_stands() -> None:
    """Whatever came before: what a union shows for longer than the wait is listed, each is news once until it was
    reviewed, and no row is there twice."""
    for seed in range(300):
        chance, node = random.Random(seed), Node()
        ones = [collision(number) for number in range(4)]
        open_news: set[str] = set()
        for _ in range(30):
            some = tuple(one for one in ones if chance.random() < 0.6)
            node.taken = {one.shown for one in ones if chance.random() < 0.3}
            news = node.saw(*some, later_ms=chance.choice((1, 600, 1_500)))
            assert not open_news & set(news), seed
            open_news |= set(news)
            keys = [row.key for row in node.book.rows]
            assert len(set(keys)) == len(keys)
            stood = [row for row in node.book.rows if node.now_ms - row.since_ms >= WAIT_MS]
            for row in stood:
                assert row.is_listed or row.key not in set(map(key_of, some)), seed
            for tag, phase in node.listed():
                is_shown = any(one.tag == tag for one in some)
                assert is_shown == (phase == CollisionPhase.STANDING.value), seed
                if chance.random() < 0.3:
                    node.review(tag)
                    open_news.discard(tag)
