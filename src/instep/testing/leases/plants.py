"""Planted bugs of leases: rules that the database's twin breaks by name, and machines with one rule broken here."""

from __future__ import annotations

from instep.core.cluster.lease import LeaseMachine
from instep.core.cluster.lease_words import LeaseEffect, LeaseEvent, LeaseGranted, StopHolding
from instep.core.vocabulary import TimerFired
from instep.model.lease import LeaseFence


class _ValidFromReceipt(LeaseMachine):
    """Counts a grant from the moment at which its answer came."""

    def step(self, event: LeaseEvent, now_ms: int) -> tuple[LeaseEffect, ...]:
        if isinstance(event, LeaseGranted) and event.req == self._pending:
            self._sent_at_ms = now_ms
        return super().step(event, now_ms)


class _TrustsItWhole(LeaseMachine):
    """Relies on a grant for a tenth longer than its time to live."""

    def _granted(self, fence: LeaseFence) -> None:
        super()._granted(fence)
        self._until_ms = self._sent_at_ms + self._ttl_ms * 11 // 10


class _GoesOnAtTimers(LeaseMachine):
    """Believes that a renewal which is under way will come in time."""

    def _mind_the_end(self) -> None:
        if self._pending is None:
            super()._mind_the_end()

    @property
    def stop_at_ms(self) -> int:
        found = super().stop_at_ms
        return found if self._pending is None else max(found, self._now + 1)


class _StopsInWordsOnly(LeaseMachine):
    """Asks for the lease again, and holds it, before what ran under it has ended."""

    def step(self, event: LeaseEvent, now_ms: int) -> tuple[LeaseEffect, ...]:
        effects = super().step(event, now_ms)
        return tuple(e for e in effects if not isinstance(e, StopHolding) or isinstance(event, TimerFired))


MACHINES: dict[str, type[LeaseMachine]] = {
    "valid_from_receipt": _ValidFromReceipt,
    "trusts_it_whole": _TrustsItWhole,
    "renewal_believed": _GoesOnAtTimers,
    "stop_forgotten": _StopsInWordsOnly,
}
LEASE_PLANTS = (
    "no_quiet_time", "counter_not_raised", "guard_forgotten", *MACHINES,
)  # fmt: skip
