"""The list of collisions that people should look at, from the unions that a tree held one after another.

Implements the section "Listed collisions" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from instep.model.ids import NodeName
from instep.model.replication.union import Collision

LISTED_MAX = 5_000

Key = tuple[bytes, NodeName, str]


class CollisionPhase(enum.Enum):
    """What became of a collision; the words are those of the list."""

    PASSING = "passing"
    STANDING = "standing"
    TAKEN_OVER = "taken_over"
    OVER = "over"


ENDED = frozenset((CollisionPhase.TAKEN_OVER, CollisionPhase.OVER))


class ListedCollision(msgspec.Struct, frozen=True, array_like=True):
    """A collision as this node knows it. ``since_ms`` is when its tree first showed it, ``reviewed_by`` the person who
    looked at it, or empty."""

    collision: Collision
    phase: CollisionPhase
    since_ms: int
    reviewed_by: str = ""
    reviewed_ms: int = 0

    @property
    def key(self) -> Key:
        return key_of(self.collision)

    @property
    def is_listed(self) -> bool:
        """Whether people see it."""
        return self.phase is not CollisionPhase.PASSING


class CollisionBook(msgspec.Struct, frozen=True, array_like=True):
    """The known collisions of one fileset, in the order in which they came. ``left_out`` counts those of the union
    for which there was no room."""

    rows: tuple[ListedCollision, ...] = ()
    left_out: int = 0


class Followed(NamedTuple):
    """The book after another union, and the rows that were not listed before."""

    book: CollisionBook
    news: tuple[ListedCollision, ...]


def key_of(collision: Collision) -> Key:
    return collision.component, collision.origin, collision.tag


def follow(
    book: CollisionBook,
    collisions: Sequence[Collision],
    has: Callable[[NodeName, bytes], bool],
    now_ms: int,
    wait_ms: int,
    most: int = LISTED_MAX,
) -> Followed:
    """The book of a tree that holds a union with these ``collisions`` now. ``has`` says whether the line of an origin
    has anything at a path. A collision is listed that stood for ``wait_ms``, or whose new name its home took over."""
    shown = {key_of(each): each for each in collisions}
    rows: list[ListedCollision] = []
    for row in book.rows:
        stands = shown.pop(row.key, None)
        after = _ended(row, has) if stands is None else _stood(row, stands, now_ms, wait_ms)
        if after is not None:
            rows.append(after)
    rows = _without_old(rows, len(rows) + len(shown) - most)
    room = max(0, most - len(rows))
    new = [ListedCollision(each, CollisionPhase.PASSING, now_ms) for each in shown.values()]
    rows += new[:room]
    before = {row.key for row in book.rows if row.is_listed}
    news = tuple(row for row in rows if row.is_listed and row.key not in before)
    return Followed(CollisionBook(tuple(rows), len(new[room:])), news)


def _stood(row: ListedCollision, now: Collision, now_ms: int, wait_ms: int) -> ListedCollision:
    """The row of a collision that the union has."""
    if row.phase in ENDED and row.reviewed_by:
        return ListedCollision(now, CollisionPhase.PASSING, now_ms)
    is_due = row.is_listed or not 0 <= now_ms - row.since_ms < wait_ms
    phase = CollisionPhase.STANDING if is_due else CollisionPhase.PASSING
    return replace(row, collision=now, phase=phase)


def _ended(row: ListedCollision, has: Callable[[NodeName, bytes], bool]) -> ListedCollision | None:
    """The row of a collision that the union does not have; None for one that was never listed."""
    if row.phase in ENDED:
        return row
    if has(row.collision.origin, row.collision.shown):
        return replace(row, phase=CollisionPhase.TAKEN_OVER)
    return replace(row, phase=CollisionPhase.OVER) if row.is_listed else None


def _without_old(rows: list[ListedCollision], too_many: int) -> list[ListedCollision]:
    """Without so many of the oldest rows that are reviewed and at an end."""
    if too_many <= 0:
        return rows
    kept = []
    for row in rows:
        if too_many > 0 and row.reviewed_by and row.phase in ENDED:
            too_many -= 1
        else:
            kept.append(row)
    return kept


def reviewed(book: CollisionBook, tag: str, by: str, now_ms: int) -> CollisionBook | None:
    """The book with every listed collision of this id marked as looked at; None when it has none."""
    if not any(row.is_listed and row.collision.tag == tag for row in book.rows):
        return None

    def marked(row: ListedCollision) -> ListedCollision:
        if not row.is_listed or row.collision.tag != tag or row.reviewed_by:
            return row
        return replace(row, reviewed_by=by, reviewed_ms=now_ms)

    return replace(book, rows=tuple(map(marked, book.rows)))
