"""The twin of the cluster's database in memory: eras and leases by the rules of ``docs/spec/cluster-database.md``.

Every commit is kept with its moment, so that a failover can forget the last ones. A property test compares the twin
with the real statements.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from instep.model.lease import LeaseFence

LONGEST_TTL_MS = 30_000


@dataclass(frozen=True, slots=True)
class TwinRow:
    """A lease."""

    holder: str
    session: str
    fence: LeaseFence
    ttl_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class TwinState:
    """All that is committed: the era, and the leases by name."""

    server: str = "first"
    era: int = 1
    quiet_until_ms: int = 0
    rows: tuple[tuple[str, TwinRow], ...] = ()
    guarded: tuple[LeaseFence, ...] = ()
    """The fences of the guarded writes that were taken, in order."""

    def row(self, name: str) -> TwinRow | None:
        return dict(self.rows).get(name)

    def with_row(self, name: str, row: TwinRow) -> TwinState:
        return replace(self, rows=tuple(sorted({**dict(self.rows), name: row}.items())))


@dataclass(frozen=True, slots=True)
class TwinDenied:
    """Not granted: the holder, and for how long it has the lease."""

    holder: str
    left_ms: int


class TwinDatabase:
    """``now_ms`` is its clock, which a failover replaces. ``plant`` names a rule that it breaks."""

    def __init__(self, now_ms: Callable[[], int], plant: str | None = None) -> None:
        self.now_ms = now_ms
        self.server = "first"
        self._plant = plant
        self._log: list[tuple[int, TwinState]] = [(0, TwinState())]

    @property
    def state(self) -> TwinState:
        return self._log[-1][1]

    def _commit(self, at_ms: int, state: TwinState) -> None:
        self._log.append((at_ms, state))

    def fail_over(self, since_ms: int, server: str, now_ms: Callable[[], int]) -> int:
        """Go on with the commits until ``since_ms``; how many commits are forgotten."""
        kept = [entry for entry in self._log if entry[0] <= since_ms] or self._log[:1]
        lost = len(self._log) - len(kept)
        self._log, self.server, self.now_ms = kept, server, now_ms
        return lost

    def _opened(self) -> TwinState:
        """A transaction: in a new era when the server is another one."""
        state = self.state
        if state.server != self.server:
            quiet_ms = 0 if self._plant == "no_quiet_time" else LONGEST_TTL_MS
            now_ms = self.now_ms()
            rows = tuple(
                (name, replace(row, expires_ms=min(row.expires_ms, now_ms + row.ttl_ms)))
                for name, row in state.rows
            )
            state = replace(
                state, server=self.server, era=state.era + 1, quiet_until_ms=now_ms + quiet_ms, rows=rows
            )
        return state

    def take(self, at_ms: int, name: str, holder: str, session: str, ttl_ms: int) -> LeaseFence | TwinDenied:
        state, now_ms = self._opened(), self.now_ms()
        if now_ms < state.quiet_until_ms:
            self._commit(at_ms, state)
            return TwinDenied("", state.quiet_until_ms - now_ms)
        row = state.row(name)
        if row is not None and row.expires_ms > now_ms and row.session != session:
            self._commit(at_ms, state)
            return TwinDenied(row.holder, row.expires_ms - now_ms)
        raised = 0 if self._plant == "counter_not_raised" else 1
        fence = LeaseFence(state.era, 1 if row is None else row.fence.counter + raised)
        self._commit(at_ms, state.with_row(name, TwinRow(holder, session, fence, ttl_ms, now_ms + ttl_ms)))
        return fence

    def renew(self, at_ms: int, name: str, session: str, fence: LeaseFence) -> LeaseFence | TwinDenied:
        state, now_ms = self._opened(), self.now_ms()
        row = state.row(name)
        is_mine = row is not None and (row.session, row.fence) == (session, fence)
        if row is None or not is_mine:
            self._commit(at_ms, state)
            return (
                TwinDenied("", 0) if row is None else TwinDenied(row.holder, max(0, row.expires_ms - now_ms))
            )
        raised = LeaseFence(state.era, row.fence.counter + (state.era > row.fence.era))
        self._commit(
            at_ms,
            state.with_row(name, replace(row, fence=raised, expires_ms=now_ms + row.ttl_ms, session=session)),
        )
        return raised

    def give_back(self, at_ms: int, name: str, session: str, fence: LeaseFence) -> bool:
        state = self._opened()
        row = state.row(name)
        if row is None or (row.session, row.fence) != (session, fence):
            self._commit(at_ms, state)
            return False
        self._commit(at_ms, state.with_row(name, replace(row, holder="", session="", expires_ms=0)))
        return True

    def end(self, at_ms: int, name: str) -> bool:
        """Break a lease that is held."""
        state = self._opened()
        row = state.row(name)
        if row is None or row.expires_ms <= self.now_ms():
            self._commit(at_ms, state)
            return False
        self._commit(at_ms, state.with_row(name, replace(row, session="")))
        return True

    def guard(self, at_ms: int, name: str, session: str, fence: LeaseFence) -> bool:
        """A guarded write; whether it was taken."""
        state = self._opened()
        row = state.row(name)
        is_in_force = (
            row is not None
            and (row.session, row.fence) == (session, fence)
            and fence.era == state.era
            and row.expires_ms > self.now_ms()
        )
        if is_in_force or self._plant == "guard_forgotten":
            self._commit(at_ms, replace(state, guarded=(*state.guarded, fence)))
            return True
        self._commit(at_ms, state)
        return False
