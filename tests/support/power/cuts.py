"""Where the power is cut, and the writes that are lost then: all states, or a sample of them by seed, the likeliest
to hurt first."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.support.power.disk import (
    Event,
    Kept,
    Note,
    Op,
    State,
    Sync,
    depends_on,
    dropped_with,
    made_before,
    replayed,
    volatile_before,
)

__all__ = ["Cut", "Recorded", "without_syncs"]


@dataclass(frozen=True, slots=True)
class Cut:
    """The power goes after the first ``end`` events; ``dropped`` never reached the disk, or as ``kept`` says."""

    end: int
    dropped: frozenset[int]
    kept: Kept = Kept.NONE


class Recorded:
    """One run, and the cuts of it."""

    def __init__(self, initial: State, events: Sequence[Event]) -> None:
        self.initial = initial
        self.events = events
        self._needs = depends_on(initial, events)
        self._lost_with = [
            (*needs, *made) for needs, made in zip(self._needs, made_before(events), strict=True)
        ]
        self._volatile = list(volatile_before(events, self._needs))

    def state(self, cut: Cut) -> State:
        return replayed(self.initial, self.events, cut.end, cut.dropped, cut.kept)

    def notes(self, cut: Cut) -> frozenset[str]:
        return frozenset(event.text for event in self.events[: cut.end] if isinstance(event, Note))

    def ones(self) -> Iterator[Cut]:
        """Every cut with nothing, everything, all of a kind, or one operation lost; first those before a sync or a
        note, where most may be lost."""
        edges, others = self._ends()
        rows = (self._whole(edges), self._singles(edges), self._whole(others), self._singles(others))
        yield from self._distinct(rows)

    def sample(self, rng: random.Random, count: int, whole: int | None = None) -> list[Cut]:
        """Cuts before a sync or a note with all or all of a kind lost, and cuts anywhere with all writes lost:
        ``whole`` of each, or every one. And ``count`` that are drawn with one operation lost, half as many with
        two."""
        edges, others = self._ends()
        lost = (self._whole(edges), (cut for end in others for cut in self._all_of("write", end)))
        rows = [list(self._distinct((row,))) for row in lost]
        rows = [row if whole is None or len(row) < whole else rng.sample(row, whole) for row in rows]
        drawn = [
            self._drawn(rng, edges if turn % 4 else others, 1 + (turn % 3 == 2))
            for turn in range(3 * count // 2)
        ]
        return list(self._distinct((*rows, drawn)))

    def _drawn(self, rng: random.Random, ends: Sequence[int], count: int) -> Cut:
        end = rng.choice(ends)
        volatile = self._volatile[end]
        if len(volatile) < count:
            return Cut(end, frozenset())
        if count > 1:
            return Cut(end, self._with(rng.sample(sorted(volatile), count), volatile))
        return rng.choice(list(self._single(end, rng.choice(sorted(volatile)))))

    def _ends(self) -> tuple[list[int], list[int]]:
        edges: list[int] = []
        others: list[int] = []
        for end in range(len(self.events) + 1):
            is_edge = end == len(self.events) or not isinstance(self.events[end], Op)
            (edges if is_edge else others).append(end)
        return edges, others

    def _distinct(self, rows: Iterable[Iterable[Cut]]) -> Iterator[Cut]:
        seen: set[Cut] = set()
        for cut in itertools.chain.from_iterable(rows):
            # An operation at the very end that is lost was never asked for.
            end, lost = cut.end, set(cut.dropped)
            while cut.kept is Kept.NONE and end and end - 1 in lost:
                lost.discard(end := end - 1)
            cut = Cut(end, frozenset(lost), cut.kept)
            if cut not in seen:
                seen.add(cut)
                yield cut

    def is_new_in(self, cut: Cut, whole: Recorded) -> bool:
        """Whether the cut loses something that ``whole``, the same run with more syncs, cannot lose there."""
        return bool(cut.dropped - whole._volatile[cut.end])

    def _whole(self, ends: Sequence[int]) -> Iterator[Cut]:
        for end in ends:
            yield Cut(end, self._volatile[end])
            yield Cut(end, frozenset())
            yield from self._all_of("name", end)
            for cut in self._all_of("write", end):
                yield cut
                yield Cut(
                    end, frozenset(at for at in cut.dropped if self._op(at).what == "write"), Kept.ZEROS
                )

    def _all_of(self, what: str, end: int) -> Iterator[Cut]:
        lost = [at for at in self._volatile[end] if self._op(at).what == what]
        if lost:
            yield Cut(end, self._with(lost, self._volatile[end]))

    def _singles(self, ends: Sequence[int]) -> Iterator[Cut]:
        for end in ends:
            for at in sorted(self._volatile[end]):
                yield from self._single(end, at)

    def _single(self, end: int, at: int) -> Iterator[Cut]:
        """This one is lost, or this one alone is not; a write may be half there."""
        volatile = self._volatile[end]
        yield Cut(end, self._with((at,), volatile))
        needed = self._all_needs(at)
        yield Cut(
            end, self._with([other for other in volatile if other != at and other not in needed], volatile)
        )
        if self._op(at).what == "write":
            yield Cut(end, frozenset((at,)), Kept.HALF)
            yield Cut(end, frozenset((at,)), Kept.ZEROS)

    def _all_needs(self, at: int) -> set[int]:
        found: set[int] = set()
        pending = [at]
        while pending:
            for need in self._lost_with[pending.pop()]:
                if need not in found:
                    found.add(need)
                    pending.append(need)
        return found

    def _op(self, at: int) -> Op:
        event = self.events[at]
        assert isinstance(event, Op)
        return event

    def _with(self, drop: Sequence[int], volatile: frozenset[int]) -> frozenset[int]:
        return dropped_with(drop, volatile, self._lost_with)

    def describe(self, cut: Cut) -> str:
        """The cut in words: the last events before it, and the lost writes."""
        lines = [f"cut after {cut.end} of {len(self.events)} events; before it:"]
        lines += [f"  {at} {_shown(self.events[at])}" for at in range(max(0, cut.end - 4), cut.end)]
        lines.append(f"lost ({cut.kept.value} of writes is left):")
        lines += [f"  {at} {_shown(self.events[at])}" for at in sorted(cut.dropped)]
        return "\n".join(lines)


def _shown(event: Event) -> str:
    match event:
        case Note(text):
            return f"recorded: {text}"
        case Sync(_, where, path):
            return f"{where} syncs {path.decode()}"
        case Op(what, where, sets, _, inode, _, data):
            names = ", ".join(f"{d}/{name.decode(errors='replace')} = {ino}" for (d, name), ino in sets)
            return f"{where} {what} {names or inode} {data[:20]!r}"


def without_syncs(recorded: Recorded, is_dropped: Callable[[Sync], bool]) -> Recorded:
    """The same run, as if some of its syncs had been forgotten."""
    events = [
        Note("") if isinstance(event, Sync) and is_dropped(event) else event for event in recorded.events
    ]
    return Recorded(recorded.initial, events)
