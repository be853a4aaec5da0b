"""The fault model as numbers: each seed draws which faults happen and how often (a swarm, not one
mixture)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from random import Random

from instep.model.ids import NodeName
from instep.model.rollout import DEFAULT_POLICY, Absent, OnFailure, RolloutPolicy, Strategy
from instep.testing.world.draws import Draws


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
    has_rollouts: bool = False
    policy: RolloutPolicy = DEFAULT_POLICY
    policy_every_ms: int = 0
    ask_rollout_every_ms: int = 0
    probe_fails: float = 0.0
    drain_ms: int = 0
    one_hook_less: bool = False
    reconfigure_every_ms: int = 0
    hook_ms: int = 0
    heirs_apart: float = 0.0
    split_at_ms: int = 0
    step_fails: float = 0.0
    stick_every_ms: int = 0
    copied: float = 0.0
    rollback_every_ms: int = 0
    snapshot_every_ms: int = 0
    old_state_every_ms: int = 0
    member_every_ms: int = 0
    """A partner is taken out or listed again so often."""
    work_fails: float = 0.0
    """Staging, sealing or recording meets any errno in the middle."""
    hot_every_ms: int = 0
    """A program rewrites one file so often, also when the faults have stopped."""
    hook_writes: bool = False
    """Reload hooks rewrite a file in the tree, also when the faults have stopped; some name it in ``writes``."""
    leaves_known_out: bool = True
    """A source that is asked for heads leaves out the one that the asker names, as the real one does."""

    @staticmethod
    def drawn(
        stream: Callable[[str], Random], rollouts_from: str, *, always_rollouts: bool = False
    ) -> Options:
        """A swarm: each kind of fault is in or out, and its rate is drawn. The options of rollouts, the rate of
        changed settings, the length of hooks and the steps that fail come from streams of their own, so that a seed
        without them stays as it was."""
        rng, rollouts, settings, disks, members = map(
            stream, ("options", rollouts_from, "settings options", "disk options", "member options")
        )
        maybe, every = Draws(rng).maybe, Draws(rng).every
        drawn = Options(
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
            reconfigure_every_ms=settings.choice((0, 0, 2_000, 8_000)),
            hook_ms=settings.choice((0, 0, 200, 1_000)),
            step_fails=round(disks.choice((0.0, 0.0, 0.02, 0.3)) * disks.random(), 4),
            stick_every_ms=disks.choice((0, 0, 2_000, 10_000)),
            copied=disks.choice((0.0, 0.0, 0.3)),
            rollback_every_ms=settings.choice((0, 4_000, 12_000)),
            snapshot_every_ms=settings.choice((0, 0, 15_000, 25_000)),
            old_state_every_ms=disks.choice((0, 0, 8_000)),
            member_every_ms=members.choice((0, 0, 0, 5_000, 15_000)),
            work_fails=round(members.choice((0.0, 0.0, 0.05, 0.3)) * members.random(), 4),
        )
        hot_every_ms = disks.choice((0, 0, 0, 40))
        hook_writes = drawn.has_hooks and members.random() < 0.2
        has_rollouts = rollouts.random() < 0.5 or always_rollouts
        drawn = drawn.but(hook_writes=hook_writes)
        return _with_rollouts(drawn, rollouts) if has_rollouts else drawn.but(hot_every_ms=hot_every_ms)

    def but(self, **changes: object) -> Options:
        return replace(self, **changes)  # type: ignore[arg-type]

    def __str__(self) -> str:
        values = ((each.name, getattr(self, each.name)) for each in fields(self) if each.name != "policy")
        words = [f"{name}={value}" for name, value in values if value not in (0, 0.0, False)]
        if self.has_rollouts:
            words.append(f"policy: {policy_words(self.policy)}")
        return " ".join(words)


def drawn_policy(rng: Random) -> RolloutPolicy:
    """Durations are short, so that deadlines pass within a run."""
    strategy = rng.choice(
        (Strategy.ROLLING, Strategy.ROLLING, Strategy.CANARY, Strategy.TOGETHER, Strategy.AUTO)
    )
    order = [NodeName(name) for name in ("p0", "p1", "p2", "hub")]
    rng.shuffle(order)
    return RolloutPolicy(
        strategy=strategy,
        batch=rng.choice((1, 1, 2)),
        order=tuple(order[: rng.randrange(4)]),
        quorum_percent=rng.choice((100, 100, 60, 30)),
        absent=rng.choice((Absent.SKIP, Absent.SKIP, Absent.WAIT)),
        on_failure=rng.choice((OnFailure.PUT_BACK, OnFailure.PUT_BACK, OnFailure.STOP)),
        confirm_within_ms=rng.choice((None, 2_000, 2_000, 8_000)),
        finish_within_ms=rng.choice((1_000, 4_000, 15_000)),
        canary_for_ms=rng.choice((0, 500, 5_000)),
    )


def policy_words(policy: RolloutPolicy) -> str:
    confirm = "" if policy.confirm_within_ms is None else f", confirm within {policy.confirm_within_ms}"
    return (
        f"{policy.strategy.value}, batch {policy.batch}, order {'/'.join(policy.order) or 'by name'}, quorum "
        f"{policy.quorum_percent}%, absent {policy.absent.value}, on failure {policy.on_failure.value}, finish within "
        f"{policy.finish_within_ms}{confirm}, canary for {policy.canary_for_ms}"
    )


def _with_rollouts(options: Options, rng: Random) -> Options:
    """Fewer heads than else, so that a rollout has the time to end."""
    return options.but(
        has_rollouts=True,
        policy=drawn_policy(rng),
        edit_every_ms=rng.choice((2_000, 8_000, 25_000)),
        cut_every_ms=options.cut_every_ms or rng.choice((0, 3_000, 8_000)),
        policy_every_ms=rng.choice((0, 0, 15_000)),
        ask_rollout_every_ms=rng.choice((0, 2_000, 6_000)),
        probe_fails=rng.choice((0.0, 0.0, 0.05, 0.3)),
        drain_ms=rng.choice((1, 100, 1_500)),
        one_hook_less=rng.random() < 0.3,
        bound_ms=400_000,
    )
