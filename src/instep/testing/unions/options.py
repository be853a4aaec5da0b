"""The fault model of many homes as numbers: each seed draws which faults happen, and how often."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

from instep.testing.world.draws import Draws
from instep.testing.world.options import Options

SHAPES = ("mesh", "ring", "chain", "star")


@dataclass(frozen=True, slots=True)
class UnionOptions:
    """Probabilities are per occasion, times in virtual ms; an interval of 0 is never."""

    homes: int = 3
    shape: str = "mesh"
    act_every_ms: int = 500
    removes: float = 0.2
    renames: float = 0.1
    foreign: float = 0.2
    """An act is on any file, another home's too."""
    crash_every_ms: int = 0
    crash_at_effect: float = 0.0
    crash_at_step: float = 0.0
    """Before a step of a switch."""
    cut_every_ms: int = 0
    lose_state_every_ms: int = 0
    older_state_every_ms: int = 0
    """The state comes back from an older copy; the tree stays."""
    older_machine_every_ms: int = 0
    """State and tree come back from an older copy."""
    withdraw_every_ms: int = 0
    """A hub passes nothing on any more, or does again."""
    withheld: float = 0.0
    """A content cannot be had at one node until the faults stop."""
    work_fails: float = 0.0
    lies: float = 0.0
    """A hub passes an older or an altered generation on, or none."""
    job_ms: int = 20
    step_ms: int = 1
    ahead_ms: int = 0
    """So far the clocks of two homes may be apart."""
    offers: bool = False
    """An edit of another home's file is offered to it, else put back. Not drawn yet: ``docs/simulator.md`` says why."""

    @staticmethod
    def drawn(rng: Random) -> UnionOptions:
        draws = Draws(rng)
        return UnionOptions(
            homes=rng.choice((2, 3, 3, 4)),
            shape=rng.choice(SHAPES),
            act_every_ms=rng.choice((150, 500, 2_000)),
            removes=rng.choice((0.0, 0.2, 0.4)),
            renames=rng.choice((0.0, 0.1, 0.3)),
            foreign=rng.choice((0.0, 0.2, 0.6)),
            crash_every_ms=draws.every(0.5, 2_000, 10_000),
            crash_at_effect=draws.maybe(0.4, 0.0005, 0.01),
            crash_at_step=draws.maybe(0.4, 0.005, 0.1),
            cut_every_ms=draws.every(0.6, 1_000, 8_000),
            lose_state_every_ms=draws.every(0.2, 6_000, 20_000),
            older_state_every_ms=draws.every(0.2, 6_000, 20_000),
            older_machine_every_ms=draws.every(0.2, 6_000, 20_000),
            withdraw_every_ms=draws.every(0.3, 3_000, 10_000),
            withheld=draws.maybe(0.3, 0.02, 0.2),
            work_fails=draws.maybe(0.3, 0.01, 0.2),
            lies=draws.maybe(0.3, 0.05, 0.5),
            job_ms=rng.choice((1, 20, 300)),
            step_ms=rng.choice((1, 20, 200)),
            ahead_ms=rng.choice((0, 5, 20_000)),
        )

    def __str__(self) -> str:
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return " ".join(f"{name}={value}" for name, value in values if value not in (0, 0.0, False))


def network_options(rng: Random) -> Options:
    """The faults of the network between homes, and the two times of a run."""
    return Options(
        loss=rng.choice((0.0, 0.0, 0.05)),
        duplicate=rng.choice((0.0, 0.1)),
        delay_ms=rng.choice((1, 20, 200)),
        reorder=rng.choice((0.0, 0.3)),
        faulty_ms=30_000,
        bound_ms=120_000,
    )
