"""The facts of a line after a change of writer, and the generations that the change costs. Pure functions.

A **handover** is signed by the former writer and builds on its newest generation; a **promotion** is signed by the
cluster's CA and builds on the generation that the promoted node serves. Implements design sections 1, 4 and 9.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from instep.core.follow.vocabulary import Due, FollowFacts
from instep.core.lines.accept import EpochBook
from instep.core.publish.vocabulary import PublishFacts
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, NodeName

UNNAMED_MAX = 1_000
"""So many numbers below a known one are listed."""


@dataclass(frozen=True, slots=True)
class LostGenerations:
    """A generation that a promotion leaves behind, and which nodes are known to have heard of it. ``id`` is None for a
    number below a known one that no node here knows by name."""

    epoch: int
    number: int
    id: Digest | None
    known_by: tuple[NodeName, ...] = ()


def writer_by(book: EpochBook) -> NodeName | None:
    """The writer by the newest record; None while two nodes claim the epoch."""
    return book.current.writer if book.current is not None and book.disputed is None else None


def base_of(held: HeadRef | None) -> Digest:
    """The base that an epoch record names."""
    return held.id if held is not None else EMPTY_DIGEST


def next_epoch(book: EpochBook, seen: Iterable[HeadRef], heard: int = 0) -> int:
    """An epoch above every record and head that is known, so that no old head can stand above the new ones. ``heard``
    is the highest epoch of a record that was signed by a node of the cluster and not accepted here: behind a cut the
    others may have gone on from another one."""
    known = [1, heard, *(ref.epoch for ref in seen), *(claim.epoch for claim in book.rivals)]
    return max(known if book.current is None else [*known, book.current.epoch]) + 1


def follows_by_itself(facts: PublishFacts, book: EpochBook) -> bool:
    """Whether a writer that was replaced may become a follower without being asked: nothing of its own stands
    outside the line."""
    return book.current is not None and base_of(facts.head) == book.current.base


def rests_on(facts: FollowFacts) -> HeadRef | None:
    """The generation that a follower's tree holds in full and at rest; None while it holds none or is being
    changed."""
    is_at_rest = facts.tree is not None and facts.tree == facts.live and facts.due is Due.NOTHING
    return facts.live if is_at_rest else None


def lost_generations(
    held: HeadRef | None,
    told: Iterable[tuple[NodeName, HeadRef]],
    recorded: Iterable[HeadRef] = (),
    disputed: int | None = None,
) -> tuple[LostGenerations, ...]:
    """The generations that a line which goes on from ``held`` leaves behind, oldest first.

    ``told`` are heads that nodes reported or offered, ``recorded`` generations whose signed records are here. Numbers
    rise one by one, so those between ``held`` and the newest known of its epoch are named too. Out of a dispute about
    the epoch ``disputed`` every generation of it is left behind that is not recorded here."""
    ours = {ref.id for ref in recorded}
    known: dict[tuple[int, int, Digest | None], dict[NodeName, None]] = {}
    position = held.position if held is not None else (0, 0)

    def is_lost(ref: HeadRef) -> bool:
        is_rival = ref.epoch == disputed and ref.id not in ours
        return ref.position > position or is_rival

    for ref in recorded:
        if is_lost(ref):
            known.setdefault((ref.epoch, ref.number, ref.id), {})
    for node, ref in told:
        if is_lost(ref):
            known.setdefault((ref.epoch, ref.number, ref.id), {})[node] = None
    if held is not None:
        numbers = {number for epoch, number, _ in known if epoch == held.epoch}
        first = max(held.number + 1, max(numbers, default=0) - UNNAMED_MAX)
        for number in range(first, max(numbers, default=0)):
            if number not in numbers:
                known[held.epoch, number, None] = {}
    return tuple(
        LostGenerations(epoch, number, id_, tuple(sorted(nodes)))
        for (epoch, number, id_), nodes in sorted(
            known.items(), key=lambda item: (item[0][0], item[0][1], item[0][2] or b"")
        )
    )


def to_publish(facts: FollowFacts) -> PublishFacts:
    """A follower becomes the writer: its first scan compares with the generation of its tree.

    A head that it knew but never applied is not its own; its numbers are, so that none is used twice. A pause was
    about following and does not hold back publishing."""
    holds = facts.tree or facts.live
    known = [ref.number for ref in (facts.head, facts.refused, holds) if ref is not None]
    current = facts.epochs.current
    return PublishFacts(
        epoch=max([current.epoch if current else 1, holds.epoch if holds else 1]),
        head=holds,
        base=holds,
        highest=max(known, default=0),
        was_confirmed=holds is not None,
        epochs=facts.epochs,
    )


def to_follow(facts: PublishFacts) -> FollowFacts:
    """The writer was replaced: its tree holds what it published or read last, whether or not the new epoch builds on
    it. A newer head of its own that it only heard of again is not in the tree. A pause was about publishing and ends
    with it."""
    return FollowFacts(head=facts.head, live=facts.base, tree=facts.base, epochs=facts.epochs)
