"""The fault model of sync runs as numbers: each seed draws which faults happen, and how often."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

from instep.core.sync.table import Direction, KindRules, RulesOf, Side
from instep.testing.world.draws import Draws

UP, DOWN, BOTH = (KindRules(direction) for direction in (Direction.UP, Direction.DOWN, Direction.BOTH))
LOCKED = KindRules(Direction.UP, Side.RIGHT)


def by_name(path: bytes) -> KindRules:
    """Kinds by the names of files, so that paths of one directory go different ways."""
    match path.rpartition(b"/")[2][:1]:
        case b"a":
            return UP
        case b"x":
            return DOWN
        case b"t":
            return LOCKED
        case _:
            return BOTH


RULES: dict[str, RulesOf] = {
    "both": lambda _: BOTH,
    "up": lambda _: UP,
    "locked": lambda _: LOCKED,
    "by name": by_name,
}


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """Probabilities are per occasion, times in virtual ms; an interval of 0 is never."""

    rules: str = "both"
    edit_every_ms: int = 1_000
    """Of a person, at each home."""
    removes: float = 0.2
    run_every_ms: int = 3_000
    """Of each initiator."""
    step_ms: int = 100
    """The longest that a step of a run takes."""
    crash_at_step: float = 0.0
    """A home dies between two paths that it changes."""
    crash_every_ms: int = 0
    cut_every_ms: int = 0
    answer_lost: float = 0.0
    held_back: float = 0.0
    """A home makes changes, and holds their publish back."""
    manual_side: Side | None = None
    """This home publishes what persons did only now and then."""
    roll_back_every_ms: int = 0
    lose_base_every_ms: int = 0
    older_base_every_ms: int = 0
    restore_every_ms: int = 0
    """The whole machine of the right home comes back from an older copy, tree and state."""

    @staticmethod
    def drawn(rng: Random) -> SyncOptions:
        maybe, every = Draws(rng).maybe, Draws(rng).every
        return SyncOptions(
            rules=rng.choice(("both", "both", "both", "by name", "up", "locked")),
            edit_every_ms=rng.choice((50, 300, 1_000, 4_000)),
            removes=rng.choice((0.0, 0.2, 0.5)),
            run_every_ms=rng.choice((500, 2_000, 6_000)),
            step_ms=rng.choice((5, 100, 800)),
            crash_at_step=maybe(0.4, 0.005, 0.1),
            crash_every_ms=every(0.5, 1_000, 8_000),
            cut_every_ms=every(0.4, 1_000, 8_000),
            answer_lost=maybe(0.4, 0.02, 0.3),
            held_back=maybe(0.3, 0.05, 0.4),
            manual_side=rng.choice((None, None, Side.LEFT, Side.RIGHT)),
            roll_back_every_ms=every(0.3, 4_000, 12_000),
            lose_base_every_ms=every(0.2, 5_000, 15_000),
            older_base_every_ms=every(0.3, 2_000, 10_000),
            restore_every_ms=every(0.25, 4_000, 12_000),
        )

    def __str__(self) -> str:
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return " ".join(f"{name}={value}" for name, value in values if value not in (0, 0.0, None))
