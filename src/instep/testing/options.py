"""The fault model as numbers: each seed draws which faults happen and how often (a swarm, not one
mixture)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from random import Random

__all__ = ["Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """Probabilities are per occasion: a message, an effect, a scheduled fault. Times in virtual ms."""

    partners: int = 3
    has_hub: bool = False
    files: int = 12
    faulty_ms: int = 60_000
    bound_ms: int = 120_000
    has_hooks: bool = True
    has_gates: bool = False
    is_one_observing: bool = False
    keeps_drift: bool = False
    poll_ms: int = 5_000
    loss: float = 0.0
    duplicate: float = 0.0
    delay_ms: int = 5
    reorder: float = 0.0
    corrupt: float = 0.0
    forge: float = 0.0
    cut_every_ms: int = 0
    crash_at_effect: float = 0.0
    crash_every_ms: int = 0
    disk_full: float = 0.0
    read_error: float = 0.0
    hook_fails: float = 0.0
    bad_generation: float = 0.0
    drift_every_ms: int = 0
    edit_every_ms: int = 2_000
    wipe_every_ms: int = 0
    unmount_every_ms: int = 0
    restore_every_ms: int = 0
    watch_loss: float = 0.0
    history_loss: float = 0.0
    clock_drift: float = 0.0
    pause_every_ms: int = 0
    step_ms: int = 1

    @staticmethod
    def drawn(rng: Random) -> Options:
        """A swarm: each kind of fault is in or out, and its rate is drawn."""

        def maybe(share: float, low: float, high: float) -> float:
            return round(rng.uniform(low, high), 4) if rng.random() < share else 0.0

        def every(share: float, low: int, high: int) -> int:
            return rng.randrange(low, high) if rng.random() < share else 0

        return Options(
            partners=rng.randrange(1, 4),
            has_hub=rng.random() < 0.4,
            files=rng.choice((3, 12, 40)),
            has_hooks=rng.random() < 0.7,
            has_gates=rng.random() < 0.2,
            is_one_observing=rng.random() < 0.15,
            keeps_drift=rng.random() < 0.1,
            loss=maybe(0.5, 0.01, 0.3),
            duplicate=maybe(0.5, 0.01, 0.3),
            delay_ms=rng.choice((1, 5, 50, 400)),
            reorder=maybe(0.5, 0.05, 0.5),
            corrupt=maybe(0.3, 0.01, 0.1),
            forge=maybe(0.3, 0.05, 0.3),
            cut_every_ms=every(0.5, 3_000, 20_000),
            crash_at_effect=maybe(0.4, 0.001, 0.03),
            crash_every_ms=every(0.5, 3_000, 20_000),
            disk_full=maybe(0.3, 0.01, 0.2),
            read_error=maybe(0.3, 0.01, 0.1),
            hook_fails=maybe(0.3, 0.01, 0.2),
            bad_generation=maybe(0.3, 0.05, 0.4),
            drift_every_ms=every(0.5, 1_000, 10_000),
            edit_every_ms=rng.choice((300, 1_000, 4_000)),
            wipe_every_ms=every(0.3, 10_000, 30_000),
            unmount_every_ms=every(0.3, 10_000, 30_000),
            restore_every_ms=every(0.4, 10_000, 40_000),
            watch_loss=maybe(0.3, 0.05, 0.3),
            history_loss=maybe(0.3, 0.05, 0.5),
            clock_drift=maybe(0.3, 0.001, 0.05),
            pause_every_ms=every(0.2, 5_000, 20_000),
            step_ms=rng.choice((1, 20, 100)),
        )

    def but(self, **changes: object) -> Options:
        return replace(self, **changes)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return " ".join(
            f"{name}={value}" for name, value in asdict(self).items() if value not in (0, 0.0, False)
        )
