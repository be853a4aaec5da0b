"""The ``LeaseMachine``: takes one lease for one holder, renews it, and stops the holder in time.

``asking -> held -> stopping -> asking``, or to the end. A grant counts from the moment before its request was sent, by
the clock since boot, and for less than the database allows: whatever becomes of the answer, of the database or of this
machine's pace, the holder has been stopped before another one can have the lease.
"""

from __future__ import annotations

import enum
from typing import assert_never

from instep.core.backoff import Backoff, Chance
from instep.core.cluster import lease_words as w
from instep.core.cluster.lease_words import LeaseEffect, LeaseEvent, WhyStopped
from instep.core.contract import Invariant, check_all
from instep.core.vocabulary import SetTimer, Started, TimerFired
from instep.model.lease import LeaseFence

TTL_MS = 15_000
TTL_MS_MIN, TTL_MS_MAX = 5_000, 30_000
GRACE_MS_MIN = 500
POLL_MS = 1_000
"""The longest pause between two looks at a lease that another holder has."""
AGAIN_MS, AGAIN_MS_MAX = 250, 2_000
MARGIN_MS = 1_000
LOOK = "look"


def trusted_ms(ttl_ms: int) -> int:
    """How long a holder relies on a grant: its clock may run a tenth slower than the database's, and a second is for
    rounding and for the way."""
    return ttl_ms * 9 // 10 - MARGIN_MS


def usual_grace_ms(ttl_ms: int) -> int:
    """How long before the end of a grant its holder is stopped, unless it needs longer."""
    return max(GRACE_MS_MIN, ttl_ms // 5)


class LeasePhase(enum.Enum):
    ASKING = "asking"
    HELD = "held"
    STOPPING = "stopping"
    ENDED = "ended"


class LeaseMachine:
    """One lease, one holder. ``grace_ms`` is how long the holder needs to stop."""

    def __init__(self, ttl_ms: int, grace_ms: int, rng: Chance) -> None:
        assert TTL_MS_MIN <= ttl_ms <= TTL_MS_MAX, ttl_ms
        assert 0 <= grace_ms < trusted_ms(ttl_ms) - ttl_ms // 3, (ttl_ms, grace_ms)
        self._ttl_ms, self._grace_ms, self._rng = ttl_ms, grace_ms, rng
        self._backoff = Backoff(rng)
        self._phase = LeasePhase.ASKING
        self._is_started = self._is_wanted = False
        self._fence: LeaseFence | None = None
        """The last grant, as long as it may be worth giving back."""
        self._until_ms = 0
        """Until when the grant is relied on."""
        self._renew_at_ms = self._ask_at_ms = 0
        self._req = 0
        self._pending: int | None = None
        self._sent_at_ms = 0
        self._told: w.LeaseDenied | w.LeaseFailed | None = None
        self._now = 0
        self._out: list[LeaseEffect] = []

    @property
    def phase(self) -> LeasePhase:
        return self._phase

    @property
    def fence(self) -> LeaseFence | None:
        """The fence of a lease that is held."""
        return self._fence if self._phase is LeasePhase.HELD else None

    @property
    def stop_at_ms(self) -> int:
        """When the holder must begin to stop."""
        return self._until_ms - self._grace_ms

    def step(self, event: LeaseEvent, now_ms: int) -> tuple[LeaseEffect, ...]:
        """The only door. ``now_ms`` is the clock since boot."""
        self._now, self._out = now_ms, []
        if self._phase is not LeasePhase.ENDED:
            self._mind_the_end()  # first: an answer that comes after a pause changes nothing about it
            self._take(event)
            self._advance()
        return check_all(INVARIANTS, self, tuple(self._out))

    # Events ---------------------------------------------------------------------------------------------------------

    def _take(self, event: LeaseEvent) -> None:
        match event:
            case Started():
                self._is_started = self._is_wanted = True
            case w.LeaseGranted() | w.LeaseDenied() | w.LeaseFailed() | w.LeaseGivenBack():
                if event.req == self._pending:
                    self._pending = None
                    self._answered(event)
            case w.LeaseChanged():
                self._renew_at_ms = self._ask_at_ms = self._now
            case w.NewerEra(era):
                if self._phase is LeasePhase.HELD and self._fence is not None and era > self._fence.era:
                    self._stop(WhyStopped.NEWER_ERA)
            case w.HolderStopped():
                if self._phase is LeasePhase.STOPPING:
                    self._phase = LeasePhase.ASKING
                    self._ask_at_ms = self._now
            case w.ReleaseLease():
                self._is_wanted = False
                if self._phase is LeasePhase.HELD:
                    self._stop(WhyStopped.RELEASED)
            case TimerFired():
                pass  # `_advance` follows every event, and does what is due by now.
            case _:
                assert_never(event)

    def _answered(self, answer: w.LeaseGranted | w.LeaseDenied | w.LeaseFailed | w.LeaseGivenBack) -> None:
        match answer:
            case w.LeaseGranted(_, fence):
                self._backoff.clear_all()
                self._granted(fence)
            case w.LeaseDenied(_, _, left_ms):
                self._backoff.clear_all()
                self._fence = None
                if self._phase is LeasePhase.HELD:
                    self._stop(WhyStopped.TAKEN)
                pause = min(POLL_MS, left_ms + 1) * (0.5 + self._rng.random() / 2)
                self._ask_at_ms = self._now + max(1, round(pause))
                self._tell(answer)
            case w.LeaseFailed():
                if not self._is_wanted and self._phase is LeasePhase.ASKING:
                    self._fence = None  # it runs out by itself
                at_ms = self._backoff.fail(LOOK, self._now, AGAIN_MS, AGAIN_MS_MAX)
                self._renew_at_ms = self._ask_at_ms = at_ms
                self._tell(answer)
            case w.LeaseGivenBack():
                self._fence = None

    def _tell(self, answer: w.LeaseDenied | w.LeaseFailed) -> None:
        """Say why the lease cannot be had, once for each reason."""
        told = self._told
        is_same = (
            isinstance(answer, w.LeaseDenied)
            and isinstance(told, w.LeaseDenied)
            and told.holder == answer.holder
        ) or (
            isinstance(answer, w.LeaseFailed)
            and isinstance(told, w.LeaseFailed)
            and told.trouble.code == answer.trouble.code
        )
        if not is_same:
            self._told = answer
            self._out.append(w.LeaseDeniedTo(answer))

    def _granted(self, fence: LeaseFence) -> None:
        self._fence = fence
        until_ms = self._sent_at_ms + trusted_ms(self._ttl_ms)
        if self._phase is LeasePhase.STOPPING:
            return  # too late: it is given back once the holder has stopped
        if not self._is_wanted or until_ms - self._grace_ms <= self._now:
            self._ask_at_ms = self._backoff.fail(LOOK, self._now, AGAIN_MS, AGAIN_MS_MAX)
            return  # of no use any more
        self._told = None
        self._until_ms = until_ms
        self._renew_at_ms = self._sent_at_ms + self._ttl_ms // 3
        if self._phase is LeasePhase.HELD:
            self._out.append(w.ExtendHolding(fence, until_ms))
        else:
            self._phase = LeasePhase.HELD
            self._out.append(w.BeginHolding(fence, until_ms))

    # Due work ----------------------------------------------------------------------------------------------------

    def _mind_the_end(self) -> None:
        if self._phase is LeasePhase.HELD and self._now >= self.stop_at_ms:
            self._stop(WhyStopped.EXPIRED)

    def _stop(self, why: WhyStopped) -> None:
        self._phase = LeasePhase.STOPPING
        self._out.append(w.StopHolding(why, self._until_ms))

    def _advance(self) -> None:
        if not self._is_started:
            return
        match self._phase:
            case LeasePhase.HELD:
                if self._pending is None and self._now >= self._renew_at_ms:
                    assert self._fence is not None
                    self._ask(w.RenewLease(self._next(), self._fence))
                due = (
                    self.stop_at_ms if self._pending is not None else min(self._renew_at_ms, self.stop_at_ms)
                )
                self._out.append(SetTimer(LOOK, due))
            case LeasePhase.ASKING:
                self._seek()
            case LeasePhase.STOPPING | LeasePhase.ENDED:
                self._out.append(SetTimer(LOOK, None))

    def _seek(self) -> None:
        """Nothing runs under the lease: ask for it, or give back what is left of it."""
        if self._pending is not None:
            self._out.append(SetTimer(LOOK, None))
        elif not self._is_wanted and self._fence is None:
            self._phase = LeasePhase.ENDED
            self._out += (SetTimer(LOOK, None), w.LeaseEnded())
        elif not self._is_wanted:
            assert self._fence is not None
            self._ask(w.GiveBackLease(self._next(), self._fence))
        elif self._now >= self._ask_at_ms:
            self._ask(w.TakeLease(self._next()))
        else:
            self._out.append(SetTimer(LOOK, self._ask_at_ms))

    def _next(self) -> int:
        self._req += 1
        return self._req

    def _ask(self, effect: w.TakeLease | w.RenewLease | w.GiveBackLease) -> None:
        self._pending, self._sent_at_ms = effect.req, self._now
        self._out.append(effect)


def holds_while_it_is_trusted(machine: LeaseMachine, _effects: tuple[object, ...]) -> bool:
    """A lease is held only before the moment at which its holder must begin to stop."""
    return machine.phase is not LeasePhase.HELD or machine._now < machine.stop_at_ms


def begins_once(machine: LeaseMachine, effects: tuple[object, ...]) -> bool:
    """Holding begins, and ends, once in a step, and the phase says so."""
    begun = [e for e in effects if isinstance(e, w.BeginHolding)]
    stopped = [e for e in effects if isinstance(e, w.StopHolding)]
    return (
        len(begun) <= 1
        and len(stopped) <= 1
        and (not begun or machine.phase in (LeasePhase.HELD, LeasePhase.STOPPING))
        and (not stopped or machine.phase is not LeasePhase.HELD)
    )


def asks_only_when_nothing_runs(machine: LeaseMachine, effects: tuple[object, ...]) -> bool:
    """The lease is taken or given back only while nothing runs under it."""
    asked = any(isinstance(e, w.TakeLease | w.GiveBackLease) for e in effects)
    return not asked or machine.phase is LeasePhase.ASKING


INVARIANTS: tuple[Invariant[LeaseMachine], ...] = (
    holds_while_it_is_trusted,
    begins_once,
    asks_only_when_nothing_runs,
)
