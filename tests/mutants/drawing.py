"""Which faults are tried: rooms in turn, kinds in turn within a room, places by chance; the seed decides."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.floors import ROOMS
from tests.mutants.kinds import KINDS, Fault, faults_in

__all__ = ["Mutant", "candidates", "chosen"]

NOT_DRAWN = frozenset(("tree/root/failpoints.py",))
"""Modules that only tests run."""
POOL_FACTOR = 4
"""Places that are looked at for each fault that is tried: some lie in lines that no test runs."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault in one module of a room."""

    room: str
    module: str
    fault: Fault

    @property
    def line(self) -> int:
        return self.fault.begin[0]

    @property
    def where(self) -> str:
        return f"{self.module}:{self.line} {self.fault.kind}"


def candidates(source: Path, seed: int, count: int, rooms: Sequence[str]) -> dict[str, list[Mutant]]:
    """By room, the places in the order in which they are tried. A line comes once. The order goes by a hash of the source line
    at each place: a change elsewhere in the product moves nothing in it."""
    found: dict[str, list[Mutant]] = {}
    for room in rooms:
        by_kind: dict[str, list[tuple[bytes, Mutant]]] = {kind: [] for kind in KINDS}
        for path in sorted(path for folder in ROOMS[room] for path in (source / folder).rglob("*.py")):
            module = path.relative_to(source).as_posix()
            if module in NOT_DRAWN:
                continue
            text = path.read_text("utf-8")
            lines = text.splitlines()
            for fault in faults_in(text):
                key = _hash(seed, module, fault.kind, lines[fault.begin[0] - 1], fault.text)
                by_kind[fault.kind].append((key, Mutant(room, module, fault)))
        decks = {
            kind: [
                mutant for _, mutant in sorted(keyed, key=lambda each: (each[0], each[1].line), reverse=True)
            ]
            for kind, keyed in by_kind.items()
        }
        found[room] = _in_turns(seed, decks, POOL_FACTOR * count)
    return found


def _hash(*what: object) -> bytes:
    return hashlib.sha256("\0".join(map(str, what)).encode()).digest()


def _in_turns(seed: int, decks: Mapping[str, list[Mutant]], count: int) -> list[Mutant]:
    drawn: list[Mutant] = []
    used: set[tuple[str, int]] = set()
    turn = 0
    while len(drawn) < count and any(decks.values()):
        turn += 1
        for kind in sorted(decks, key=lambda kind: _hash(seed, turn, kind)):
            while decks[kind]:
                mutant = decks[kind].pop()
                if (mutant.module, mutant.line) not in used:
                    used.add((mutant.module, mutant.line))
                    drawn.append(mutant)
                    break
    return drawn[:count]


def chosen(
    pool: Mapping[str, list[Mutant]], reached: Mapping[tuple[str, int], object], count: int
) -> list[Mutant]:
    """The first ``count`` of the pool that some test runs, a room after the other in turn."""
    left = {room: [m for m in mutants if (m.module, m.line) in reached] for room, mutants in pool.items()}
    found: list[Mutant] = []
    while len(found) < count and any(left.values()):
        for mutants in left.values():
            if mutants and len(found) < count:
                found.append(mutants.pop(0))
    return found
