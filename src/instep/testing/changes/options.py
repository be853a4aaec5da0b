"""The fault model of changes from elsewhere as numbers: each seed draws which faults happen, and how often."""

from __future__ import annotations

from dataclasses import dataclass, fields
from random import Random

from instep.testing.world.draws import Draws
from instep.testing.world.options import Options


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """Probabilities are per occasion, times in virtual ms; an interval of 0 is never."""

    editors: int = 2
    files: int = 4
    edit_every_ms: int = 1_000
    lock_every_ms: int = 2_000
    ttl_ms: int = 2_000
    home_edit_every_ms: int = 3_000
    undo: float = 0.3
    """A program at the home takes a change back, rather than making one."""
    removes: float = 0.15
    crash_at_effect: float = 0.0
    crash_every_ms: int = 0
    reboots: float = 0.0
    """A crash is one of the whole machine: its clock begins anew."""
    pause_every_ms: int = 0
    """A process, or a virtual machine with its clock, stands still for up to three lives of a lock."""
    restore_every_ms: int = 0
    """The home's state comes back from an older copy; its tree stays."""
    epoch_every_ms: int = 0
    late_copy: float = 0.0
    """A message comes once more, seconds later."""
    fetch_fails: float = 0.0
    work_fails: float = 0.0
    held_back: float = 0.0
    """The home's publish is held back."""
    withheld: float = 0.0
    """A path of a generation cannot be laid for a while."""
    steals: float = 0.0
    job_ms: int = 5
    cut_every_ms: int = 0
    max_deletions: int = 0
    """The home's guard lets so many removals go unasked; 0: as it does by itself."""

    @staticmethod
    def drawn(rng: Random) -> ChangeOptions:
        maybe, every = Draws(rng).maybe, Draws(rng).every
        return ChangeOptions(
            editors=rng.choice((1, 2, 2, 3)),
            files=rng.choice((1, 2, 5)),
            edit_every_ms=rng.choice((300, 1_000, 4_000)),
            lock_every_ms=rng.choice((0, 500, 2_000)),
            ttl_ms=rng.choice((1_000, 2_000, 6_000)),
            home_edit_every_ms=rng.choice((0, 1_000, 4_000)),
            undo=rng.choice((0.0, 0.3, 0.8)),
            removes=rng.choice((0.0, 0.15, 0.4)),
            crash_at_effect=maybe(0.4, 0.001, 0.03),
            crash_every_ms=every(0.5, 3_000, 15_000),
            reboots=rng.choice((0.0, 0.5)),
            pause_every_ms=every(0.5, 3_000, 10_000),
            restore_every_ms=every(0.2, 8_000, 20_000),
            epoch_every_ms=every(0.2, 8_000, 20_000),
            late_copy=maybe(0.5, 0.02, 0.3),
            fetch_fails=maybe(0.3, 0.02, 0.3),
            work_fails=maybe(0.3, 0.02, 0.3),
            held_back=maybe(0.3, 0.05, 0.3),
            withheld=maybe(0.3, 0.05, 0.3),
            steals=maybe(0.3, 0.1, 0.5),
            job_ms=rng.choice((1, 20, 400)),
            cut_every_ms=every(0.5, 3_000, 15_000),
            max_deletions=rng.choice((0, 0, 0, 1, 2)),
        )

    def __str__(self) -> str:
        values = ((each.name, getattr(self, each.name)) for each in fields(self))
        return " ".join(f"{name}={value}" for name, value in values if value not in (0, 0.0, False))


def network_options(rng: Random) -> Options:
    """The faults of the network between editors and home. TLS makes a lost message of a damaged one."""
    return Options(
        loss=rng.choice((0.0, 0.05, 0.3)),
        duplicate=rng.choice((0.0, 0.1, 0.3)),
        delay_ms=rng.choice((1, 20, 200)),
        reorder=rng.choice((0.0, 0.3)),
        faulty_ms=40_000,
        bound_ms=90_000,
    )
